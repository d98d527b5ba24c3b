/*
 * guest.h: what a payload test may call. Tests run at privilege level 3; functions named k_* run at level 0 only
 * (through at_cpl0, or from an interrupt handler).
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

/* The trap frame as start.S builds it. */
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

/* The head of a CPU's block (layout.h). */
struct cpu {
    uint8_t gdt[0x80];
    uint8_t tss[0x80];
    uint64_t catch_rsp; /* set while survives() guards a call */
    uint64_t fault_vector, fault_error, fault_address, fault_rip;
    uint32_t index, apic_id;
    void (*volatile work)(struct cpu *); /* what an application processor shall run next */
    volatile bool online;
    bool dying;     /* an exception is being reported: a second one leaves at once */
    char line[256]; /* output is written line by line */
    uint32_t line_len;
};

static inline struct cpu *this_cpu(void) {
    uint64_t rsp;

    __asm__ volatile("mov %%rsp, %0" : "=r"(rsp));
    return (struct cpu *)(rsp & ~(uint64_t)(CPU_SIZE - 1));
}

extern uint8_t cpu_blocks[];
static inline struct cpu *cpu_at(uint32_t index) {
    return (struct cpu *)(cpu_blocks + ((uint64_t)index << CPU_SHIFT));
}

/* start.S */
typedef uint64_t cpl0_fn(uint64_t a, uint64_t b, uint64_t c);
uint64_t at_cpl0(cpl0_fn *fn, uint64_t a, uint64_t b, uint64_t c);
bool survives(void (*fn)(uint64_t, uint64_t), uint64_t a, uint64_t b);

/* trap.c */
typedef void irq_fn(struct frame *frame);
void trap_init(void);
void irq_handler(uint8_t vector, irq_fn *fn);

/* io.c: port I/O, MSRs, interrupt flag */
uint32_t port_in(uint16_t port, uint32_t size);
void port_out(uint16_t port, uint32_t size, uint32_t value);
uint64_t msr_read(uint32_t index);
void msr_write(uint32_t index, uint64_t value);
void irqs_on(void);
void irqs_off(void);
void halt_until(volatile uint64_t *counter, uint64_t value); /* hlt with interrupts on until *counter >= value */
_Noreturn void stop_for_ever(void);
_Noreturn void k_leave(uint32_t value);
_Noreturn void leave(uint32_t value); /* by isa-debug-exit, else ACPI power off, else hlt */

static inline uint8_t inb(uint16_t port) {
    return (uint8_t)port_in(port, 1);
}
static inline void outb(uint16_t port, uint8_t value) {
    port_out(port, 1, value);
}

/* MMIO, natively at level 3 */
static inline uint64_t mmio_read(uint64_t addr, uint32_t size) {
    uint64_t value = 0;

    switch (size) {
    case 1: __asm__ volatile("movb (%1), %b0" : "=q"(value) : "r"(addr) : "memory"); return value & 0xff;
    case 2: __asm__ volatile("movw (%1), %w0" : "=r"(value) : "r"(addr) : "memory"); return value & 0xffff;
    case 4: __asm__ volatile("movl (%1), %k0" : "=r"(value) : "r"(addr) : "memory"); return value & 0xffffffff;
    default: __asm__ volatile("movq (%1), %0" : "=r"(value) : "r"(addr) : "memory"); return value;
    }
}
static inline void mmio_write(uint64_t addr, uint32_t size, uint64_t value) {
    switch (size) {
    case 1: __asm__ volatile("movb %b1, (%0)" : : "r"(addr), "q"(value) : "memory"); break;
    case 2: __asm__ volatile("movw %w1, (%0)" : : "r"(addr), "r"(value) : "memory"); break;
    case 4: __asm__ volatile("movl %k1, (%0)" : : "r"(addr), "r"(value) : "memory"); break;
    default: __asm__ volatile("movq %1, (%0)" : : "r"(addr), "r"(value) : "memory");
    }
}
static inline uint32_t read32(uint64_t addr) {
    return (uint32_t)mmio_read(addr, 4);
}
static inline void write32(uint64_t addr, uint32_t value) {
    mmio_write(addr, 4, value);
}

static inline uint64_t tsc(void) {
    uint32_t lo, hi;

    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return ((uint64_t)hi << 32) | lo;
}
static inline void pause(void) {
    __asm__ volatile("pause" : : : "memory");
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4]) {
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(sub));
}

/* print.c */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void print_flush(void);
void k_puts(const char *text, uint32_t len);

/* args.c: the command line, `test key=value key=value ...` */
void args_init(const char *cmdline);
const char *arg_command_line(void);
const char *arg_word(uint32_t n, uint32_t *len); /* the n-th word, NULL past the end */
bool arg_is(const char *key, const char *value);
uint64_t arg(const char *key, uint64_t otherwise);
const char *parse_number(const char *text, uint64_t *value); /* past the number; NULL when there is none */
bool same(const char *a, uint32_t len, const char *b);

/* memory.c */
void map_2m(uint64_t virt, uint64_t phys); /* identity up to 4 GiB is there from the start */
uint64_t reach(uint64_t phys);             /* make a physical address usable as a pointer, wherever it lies */

/* apic.c: interrupt controllers and timers */
#define LAPIC_ICR_FIXED_SELF 0x44000
#define LAPIC_ICR_OTHERS     0xc4000
void apic_init(void);
uint32_t apic_id(void);
void apic_send(uint32_t to, uint32_t command);
void apic_timer(uint8_t vector, uint32_t count, bool periodic);
void ioapic_route(uint32_t pin, uint8_t vector);
void k_eoi(void);
uint64_t tsc_per_ms(void); /* measured with the PIT once; 2,000,000 without one */
void spin_us(uint64_t us);

/* smp.c */
uint32_t smp_start(uint32_t wanted);                       /* CPUs that run then, this one included */
void smp_run(uint32_t cpus, void (*work)(struct cpu *));   /* on all of them, this one included; waits for the end */
void smp_serve(struct cpu *cpu) __attribute__((noreturn)); /* what an application processor does */

/* acpi.c */
struct acpi {
    uint64_t rsdp, mcfg;
    uint32_t cpus, tables, bad_checksums;
    uint16_t pm1a_control, pm_timer;
};
const struct acpi *acpi_find(void);

/* stats.c: samples in cycles, reported as one JSON line */
#define SAMPLES_MAX 16384
void sample(uint32_t index, uint64_t cycles);
void samples_print(const char *name, uint32_t count);
uint64_t random64(uint64_t *state);

/* main.c */
uint64_t start_info(void);

/* A test returns 0 when it passed. */
typedef int test_fn(void);

#endif
