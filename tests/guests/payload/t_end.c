/* t_end.c: ways to end a machine, orderly and not. One that returns has failed, unless it says otherwise. */
#include "tests.h"

/* exit v=N: status (N << 1) | 1 */
int test_exit(void) {
    leave((uint32_t)arg("v", 0));
}

int test_poweroff(void) {
    print("poweroff: now\n");
    port_out((uint16_t)arg("port", 0x604), 2, (uint32_t)arg("value", 0x2000));
    spin_us(1000000);
    return fail("still here");
}

/* reset how=cf9|kbd|92 once=1: with once, a second start finds RAM's mark and passes. */
int test_reset(void) {
    volatile uint64_t *mark = (volatile uint64_t *)0x7000;

    if (arg("once", 0) && *mark == 0x6b72616d) {
        *mark = 0;
        print("reset: started again\n");
        return 0;
    }
    *mark = 0x6b72616d;
    print("reset: now\n");
    if (arg_is("how", "kbd"))
        outb(0x64, 0xfe);
    else if (arg_is("how", "92"))
        outb(0x92, inb(0x92) | 1);
    else
        outb(0xcf9, 0x06);
    spin_us(1000000);
    return fail("still here");
}

/* panic v=N port=P: tell pvpanic; the guest goes on unless the host stops it. */
int test_panic(void) {
    uint16_t port = (uint16_t)arg("port", 0x505);

    print("panic: port 0x%x offers 0x%x\n", port, inb(port));
    outb(port, (uint8_t)arg("v", 1));
    print("panic: going on\n");
    return 0;
}

/* Halt with interrupts off: idle for ever. */
int test_halt(void) {
    print("halt: interrupts off\n");
    stop_for_ever();
}

struct pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

static uint64_t k_triple(uint64_t unused, uint64_t unused2, uint64_t unused3) {
    static const struct pointer nothing = {0, 0};

    (void)unused;
    (void)unused2;
    (void)unused3;
    __asm__ volatile("lidt %0; ud2" : : "m"(nothing));
    return 0;
}

int test_triple(void) {
    print("triple: now\n");
    (void)at_cpl0(k_triple, 0, 0, 0);
    return fail("still here");
}

/* An SSE addition from a device: KVM's emulator knows it not, and at level 0 that is an internal error. */
static uint64_t k_internal(uint64_t addr, uint64_t unused, uint64_t unused2) {
    (void)unused;
    (void)unused2;
    __asm__ volatile("paddd (%0), %%xmm0" : : "r"(addr) : "memory");
    return 0;
}

/* internal at=A: passes where the CPU can do it (software CPUs); elsewhere the machine stops with an internal error. */
int test_internal(void) {
    print("internal: now\n");
    (void)at_cpl0(k_internal, reach(arg("at", 0xfeb00000)), 0, 0);
    print("internal: executed\n");
    return 0;
}

static void call_address(uint64_t addr, uint64_t unused) {
    (void)unused;
    ((void (*)(void))addr)();
}

static uint64_t k_call_address(uint64_t addr, uint64_t unused, uint64_t unused2) {
    (void)unused2;
    call_address(addr, unused);
    return 0;
}

/* jump at=A nops=N level=3|0: run into A, over N bytes of nop in front of it: off RAM's end, or into a device. */
int test_jump(void) {
    uint64_t at = reach(arg("at", 0xfeb00000)), nops = arg("nops", 0);

    for (uint64_t i = 1; i <= nops; i++)
        *(volatile uint8_t *)(at - i) = 0x90;
    print("jump: now\n");
    if (!arg("level", 3))
        (void)at_cpl0(k_call_address, at - nops, 0, 0);
    else if (!survives(call_address, at - nops, 0)) {
        struct cpu *cpu = this_cpu();

        print("jump: exception %lu rip 0x%lx\n", cpu->fault_vector, cpu->fault_rip);
        return 0;
    }
    return fail("came back");
}

static uint64_t k_garbage(uint64_t what, uint64_t value, uint64_t unused) {
    struct pointer pointer = {0xffff, value};

    (void)unused;
    switch (what) {
    case 0: __asm__ volatile("mov %0, %%cr3; nop" : : "r"(value & 0x000ffffffffff000) : "memory"); break;
    case 1: __asm__ volatile("lidt %0; ud2" : : "m"(pointer)); break;
    case 2: __asm__ volatile("lgdt %0; mov %1, %%ds" : : "m"(pointer), "r"(0x18)); break;
    case 3: {
        /* the level 0 stack of the next trap points nowhere */
        uint64_t rsp0 = (uint64_t)this_cpu() + CPU_TSS + TSS_RSP0;

        *(volatile uint64_t __attribute__((aligned(4))) *)rsp0 = value;
        break;
    }
    }
    return 0;
}

/* garbage what=cr3|idt|gdt|tss value=V: load it and go on; the machine shuts down, resets or faults as hardware would. */
int test_garbage(void) {
    static const char *const names[] = {"cr3", "idt", "gdt", "tss"};
    uint64_t value = arg("value", 0x8000dead0000);

    print("garbage: now\n");
    for (uint32_t i = 0; i < 4; i++)
        if (arg_is("what", names[i]))
            (void)at_cpl0(k_garbage, i, value, 0);
    __asm__ volatile("ud2");
    return fail("still here");
}
