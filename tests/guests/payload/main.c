/*
 * main.c: the table of tests. The command line names one: `hello`, `storm mmio=0xfeb00000 n=1000`, ...
 *
 * Ends with the line `payload: pass NAME` or `payload: fail NAME`, then leaves by isa-debug-exit (port 0x501)
 * with 0 or 1; an unexpected exception leaves with 0x7f. Without that device: ACPI power off at port 0x604, else hlt.
 */
#include "tests.h"

#define CMDLINE_POINTER 24 /* in the start information */

struct test {
    const char *name;
    test_fn *run;
};

static const struct test tests[] = {
    {"hello", test_hello},
    {"info", test_info},
    {"acpi", test_acpi},
    {"cpuid", test_cpuid},
    {"msr", test_msr},
    {"flood", test_flood},
    {"echo", test_echo},
    {"memory", test_memory},
    {"load", test_load},
    {"rmw", test_rmw},
    {"jit", test_jit},
    {"script", test_script},
    {"storm", test_storm},
    {"strio", test_strio},
    {"mmio", test_mmio},
    {"fuzz-ports", test_fuzz_ports},
    {"fuzz-mmio", test_fuzz_mmio},
    {"pci", test_pci},
    {"blk", test_blk},
    {"net", test_net},
    {"wire", test_wire},
    {"timer", test_timer},
    {"pit", test_pit},
    {"pmtimer", test_pmtimer},
    {"rtc", test_rtc},
    {"uartirq", test_uartirq},
    {"smp", test_smp},
    {"ipi", test_ipi},
    {"ipi-flood", test_ipi_flood},
    {"exit", test_exit},
    {"poweroff", test_poweroff},
    {"reset", test_reset},
    {"panic", test_panic},
    {"halt", test_halt},
    {"triple", test_triple},
    {"internal", test_internal},
    {"jump", test_jump},
    {"garbage", test_garbage},
};
#define TESTS (sizeof(tests) / sizeof(tests[0]))

extern uint64_t start_info_addr;

/* The PVH start information (Xen public/arch-x86/hvm/start_info.h). */
uint64_t start_info(void) {
    return start_info_addr;
}

static void run(void) {
    uint32_t len = 0;
    const char *name = arg_word(0, &len);

    for (uint32_t i = 0; i < TESTS; i++)
        if (name && same(name, len, tests[i].name)) {
            int bad = tests[i].run();

            print("payload: %s %s\n", bad ? "fail" : "pass", tests[i].name);
            leave(bad ? 1 : 0);
        }
    for (uint32_t i = 0; i < TESTS; i++)
        print("payload: there is %s\n", tests[i].name);
    leave(2);
}

/* start.S comes here at level 3, on the CPU's own stack, with interrupts off. */
_Noreturn void cpu_main(uint32_t index) {
    struct cpu *cpu = this_cpu();

    cpu->index = index;
    if (index)
        smp_serve(cpu);
    cpu->online = true;
    args_init(*(const char *const *)(start_info() + CMDLINE_POINTER));
    trap_init();
    run();
    leave(2);
}
