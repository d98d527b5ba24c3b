/*
 * main.c: the table of tests. The command line names one: `hello`, `storm mmio=0xfeb00000 n=1000`, ...
 *
 * Ends with the line `payload: pass NAME` or `payload: fail NAME: reason`, then leaves by isa-debug-exit (port 0x501)
 * with 0 or 1; an unexpected exception leaves with 0x7f. Without that device: ACPI power off at port 0x604, else hlt.
 */
#include "guest.h"

#define DEBUG_EXIT 0x501
#define PM1A_CONTROL 0x604
#define SLEEP_S5 0x2000 /* SLP_EN, type 0 (ACPI 4.8.3.2.1) */

/* The start of the PVH boot structure (Xen public/arch-x86/hvm/start_info.h). */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, cmdline, rsdp;
};

extern uint64_t start_info_addr;

static int hello(void)
{
	uint64_t cs;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	print("hello from level %lu: %s\n", cs & 3, arg_command_line());
	return 0;
}

static const struct test tests[] = {
	{"hello", hello, "one line"},
	{"list", NULL, "this list"},
};
#define TESTS (sizeof(tests) / sizeof(tests[0]))

_Noreturn void leave(uint32_t value)
{
	print_flush();
	outb(DEBUG_EXIT, (uint8_t)value);
	port_out(PM1A_CONTROL, 2, SLEEP_S5);
	stop_for_ever();
}

int fail(const char *format, ...)
{
	(void)format;
	return 1;
}

static void run(void)
{
	uint32_t len = 0;
	const char *name = arg_word(0, &len);

	for (uint32_t i = 0; i < TESTS; i++)
		if (name && same(name, len, tests[i].name) && tests[i].run) {
			int bad = tests[i].run();

			print("payload: %s %s\n", bad ? "fail" : "pass", tests[i].name);
			leave(bad ? 1 : 0);
		}
	for (uint32_t i = 0; i < TESTS; i++)
		print("%s: %s\n", tests[i].name, tests[i].what);
	leave(2);
}

/* start.S comes here at level 3, on the CPU's own stack, with interrupts off. */
void cpu_main(uint32_t index)
{
	const struct start_info *info = (const struct start_info *)start_info_addr;
	struct cpu *cpu = this_cpu();

	cpu->index = index;
	cpu->online = true;
	if (index == 0) {
		args_init((const char *)info->cmdline);
		trap_init();
		run();
	}
	for (;;)
		pause();
}
