/* tcg_callbacks.c: what the engine asks while a guest instruction executes: memory and ports outside RAM, interrupts,
 * CR8, the clock. Runs on the machine's vCPU thread; the guest chose every argument. */
#include <string.h>

#include "tcg.h"
#include "threads.h"

static void count(struct tcg_vcpu *c, enum core_exit kind) {
    atomic_fetch_add_explicit(&c->vcpu->exits[kind], 1, memory_order_relaxed);
}

/* The machine was paused while this access waited for its answer: wait here, so that the guest stands still. */
static void stay_paused(struct core_vcpu *v) {
    struct core_machine *m = v->machine;
    if (!atomic_load(&v->thread->attention) || atomic_load(&m->target) != CORE_PAUSED) {
        return;
    }
    core_gate_leave(m);
    pthread_mutex_lock(&m->gate);
    while (atomic_load(&m->target) == CORE_PAUSED) {
        pthread_cond_wait(&m->open, &m->gate);
    }
    pthread_mutex_unlock(&m->gate);
    core_gate_enter(m);
}

static uint64_t read_bus(struct tcg_vcpu *c, int space, uint64_t address, unsigned size) {
    uint64_t value = 0;
    core_dispatch(c->vcpu, space, address, (uint8_t *)&value, size, false);
    stay_paused(c->vcpu);
    return value;
}

static void write_bus(struct tcg_vcpu *c, int space, uint64_t address, unsigned size, uint64_t value) {
    core_dispatch(c->vcpu, space, address, (uint8_t *)&value, size, true);
    stay_paused(c->vcpu);
}

static bool is_apic(struct tcg_vcpu *c, uint64_t gpa) {
    return (gpa & ~0xfffull) == atomic_load_explicit(&c->apic_page, memory_order_relaxed);
}

static uint64_t access_apic(struct tcg_vcpu *c, uint64_t gpa, unsigned size, uint64_t value, bool is_write) {
    struct core_chip *chip = &c->tcg->intc.cpu[c->vcpu->index]->chip;
    struct core_part part = {.offset = gpa & 0xfff, .size = size, .value = value, .is_write = is_write};
    chip->ops->access(chip, &part);
    return part.value;
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size) {
    struct tcg_vcpu *c = opaque;
    if (is_apic(c, gpa)) {
        return access_apic(c, gpa, size, 0, false);
    }
    count(c, CORE_EXIT_MMIO_READ);
    return read_bus(c, CORE_MMIO, gpa, size);
}

static void mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value) {
    struct tcg_vcpu *c = opaque;
    if (is_apic(c, gpa)) {
        access_apic(c, gpa, size, value, true);
        return;
    }
    count(c, CORE_EXIT_MMIO_WRITE);
    write_bus(c, CORE_MMIO, gpa, size, value);
}

static uint32_t pio_read(void *opaque, uint16_t port, unsigned size) {
    struct tcg_vcpu *c = opaque;
    count(c, CORE_EXIT_PIO_READ);
    return (uint32_t)read_bus(c, CORE_PIO, port, size);
}

static void pio_write(void *opaque, uint16_t port, unsigned size, uint32_t value) {
    struct tcg_vcpu *c = opaque;
    count(c, CORE_EXIT_PIO_WRITE);
    write_bus(c, CORE_PIO, port, size, value);
}

static int interrupt(void *opaque) {
    struct tcg_vcpu *c = opaque;
    return intc_acknowledge(&c->tcg->intc, c->vcpu->index);
}

static uint8_t cr8_read(void *opaque) {
    struct tcg_vcpu *c = opaque;
    return (uint8_t)(c->tcg->intc.cpu[c->vcpu->index]->tpr >> 4);
}

static void cr8_write(void *opaque, uint8_t value) {
    struct tcg_vcpu *c = opaque;
    struct core_intc *intc = &c->tcg->intc;
    pthread_mutex_lock(&intc->lock);
    lapic_set_tpr(intc->cpu[c->vcpu->index], (uint8_t)(value << 4));
    pthread_mutex_unlock(&intc->lock);
}

static uint64_t counter(void *opaque) {
    struct tcg_vcpu *c = opaque;
    return core_clock_ns(c->tcg->machine) + c->tsc_adjust;
}

void tcg_callbacks_fill(struct aioemu_callbacks *callbacks) {
    *callbacks = (struct aioemu_callbacks){
        .size = sizeof *callbacks,
        .mmio_read = mmio_read,
        .mmio_write = mmio_write,
        .pio_read = pio_read,
        .pio_write = pio_write,
        .interrupt = interrupt,
        .msr_read = tcg_msr_read,
        .msr_write = tcg_msr_write,
        .cr8_read = cr8_read,
        .cr8_write = cr8_write,
        .cpuid = tcg_cpuid,
        .counter = counter,
    };
}
