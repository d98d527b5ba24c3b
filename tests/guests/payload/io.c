/* io.c: what needs level 0: ports, MSRs, the interrupt flag, hlt. Each k_* function runs there. */
#include "guest.h"

#define DEBUG_EXIT   0x501
#define PM1A_CONTROL 0x604
#define SLEEP_S5     0x2000 /* SLP_EN, type 0 (ACPI 4.8.3.2.1) */

static uint64_t k_in(uint64_t port, uint64_t size, uint64_t unused) {
    uint32_t value = 0;

    (void)unused;
    switch (size) {
    case 1: __asm__ volatile("inb %w1, %b0" : "+a"(value) : "d"(port)); break;
    case 2: __asm__ volatile("inw %w1, %w0" : "+a"(value) : "d"(port)); break;
    default: __asm__ volatile("inl %w1, %0" : "+a"(value) : "d"(port));
    }
    return value;
}

static uint64_t k_out(uint64_t port, uint64_t size, uint64_t value) {
    switch (size) {
    case 1: __asm__ volatile("outb %b0, %w1" : : "a"(value), "d"(port)); break;
    case 2: __asm__ volatile("outw %w0, %w1" : : "a"(value), "d"(port)); break;
    default: __asm__ volatile("outl %k0, %w1" : : "a"(value), "d"(port));
    }
    return 0;
}

uint32_t port_in(uint16_t port, uint32_t size) {
    return (uint32_t)at_cpl0(k_in, port, size, 0);
}

void port_out(uint16_t port, uint32_t size, uint32_t value) {
    (void)at_cpl0(k_out, port, size, value);
}

static uint64_t k_rdmsr(uint64_t index, uint64_t unused, uint64_t unused2) {
    uint32_t lo, hi;

    (void)unused;
    (void)unused2;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(index));
    return ((uint64_t)hi << 32) | lo;
}

static uint64_t k_wrmsr(uint64_t index, uint64_t value, uint64_t unused) {
    (void)unused;
    __asm__ volatile("wrmsr" : : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
    return 0;
}

uint64_t msr_read(uint32_t index) {
    return at_cpl0(k_rdmsr, index, 0, 0);
}

void msr_write(uint32_t index, uint64_t value) {
    (void)at_cpl0(k_wrmsr, index, value, 0);
}

/* The flag of the caller is in the frame that start.S keeps at the top of the level 0 stack. */
static uint64_t k_set_if(uint64_t on, uint64_t unused, uint64_t unused2) {
    struct frame *frame = (struct frame *)((uint64_t)this_cpu() + CPU_SIZE - USER_STACK_SIZE) - 1;

    (void)unused;
    (void)unused2;
    frame->rflags = on ? frame->rflags | RFLAGS_IF : frame->rflags & ~(uint64_t)RFLAGS_IF;
    return 0;
}

void irqs_on(void) {
    (void)at_cpl0(k_set_if, 1, 0, 0);
}

void irqs_off(void) {
    (void)at_cpl0(k_set_if, 0, 0, 0);
}

/* sti holds interrupts back for one instruction, so the wake-up cannot slip in before hlt (SDM 2B, STI). */
static uint64_t k_halt_until(uint64_t counter, uint64_t value, uint64_t unused) {
    (void)unused;
    while (*(volatile uint64_t *)counter < value)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    return 0;
}

void halt_until(volatile uint64_t *counter, uint64_t value) {
    (void)at_cpl0(k_halt_until, (uint64_t)counter, value, 0);
}

static _Noreturn uint64_t k_stop(uint64_t unused, uint64_t unused2, uint64_t unused3) {
    (void)unused;
    (void)unused2;
    (void)unused3;
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void stop_for_ever(void) {
    for (;;)
        (void)at_cpl0(k_stop, 0, 0, 0);
}

/* The way out that needs nothing but level 0. */
_Noreturn void k_leave(uint32_t value) {
    (void)k_out(DEBUG_EXIT, 1, value);
    (void)k_out(PM1A_CONTROL, 2, SLEEP_S5);
    for (;;)
        __asm__ volatile("cli; hlt");
}

static _Noreturn uint64_t k_leave_call(uint64_t value, uint64_t unused, uint64_t unused2) {
    (void)unused;
    (void)unused2;
    k_leave((uint32_t)value);
}

_Noreturn void leave(uint32_t value) {
    print_flush();
    for (;;)
        (void)at_cpl0(k_leave_call, value, 0, 0);
}
