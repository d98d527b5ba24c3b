/* intc.c: the interrupt controllers and timers as a whole: delivery, wiring, time. See intc.h for who may call. */
#include "intc.h"

#include <errno.h>
#include <stdlib.h>

enum {
    MMIO_IOAPIC = 0xfec00000,
    PORT_PIC = 0x20,
    PORT_PIT = 0x40,
    PORT_61 = 0x61,
    PORT_PIC2 = 0xa0,
    PORT_ELCR = 0x4d0,
    MSI_REDIRECT = 1u << 3,
    MSI_LOGICAL = 1u << 2,
    MSI_LEVEL = 1u << 15,
};

int64_t intc_now(struct core_intc *intc) {
    return (int64_t)core_clock_ns(intc->machine);
}

void intc_arm(struct core_intc *intc, int64_t deadline_ns) {
    if (intc->armed) {
        intc->armed(intc->opaque, deadline_ns);
    }
}

/* ---- delivery ----------------------------------------------------------------------------------------------------------- */

int intc_deliver_to(struct core_intc *intc, const struct intc_message *message, uint32_t cpu) {
    struct lapic *apic = intc->cpu[cpu];
    switch (message->mode) {
    case MODE_FIXED:
    case MODE_LOWEST: return lapic_accept(apic, message->vector, message->level);
    case MODE_NMI: intc->signal(intc->opaque, cpu, INTC_NMI, 0); return 1;
    case MODE_INIT:
        lapic_reset(apic, false);
        intc->signal(intc->opaque, cpu, INTC_INIT, 0);
        return 1;
    case MODE_SIPI: intc->signal(intc->opaque, cpu, INTC_SIPI, message->vector); return 1;
    case MODE_EXTINT:
        apic->extint = true;
        lapic_update(apic);
        return 1;
    default: return 0;
    }
}

/* Of the processors addressed, the one with the lowest priority; among equals they take turns. */
static int deliver_lowest(struct core_intc *intc, const struct intc_message *message) {
    struct lapic *best = NULL;
    for (uint32_t i = 0; i < intc->cpu_count; i++) {
        struct lapic *apic = intc->cpu[(intc->lowest_turn + i) % intc->cpu_count];
        bool addressed = lapic_matches(apic, message->destination, message->logical) && lapic_is_enabled(apic);
        if (addressed && (!best || lapic_priority(apic) < lapic_priority(best))) {
            best = apic;
        }
    }
    if (!best) {
        return 0;
    }
    intc->lowest_turn = best->index + 1;
    return lapic_accept(best, message->vector, message->level);
}

int intc_deliver(struct core_intc *intc, const struct intc_message *message) {
    if (message->mode == MODE_LOWEST) {
        return deliver_lowest(intc, message);
    }
    int taken = 0;
    for (uint32_t i = 0; i < intc->cpu_count; i++) {
        if (lapic_matches(intc->cpu[i], message->destination, message->logical)) {
            taken += intc_deliver_to(intc, message, i);
        }
    }
    return taken;
}

int intc_msi(struct core_intc *intc, uint64_t address, uint32_t data) {
    if (address >> 20 != 0xfee) {
        return -EINVAL;
    }
    struct intc_message message = {
        .vector = data & 0xff,
        .mode = data >> 8 & 7,
        .destination = (uint8_t)(address >> 12),
        .logical = address & MSI_LOGICAL,
        .level = data & MSI_LEVEL,
    };
    if ((address & MSI_REDIRECT) && message.mode == MODE_FIXED) {
        message.mode = MODE_LOWEST; /* SDM vol. 3, 11.11.1 */
    }
    pthread_mutex_lock(&intc->lock);
    int taken = intc_deliver(intc, &message);
    pthread_mutex_unlock(&intc->lock);
    return taken;
}

/* ---- wires --------------------------------------------------------------------------------------------------------------- */

void intc_pic_changed(struct core_intc *intc) {
    bool out = i8259_output(&intc->pic[0]);
    bool rises = out && !intc->pic_out;
    intc->pic_out = out;
    for (uint32_t i = 0; rises && i < intc->cpu_count; i++) {
        lapic_update(intc->cpu[i]);
    }
}

/* Line 0 is wired to two pins of the I/O APIC: to 2 as in a PC, and to 0 for boards whose tables have no override. */
void intc_line0(struct core_intc *intc, bool level) {
    i8259_line(&intc->pic[0], 0, level);
    ioapic_line(&intc->ioapic, 0, level);
    ioapic_line(&intc->ioapic, IOAPIC_TIMER_PIN, level);
}

/* ISA lines reach both controllers; line 2 is the 8259 pair's own. */
static void set_line(struct core_intc *intc, uint32_t gsi, bool level) {
    if (gsi == 0) {
        intc_line0(intc, level);
        return;
    }
    if (gsi < 16 && gsi != 2) {
        i8259_line(&intc->pic[gsi / 8], gsi % 8, level);
    }
    ioapic_line(&intc->ioapic, gsi, level);
}

void intc_drive(struct core_intc *intc, enum intc_source source, uint32_t gsi, bool level) {
    bool before = (intc->driven[0] | intc->driven[1]) >> gsi & 1;
    intc->driven[source] = (intc->driven[source] & ~(1u << gsi)) | (uint32_t)level << gsi;
    bool after = (intc->driven[0] | intc->driven[1]) >> gsi & 1;
    if (before != after) {
        set_line(intc, gsi, after);
    }
}

int intc_irq(struct core_intc *intc, uint32_t gsi, bool level) {
    if (gsi >= IOAPIC_PINS) {
        return -EINVAL;
    }
    pthread_mutex_lock(&intc->lock);
    intc_drive(intc, INTC_MACHINE, gsi, level);
    pthread_mutex_unlock(&intc->lock);
    return 0;
}

int intc_acknowledge(struct core_intc *intc, uint32_t cpu) {
    struct lapic *apic = intc->cpu[cpu];
    int vector;
    pthread_mutex_lock(&intc->lock);
    if (intc->pic_out && lapic_takes_pic(apic)) {
        vector = i8259_acknowledge(intc);
        apic->extint = false;
    } else {
        vector = lapic_acknowledge(apic);
    }
    lapic_update(apic);
    pthread_mutex_unlock(&intc->lock);
    return vector;
}

/* ---- time ----------------------------------------------------------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b) {
    if (a == INTC_NEVER || b == INTC_NEVER) {
        return a == INTC_NEVER ? b : a;
    }
    return a < b ? a : b;
}

int64_t intc_poll(struct core_intc *intc, int64_t now_ns) {
    i8254_poll(&intc->pit, now_ns);
    int64_t next = intc->pit.next_ns;
    for (uint32_t i = 0; i < intc->cpu_count; i++) {
        struct lapic *apic = intc->cpu[i];
        lapic_timer_poll(apic, now_ns);
        if (!(apic->lvt[LVT_TIMER] & LAPIC_MASKED)) {
            next = earlier(next, apic->next_ns);
        }
    }
    return next;
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

void intc_open(struct core_intc *intc, struct core_machine *m) {
    pthread_mutex_init(&intc->lock, NULL);
    intc->machine = m;
    ioapic_open(&intc->ioapic, intc);
    i8259_open(&intc->pic[0], intc, false);
    i8259_open(&intc->pic[1], intc, true);
    elcr_open(&intc->elcr, intc);
    i8254_open(&intc->pit, intc);
    port61_open(&intc->port61, intc);
}

void intc_close(struct core_intc *intc) {
    for (uint32_t i = 0; i < intc->cpu_count; i++) {
        free(intc->cpu[i]);
    }
    intc->cpu_count = 0;
    pthread_mutex_destroy(&intc->lock);
}

int intc_add_cpu(struct core_intc *intc, uint32_t apic_id) {
    if (apic_id > 254) {
        return -EINVAL; /* 255 is broadcast */
    }
    if (intc->cpu_count == INTC_MAX_CPUS) {
        return -ENOSPC;
    }
    struct lapic *apic = calloc(1, sizeof *apic);
    if (!apic) {
        return -ENOMEM;
    }
    pthread_mutex_lock(&intc->lock);
    lapic_open(apic, intc, intc->cpu_count, apic_id);
    intc->cpu[intc->cpu_count++] = apic;
    pthread_mutex_unlock(&intc->lock);
    return 0;
}

void intc_reset(struct core_intc *intc) {
    struct core_chip *chips[] = {&intc->ioapic.chip, &intc->pic[0].chip, &intc->pic[1].chip, &intc->pit.chip,
                                 &intc->port61.chip};
    for (size_t i = 0; i < sizeof chips / sizeof *chips; i++) {
        core_chip_reset(chips[i]);
    }
    for (uint32_t i = 0; i < intc->cpu_count; i++) {
        core_chip_reset(&intc->cpu[i]->chip);
    }
}

struct place {
    int space;
    uint64_t base, size;
    struct core_chip *chip;
};

/* Put the chips where every PC has them; local APICs are the accelerator's, as each processor sees its own. */
int intc_map(struct core_intc *intc, bool with_timer) {
    const struct place places[] = {
        {CORE_MMIO, MMIO_IOAPIC, 0x1000, &intc->ioapic.chip},
        {CORE_PIO, PORT_PIC, 2, &intc->pic[0].chip},
        {CORE_PIO, PORT_PIC2, 2, &intc->pic[1].chip},
        {CORE_PIO, PORT_ELCR, 2, &intc->elcr.chip},
        {CORE_PIO, PORT_PIT, 4, &intc->pit.chip},
        {CORE_PIO, PORT_61, 1, &intc->port61.chip},
    };
    size_t count = sizeof places / sizeof *places - (with_timer ? 0 : 2);
    for (size_t i = 0; i < count; i++) {
        int rc = core_map(intc->machine, places[i].space, places[i].base, places[i].size, places[i].chip, 0);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

core_chip *intc_chip(struct core_intc *intc, int kind, uint32_t index) {
    switch (kind) {
    case CORE_LAPIC: return index < intc->cpu_count ? &intc->cpu[index]->chip : NULL;
    case CORE_IOAPIC: return index == 0 ? &intc->ioapic.chip : NULL;
    case CORE_I8259: return index < 2 ? &intc->pic[index].chip : NULL;
    case CORE_I8254: return index == 0 ? &intc->pit.chip : NULL;
    case CORE_PORT61: return index == 0 ? &intc->port61.chip : NULL;
    case CORE_ELCR: return index == 0 ? &intc->elcr.chip : NULL;
    default: return NULL;
    }
}
