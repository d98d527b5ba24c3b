/* trap.c: exceptions, calls to level 0 and interrupts arrive here, at level 0. One IDT serves all CPUs. */
#include "guest.h"

#define FAULT_EXIT 0x7f

struct gate {
    uint16_t low, selector;
    uint8_t ist, type;
    uint16_t middle;
    uint32_t high, zero;
};

extern uint8_t trap_stubs[];
extern uint8_t survives_resume[];
struct gate idt[256] __attribute__((aligned(4096)));
static irq_fn *handlers[256];

/* Fill the IDT with interrupt gates of level 0 (SDM 3A 6.14.1); runs at level 3, where it is quick. */
void trap_init(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint64_t stub = (uint64_t)trap_stubs + (uint64_t)i * TRAP_STUB_SIZE;

        idt[i] = (struct gate){(uint16_t)stub, KERNEL_CS, 0, 0x8e, (uint16_t)(stub >> 16), (uint32_t)(stub >> 32), 0};
    }
}

void irq_handler(uint8_t vector, irq_fn *fn) {
    handlers[vector] = fn;
}

static bool is_call(const struct frame *frame) {
    return frame->vector == 6 && (frame->cs & 3) == 3 && frame->r11 == CPL0_MAGIC &&
           *(const uint16_t *)frame->rip == 0x0b0f;
}

static void note_fault(struct cpu *cpu, const struct frame *frame) {
    uint64_t cr2;

    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    cpu->fault_vector = frame->vector;
    cpu->fault_error = frame->error;
    cpu->fault_address = cr2;
    cpu->fault_rip = frame->rip;
}

/* Continue behind the guarded call, at level 3, whatever level the fault came from. */
static void unwind(struct cpu *cpu, struct frame *frame) {
    frame->rip = (uint64_t)survives_resume;
    frame->rsp = cpu->catch_rsp;
    frame->rax = 0;
    frame->cs = USER_CS;
    frame->ss = USER_DS;
    frame->rflags = RFLAGS_FIXED;
}

static void report_and_leave(uint64_t unused, uint64_t unused2) {
    struct cpu *cpu = this_cpu();

    (void)unused;
    (void)unused2;
    cpu->line_len = 0;
    print("payload: exception %lu error 0x%lx rip 0x%lx address 0x%lx cpu %u\n", cpu->fault_vector, cpu->fault_error,
          cpu->fault_rip, cpu->fault_address, cpu->index);
    leave(FAULT_EXIT);
}

/* Called by start.S with interrupts off. */
void trap(struct frame *frame) {
    struct cpu *cpu = this_cpu();

    if (is_call(frame)) {
        frame->rax = ((cpl0_fn *)frame->rdi)(frame->rsi, frame->rdx, frame->rcx);
        frame->rip += 2;
        return;
    }
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    if (frame->vector >= 32)
        return; /* an interrupt nobody asked for: no EOI, as a spurious one */
    if (cpu->dying)
        k_leave(FAULT_EXIT);
    note_fault(cpu, frame);
    if (cpu->catch_rsp) {
        unwind(cpu, frame);
        return;
    }
    cpu->dying = true;
    frame->rip = (uint64_t)report_and_leave;
    frame->rsp = (uint64_t)cpu + CPU_SIZE - 8;
    frame->cs = USER_CS;
    frame->ss = USER_DS;
    frame->rflags = RFLAGS_FIXED;
}
