/* intc_alone.c: the interrupt controllers without a processor: tests are the processor. Control thread only. */
#include <errno.h>
#include <stdlib.h>

#include "intc.h"

struct alone {
    struct core_intc intc;
    uint32_t signals[INTC_MAX_CPUS];
};

static struct alone *alone_of(core_intc *intc) {
    return (struct alone *)((char *)intc - offsetof(struct alone, intc));
}

static void note(void *opaque, uint32_t cpu, enum intc_signal what, uint8_t vector) {
    struct alone *alone = opaque;
    alone->signals[cpu] |= 1u << what;
    if (what == INTC_SIPI) {
        alone->signals[cpu] = (alone->signals[cpu] & 0xffff00ff) | (uint32_t)vector << 8;
    }
}

core_intc *core_intc_new(core_machine *m, uint32_t cpus) {
    struct alone *alone = calloc(1, sizeof *alone);
    if (!alone) {
        return NULL;
    }
    intc_open(&alone->intc, m);
    alone->intc.opaque = alone;
    alone->intc.signal = note;
    for (uint32_t i = 0; i < cpus; i++) {
        if (intc_add_cpu(&alone->intc, i) < 0) {
            core_intc_free(&alone->intc);
            return NULL;
        }
    }
    return &alone->intc;
}

void core_intc_free(core_intc *intc) {
    if (intc) {
        intc_close(intc);
        free(alone_of(intc));
    }
}

core_chip *core_intc_chip(core_intc *intc, int kind, uint32_t index) {
    return intc_chip(intc, kind, index);
}

int core_intc_irq(core_intc *intc, uint32_t gsi, int level) {
    return intc_irq(intc, gsi, level != 0);
}

int core_intc_msi(core_intc *intc, uint64_t address, uint32_t data) {
    return intc_msi(intc, address, data);
}

int core_intc_acknowledge(core_intc *intc, uint32_t cpu) {
    return cpu < intc->cpu_count ? intc_acknowledge(intc, cpu) : -1;
}

int64_t core_intc_poll(core_intc *intc) {
    pthread_mutex_lock(&intc->lock);
    int64_t next = intc_poll(intc, intc_now(intc));
    pthread_mutex_unlock(&intc->lock);
    return next;
}

uint32_t core_intc_signals(core_intc *intc, uint32_t cpu) {
    if (cpu >= intc->cpu_count) {
        return 0;
    }
    uint32_t signals = alone_of(intc)->signals[cpu];
    alone_of(intc)->signals[cpu] = 0;
    return signals;
}

int core_intc_set_deadline(core_intc *intc, uint32_t cpu, uint64_t deadline) {
    if (cpu >= intc->cpu_count) {
        return -EINVAL;
    }
    pthread_mutex_lock(&intc->lock);
    lapic_set_deadline(intc->cpu[cpu], deadline, (int64_t)deadline);
    pthread_mutex_unlock(&intc->lock);
    return 0;
}

int core_intc_set_base(core_intc *intc, uint32_t cpu, uint64_t base) {
    if (cpu >= intc->cpu_count) {
        return -EINVAL;
    }
    pthread_mutex_lock(&intc->lock);
    int rc = lapic_set_base(intc->cpu[cpu], base);
    pthread_mutex_unlock(&intc->lock);
    return rc;
}
