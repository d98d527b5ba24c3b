/* lapic_timer.c: the local APIC's timer: one-shot, periodic, TSC deadline (Intel SDM vol. 3, 11.5.4).
 *
 * Nothing counts: the count is computed from the machine's clock when it is read, and the host is asked for one
 * wake-up per expiry, for none while the entry is masked. Ticks that came due while nobody could look are one.
 */
#include "intc.h"

enum { MODE_ONESHOT, MODE_PERIODIC, MODE_DEADLINE };

static uint32_t mode(const struct lapic *apic) {
    return apic->lvt[LVT_TIMER] >> LAPIC_MODE_SHIFT & 3;
}

bool lapic_deadline_mode(const struct lapic *apic) {
    return mode(apic) == MODE_DEADLINE;
}

/* Nanoseconds a tick: the divide configuration register's bits 3, 1, 0 (figure 11-10). */
static int64_t tick_ns(const struct lapic *apic) {
    uint32_t code = (apic->divide & 3) | (apic->divide >> 1 & 4);
    return (int64_t)LAPIC_TICK_NS << (code == 7 ? 0 : code + 1);
}

static int64_t period_ns(const struct lapic *apic) {
    return tick_ns(apic) * apic->initial_count;
}

uint32_t lapic_timer_count(const struct lapic *apic, int64_t now_ns) {
    if (apic->initial_count == 0 || mode(apic) == MODE_DEADLINE) {
        return 0;
    }
    int64_t passed = now_ns - apic->started_ns;
    int64_t period = period_ns(apic);
    if (passed >= period) {
        if (mode(apic) == MODE_ONESHOT) {
            return 0;
        }
        passed %= period;
    }
    return passed < 0 ? apic->initial_count : (uint32_t)((period - passed + tick_ns(apic) - 1) / tick_ns(apic));
}

static void arm(struct lapic *apic) {
    if (apic->next_ns != INTC_NEVER && !(apic->lvt[LVT_TIMER] & LAPIC_MASKED)) {
        intc_arm(apic->intc, apic->next_ns);
    }
}

void lapic_timer_restart(struct lapic *apic, int64_t now_ns) {
    apic->started_ns = now_ns;
    apic->next_ns = apic->initial_count ? now_ns + period_ns(apic) : INTC_NEVER;
    arm(apic);
}

void lapic_set_deadline(struct lapic *apic, uint64_t deadline, int64_t due_ns) {
    if (mode(apic) != MODE_DEADLINE) {
        return; /* the write is ignored (11.5.4.1) */
    }
    apic->tsc_deadline = deadline;
    apic->next_ns = deadline == 0 ? INTC_NEVER : due_ns > 0 ? due_ns : 1;
    arm(apic);
}

void lapic_timer_changed(struct lapic *apic, uint32_t before) {
    bool was_deadline = (before >> LAPIC_MODE_SHIFT & 3) == MODE_DEADLINE;
    if (was_deadline != lapic_deadline_mode(apic)) {
        apic->next_ns = INTC_NEVER;
        apic->tsc_deadline = 0;
        apic->initial_count = 0;
    }
    arm(apic);
}

/* The next tick of a periodic timer after `now_ns`, no sooner than the floor allows. */
static int64_t next_tick(const struct lapic *apic, int64_t now_ns) {
    int64_t period = period_ns(apic);
    if (period < TIMER_FLOOR_NS) {
        return now_ns + TIMER_FLOOR_NS;
    }
    return apic->next_ns + period * ((now_ns - apic->next_ns) / period + 1);
}

void lapic_timer_poll(struct lapic *apic, int64_t now_ns) {
    if (apic->next_ns == INTC_NEVER || now_ns < apic->next_ns) {
        return;
    }
    switch (mode(apic)) {
    case MODE_PERIODIC: apic->next_ns = next_tick(apic, now_ns); break;
    case MODE_DEADLINE: apic->tsc_deadline = 0; /* fall through */
    default: apic->next_ns = INTC_NEVER; break;
    }
    lapic_local(apic, LVT_TIMER);
}
