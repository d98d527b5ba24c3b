/* lapic.c: the local APIC of one processor (Intel SDM vol. 3, chapter 11: xAPIC).
 *
 * Registers, acceptance and priorities; lapic_ipi.c sends, lapic_timer.c counts. Not modelled: x2APIC, SMIs, remote
 * reads, thermal and counter interrupts (their entries are kept). The guest is not trusted.
 */
#include <errno.h>
#include <string.h>

#include "intc.h"

enum {
    REG_ID = 0x20,
    REG_VERSION = 0x30,
    REG_TPR = 0x80,
    REG_APR = 0x90,
    REG_PPR = 0xa0,
    REG_EOI = 0xb0,
    REG_RRD = 0xc0,
    REG_LDR = 0xd0,
    REG_DFR = 0xe0,
    REG_SVR = 0xf0,
    REG_ISR = 0x100,
    REG_TMR = 0x180,
    REG_IRR = 0x200,
    REG_ESR = 0x280,
    REG_ICR_LOW = 0x300,
    REG_ICR_HIGH = 0x310,
    REG_LVT = 0x320,
    REG_LVT_LAST = 0x370,
    REG_INITIAL_COUNT = 0x380,
    REG_CURRENT_COUNT = 0x390,
    REG_DIVIDE = 0x3e0,

    VERSION = 0x14 | (LAPIC_LVTS - 1) << 16,
    SVR_ENABLE = 1u << 8,
    SVR_WRITABLE = 0x3ff,
    LVT_REMOTE_IRR = 1u << 14,
    ICR_WRITABLE = 0x000ccfff, /* delivery status (bit 12) reads idle: a message takes no time */

    BASE_BSP = 1u << 8,
    BASE_ENABLE = 1u << 11,
};

static const uint64_t BASE_ADDRESS = 0x000000fffffff000; /* 40 bits of physical address */

/* Timer: vector, mask, mode; LINT: vector, mode, polarity, trigger, mask; error: vector, mask (figure 11-8). */
static const uint32_t lvt_writable[LAPIC_LVTS] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

/* ---- sets of vectors ---------------------------------------------------------------------------------------------- */

static void set_add(struct vector_set *set, uint8_t vector) {
    set->word[vector / 32] |= 1u << (vector % 32);
}

static void set_remove(struct vector_set *set, uint8_t vector) {
    set->word[vector / 32] &= ~(1u << (vector % 32));
}

static bool set_has(const struct vector_set *set, uint8_t vector) {
    return set->word[vector / 32] >> (vector % 32) & 1;
}

static int set_highest(const struct vector_set *set) {
    for (int i = 7; i >= 0; i--) {
        if (set->word[i]) {
            return i * 32 + 31 - __builtin_clz(set->word[i]);
        }
    }
    return -1;
}

/* ---- acceptance and priority (11.8) --------------------------------------------------------------------------------- */

bool lapic_is_on(const struct lapic *apic) {
    return apic->base & BASE_ENABLE;
}

bool lapic_is_enabled(const struct lapic *apic) {
    return lapic_is_on(apic) && (apic->svr & SVR_ENABLE);
}

uint32_t lapic_priority(const struct lapic *apic) {
    int in_service = set_highest(&apic->isr);
    uint32_t isr_class = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;
    return (apic->tpr & 0xf0) >= isr_class ? apic->tpr : isr_class;
}

/* The vector that the processor may take now, or -1. */
static int deliverable(const struct lapic *apic) {
    int vector = set_highest(&apic->irr);
    return vector >= 0 && ((uint32_t)vector & 0xf0) > (lapic_priority(apic) & 0xf0) ? vector : -1;
}

bool lapic_takes_pic(const struct lapic *apic) {
    if (!lapic_is_on(apic)) {
        return apic->base & BASE_BSP; /* LINT0 is INTR then (11.4.3) */
    }
    uint32_t lint0 = apic->lvt[LVT_LINT0];
    return apic->extint || (!(lint0 & LAPIC_MASKED) && (lint0 >> 8 & 7) == MODE_EXTINT);
}

bool lapic_pending(const struct lapic *apic) {
    return (apic->intc->pic_out && lapic_takes_pic(apic)) || (lapic_is_on(apic) && deliverable(apic) >= 0);
}

void lapic_update(struct lapic *apic) {
    if (lapic_pending(apic)) {
        apic->intc->signal(apic->intc->opaque, apic->index, INTC_INTERRUPT, 0);
    }
}

void lapic_error(struct lapic *apic, uint32_t bits) {
    uint32_t lvt = apic->lvt[LVT_ERROR];
    apic->errors |= bits;
    /* An error vector below 16 would be an error itself, for ever. */
    if (!(lvt & LAPIC_MASKED) && (lvt & 0xff) >= LAPIC_FIRST_VECTOR) {
        lapic_accept(apic, lvt & 0xff, false);
    }
}

bool lapic_accept(struct lapic *apic, uint8_t vector, bool level) {
    if (!lapic_is_enabled(apic)) {
        return false;
    }
    if (vector < LAPIC_FIRST_VECTOR) {
        lapic_error(apic, LAPIC_ERROR_RECEIVED_VECTOR);
        return true;
    }
    set_add(&apic->irr, vector);
    if (level) {
        set_add(&apic->tmr, vector);
    } else {
        set_remove(&apic->tmr, vector);
    }
    lapic_update(apic);
    return true;
}

int lapic_acknowledge(struct lapic *apic) {
    int vector = lapic_is_on(apic) ? deliverable(apic) : -1;
    if (vector < 0) {
        return -1;
    }
    set_remove(&apic->irr, (uint8_t)vector);
    set_add(&apic->isr, (uint8_t)vector);
    return vector;
}

static void end_of_interrupt(struct lapic *apic) {
    int vector = set_highest(&apic->isr);
    if (vector < 0) {
        return;
    }
    set_remove(&apic->isr, (uint8_t)vector);
    if (set_has(&apic->tmr, (uint8_t)vector)) {
        ioapic_eoi(&apic->intc->ioapic, (uint8_t)vector);
    }
    lapic_update(apic);
}

void lapic_set_tpr(struct lapic *apic, uint8_t tpr) {
    apic->tpr = tpr;
    lapic_update(apic);
}

/* A local source fires: what its vector table entry says happens. */
void lapic_local(struct lapic *apic, enum lapic_lvt lvt) {
    uint32_t entry = apic->lvt[lvt];
    if (entry & LAPIC_MASKED) {
        return;
    }
    switch (lvt == LVT_TIMER || lvt == LVT_ERROR ? MODE_FIXED : entry >> 8 & 7) {
    case MODE_FIXED: lapic_accept(apic, entry & 0xff, false); break;
    case MODE_NMI: apic->intc->signal(apic->intc->opaque, apic->index, INTC_NMI, 0); break;
    default: break;
    }
}

/* ---- registers (table 11-1) ------------------------------------------------------------------------------------------- */

static uint32_t read_sets(const struct lapic *apic, uint32_t offset) {
    uint32_t index = offset >> 4 & 7;
    if (offset < REG_TMR) {
        return apic->isr.word[index];
    }
    return offset < REG_IRR ? apic->tmr.word[index] : apic->irr.word[index];
}

uint32_t lapic_read(struct lapic *apic, uint32_t offset) {
    if (offset >= REG_ISR && offset < REG_ESR) {
        return read_sets(apic, offset);
    }
    if (offset >= REG_LVT && offset <= REG_LVT_LAST) {
        return apic->lvt[(offset - REG_LVT) >> 4];
    }
    switch (offset) {
    case REG_ID: return apic->id << 24;
    case REG_VERSION: return VERSION;
    case REG_TPR: return apic->tpr;
    case REG_APR:
    case REG_RRD:
    case REG_EOI: return 0;
    case REG_PPR: return lapic_priority(apic);
    case REG_LDR: return apic->ldr;
    case REG_DFR: return apic->dfr;
    case REG_SVR: return apic->svr;
    case REG_ESR: return apic->esr;
    case REG_ICR_LOW: return apic->icr_low;
    case REG_ICR_HIGH: return apic->icr_high;
    case REG_INITIAL_COUNT: return apic->initial_count;
    case REG_CURRENT_COUNT: return lapic_timer_count(apic, intc_now(apic->intc));
    case REG_DIVIDE: return apic->divide;
    default: lapic_error(apic, LAPIC_ERROR_REGISTER); return 0;
    }
}

static void write_svr(struct lapic *apic, uint32_t value) {
    apic->svr = value & SVR_WRITABLE;
    if (!(value & SVR_ENABLE)) {
        for (int i = 0; i < LAPIC_LVTS; i++) {
            apic->lvt[i] |= LAPIC_MASKED; /* 11.4.7.2 */
        }
    }
}

static void write_lvt(struct lapic *apic, enum lapic_lvt lvt, uint32_t value) {
    uint32_t masked = apic->svr & SVR_ENABLE ? 0 : LAPIC_MASKED;
    uint32_t before = apic->lvt[lvt];
    if (lvt == LVT_TIMER) {
        lapic_timer_poll(apic, intc_now(apic->intc)); /* what expired under the old entry */
    }
    apic->lvt[lvt] = (value & lvt_writable[lvt]) | (before & LVT_REMOTE_IRR) | masked;
    if (lvt == LVT_LINT0) {
        lapic_update(apic);
    }
    if (lvt == LVT_TIMER) {
        lapic_timer_changed(apic, before);
    }
}

void lapic_load_lvt(struct lapic *apic, enum lapic_lvt lvt, uint32_t value) {
    apic->lvt[lvt] = (value & (lvt_writable[lvt] | LVT_REMOTE_IRR)) | (apic->svr & SVR_ENABLE ? 0 : LAPIC_MASKED);
}

void lapic_write(struct lapic *apic, uint32_t offset, uint32_t value) {
    if (offset >= REG_LVT && offset <= REG_LVT_LAST) {
        write_lvt(apic, (offset - REG_LVT) >> 4, value);
        return;
    }
    switch (offset) {
    case REG_ID: apic->id = value >> 24; break;
    case REG_TPR: lapic_set_tpr(apic, (uint8_t)value); break;
    case REG_EOI: end_of_interrupt(apic); break;
    case REG_LDR: apic->ldr = value & 0xff000000; break;
    case REG_DFR: apic->dfr = value | 0x0fffffff; break;
    case REG_SVR: write_svr(apic, value); break;
    case REG_ESR:
        apic->esr = apic->errors;
        apic->errors = 0;
        break;
    case REG_ICR_LOW:
        apic->icr_low = value & ICR_WRITABLE;
        lapic_send(apic);
        break;
    case REG_ICR_HIGH: apic->icr_high = value & 0xff000000; break;
    case REG_INITIAL_COUNT:
        if (!lapic_deadline_mode(apic)) {
            apic->initial_count = value;
            lapic_timer_restart(apic, intc_now(apic->intc));
        }
        break;
    case REG_DIVIDE:
        lapic_timer_poll(apic, intc_now(apic->intc));
        apic->divide = value & 0xb;
        if (apic->next_ns != INTC_NEVER && !lapic_deadline_mode(apic)) {
            lapic_timer_restart(apic, intc_now(apic->intc));
        }
        break;
    default: lapic_error(apic, LAPIC_ERROR_REGISTER); break;
    }
}

/* ---- reset and IA32_APIC_BASE (11.4) ------------------------------------------------------------------------------------ */

void lapic_reset(struct lapic *apic, bool power_on) {
    if (power_on) {
        apic->base = 0xfee00000 | BASE_ENABLE | (apic->index == 0 ? BASE_BSP : 0);
    }
    apic->tpr = apic->ldr = apic->esr = apic->errors = apic->icr_low = apic->icr_high = 0;
    apic->initial_count = apic->divide = 0;
    apic->dfr = UINT32_MAX;
    apic->svr = 0xff;
    for (int i = 0; i < LAPIC_LVTS; i++) {
        apic->lvt[i] = LAPIC_MASKED;
    }
    if (apic->base & BASE_BSP) {
        /* Virtual wire mode as firmware leaves it (MP specification 3.6.2.2): a kernel may be entered without one. */
        apic->lvt[LVT_LINT0] = MODE_EXTINT << 8;
    }
    memset(&apic->isr, 0, sizeof apic->isr);
    memset(&apic->irr, 0, sizeof apic->irr);
    memset(&apic->tmr, 0, sizeof apic->tmr);
    apic->extint = false;
    apic->next_ns = INTC_NEVER;
    apic->started_ns = 0;
    apic->tsc_deadline = 0;
}

int lapic_set_base(struct lapic *apic, uint64_t base) {
    if (base & ~(BASE_ADDRESS | BASE_BSP | BASE_ENABLE)) {
        return -EINVAL;
    }
    bool switched_off = lapic_is_on(apic) && !(base & BASE_ENABLE);
    apic->base = base;
    if (switched_off) {
        lapic_reset(apic, false);
    }
    lapic_update(apic);
    return 0;
}

/* ---- the chip ---------------------------------------------------------------------------------------------------------- */

/* Registers are 32 bits at multiples of 16; other writes are lost, other reads see the bytes (11.4.1.2: undefined). */
static int access_page(struct core_chip *chip, struct core_part *part) {
    struct lapic *apic = (struct lapic *)chip;
    uint32_t offset = (uint32_t)part->offset & 0xfff, within = offset & 15;
    if (part->size > 4) {
        part->size = 4;
    }
    pthread_mutex_lock(&apic->intc->lock);
    if (part->is_write) {
        if (within == 0 && part->size == 4) {
            lapic_write(apic, offset, (uint32_t)part->value);
        }
    } else {
        part->value = within < 4 ? lapic_read(apic, offset - within) >> (8 * within) : 0;
    }
    pthread_mutex_unlock(&apic->intc->lock);
    return CORE_DONE;
}

static void reset_chip(struct core_chip *chip) {
    struct lapic *apic = (struct lapic *)chip;
    pthread_mutex_lock(&apic->intc->lock);
    lapic_reset(apic, true);
    pthread_mutex_unlock(&apic->intc->lock);
}

static void destroy(struct core_chip *chip) {
    (void)chip; /* freed with its controllers */
}

static const struct core_chip_ops ops = {
    .name = "lapic",
    .access = access_page,
    .reset = reset_chip,
    .destroy = destroy,
    .state_size = lapic_state_size,
    .save = lapic_save,
    .load = lapic_load,
};

void lapic_open(struct lapic *apic, struct core_intc *intc, uint32_t index, uint32_t id) {
    core_chip_init(&apic->chip, &ops);
    apic->chip.machine = intc->machine;
    apic->intc = intc;
    apic->index = index;
    apic->id = id;
    lapic_reset(apic, true);
}
