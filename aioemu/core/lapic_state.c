/* lapic_state.c: save and load of a local APIC. Times are kept as distances from now; a loaded state is not trusted. */
#include <errno.h>
#include <string.h>

#include "intc.h"

enum { STATE_VERSION = 1, RUNNING = 1, EXTINT = 2 };

/* Little endian, no padding. */
struct lapic_state {
    uint32_t version, flags;
    uint64_t base, tsc_deadline;
    int64_t passed_ns; /* since the count began */
    int64_t due_ns;    /* until it expires; only if RUNNING */
    uint32_t id, tpr, ldr, dfr, svr, esr, errors, icr_low, icr_high, initial_count, divide, lvt[LAPIC_LVTS], unused;
    struct vector_set isr, irr, tmr;
};

int lapic_state_size(struct core_chip *chip) {
    (void)chip;
    return (int)sizeof(struct lapic_state);
}

static void save(const struct lapic *apic, struct lapic_state *s, int64_t now) {
    *s = (struct lapic_state){
        .version = STATE_VERSION,
        .flags = (apic->next_ns != INTC_NEVER ? RUNNING : 0) | (apic->extint ? EXTINT : 0),
        .base = apic->base,
        .tsc_deadline = apic->tsc_deadline,
        .passed_ns = now - apic->started_ns,
        .due_ns = apic->next_ns != INTC_NEVER ? apic->next_ns - now : 0,
        .id = apic->id,
        .tpr = apic->tpr,
        .ldr = apic->ldr,
        .dfr = apic->dfr,
        .svr = apic->svr,
        .esr = apic->esr,
        .errors = apic->errors,
        .icr_low = apic->icr_low,
        .icr_high = apic->icr_high,
        .initial_count = apic->initial_count,
        .divide = apic->divide,
        .isr = apic->isr,
        .irr = apic->irr,
        .tmr = apic->tmr,
    };
    memcpy(s->lvt, apic->lvt, sizeof s->lvt);
}

int lapic_save(struct core_chip *chip, uint8_t *state) {
    struct lapic *apic = (struct lapic *)chip;
    struct lapic_state s;
    pthread_mutex_lock(&apic->intc->lock);
    save(apic, &s, intc_now(apic->intc));
    pthread_mutex_unlock(&apic->intc->lock);
    memcpy(state, &s, sizeof s);
    return 0;
}

/* What no sequence of writes could have led to is refused; vectors below 16 are never in the sets. */
static bool is_possible(const struct lapic_state *s) {
    const int64_t longest_ns = 1ll << 40; /* 2^32 counts of 128 ns, rounded up; a deadline further off fires early */
    return s->version == STATE_VERSION && !(s->flags & ~(RUNNING | EXTINT)) && s->id <= 0xff && s->tpr <= 0xff &&
           !(s->ldr & 0xffffff) && (s->dfr & 0x0fffffff) == 0x0fffffff && s->svr <= 0x3ff && s->errors <= 0xff &&
           s->esr <= 0xff && !(s->divide & ~0xbu) && !(s->base & ~0xfffffff900ull) && s->passed_ns >= 0 &&
           s->due_ns > -longest_ns && s->due_ns < longest_ns * 1024 &&
           !((s->isr.word[0] | s->irr.word[0] | s->tmr.word[0]) & 0xffff);
}

static void load(struct lapic *apic, const struct lapic_state *s, int64_t now) {
    apic->base = s->base;
    apic->id = s->id;
    apic->tpr = s->tpr;
    apic->ldr = s->ldr;
    apic->dfr = s->dfr;
    apic->svr = s->svr;
    apic->esr = s->esr;
    apic->errors = s->errors;
    apic->icr_low = s->icr_low;
    apic->icr_high = s->icr_high;
    apic->initial_count = s->initial_count;
    apic->divide = s->divide;
    for (int i = 0; i < LAPIC_LVTS; i++) {
        lapic_load_lvt(apic, (enum lapic_lvt)i, s->lvt[i]);
    }
    apic->isr = s->isr;
    apic->irr = s->irr;
    apic->tmr = s->tmr;
    apic->extint = s->flags & EXTINT;
    apic->tsc_deadline = s->tsc_deadline;
    apic->started_ns = now - s->passed_ns;
    apic->next_ns = INTC_NEVER;
    if (s->flags & RUNNING) {
        int64_t due = now + s->due_ns;
        apic->next_ns = due > 0 ? due : 1;
        intc_arm(apic->intc, apic->next_ns);
    }
    lapic_update(apic);
}

int lapic_load(struct core_chip *chip, const uint8_t *state) {
    struct lapic *apic = (struct lapic *)chip;
    struct lapic_state s;
    memcpy(&s, state, sizeof s);
    if (!is_possible(&s)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&apic->intc->lock);
    load(apic, &s, intc_now(apic->intc));
    pthread_mutex_unlock(&apic->intc->lock);
    return 0;
}
