/* tcg_turn.c: the vCPUs of a machine take turns on one thread; it sleeps when none can run.
 *
 * A vCPU runs until it halts, spins (PAUSE) while another could run, its slice ends, or the thread must look up. Every
 * stop is between two instructions, so a turn can change hands anywhere.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tcg.h"

/* ---- waking: any thread --------------------------------------------------------------------------------------------- */

void tcg_look_again(struct tcg *tcg) {
    atomic_fetch_add(&tcg->wake, 1);
    syscall(SYS_futex, (uint32_t *)&tcg->wake, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* The thread's machine wants it to look up: machine.c has set `attention` before. */
void tcg_kick(struct core_thread *t) {
    struct tcg *tcg = tcg_of(t->machine);
    pthread_mutex_lock(&tcg->intc.lock);
    if (tcg->current) {
        tcg->api.vcpu_kick(tcg->current->cpu);
    }
    pthread_mutex_unlock(&tcg->intc.lock);
    tcg_look_again(tcg);
}

static bool can_run(const struct tcg_vcpu *c) {
    return !c->waits_for_sipi && !c->shut_down && c->tcg->api.vcpu_has_work(c->cpu);
}

/* How long he who runs may go on: short while somebody spins, who most likely waits for something he does. */
static int64_t slice_ns(const struct tcg *tcg) {
    int64_t shortest = tcg->api.is_stock ? TCG_STOCK_SLICE_NS : TCG_SLICE_NS;
    for (uint32_t i = 0; i < tcg->cpu_count; i++) {
        const struct tcg_vcpu *c = tcg->cpu[i];
        if (c == tcg->current || !c->spins || !can_run(c)) {
            continue;
        }
        int64_t patience = (int64_t)TCG_SPIN_SLICE_NS << (c->spins < 8 ? c->spins - 1 : 7);
        shortest = patience < shortest ? patience : shortest;
    }
    return shortest;
}

/* Somebody else than the one who runs can run now: end his slice in time. intc.lock held. */
static void begin_slice(struct tcg *tcg) {
    if (!tcg->slice_end_ns) {
        tcg->slice_end_ns = intc_now(&tcg->intc) + slice_ns(tcg);
        tcg_arm(tcg, tcg->slice_end_ns);
    }
}

/* A processor's interrupt controller has something for it. intc.lock held. */
void tcg_signal(void *opaque, uint32_t cpu, enum intc_signal what, uint8_t vector) {
    struct tcg *tcg = opaque;
    if (cpu >= tcg->cpu_count) {
        return;
    }
    struct tcg_vcpu *c = tcg->cpu[cpu];
    switch (what) {
    case INTC_INTERRUPT: tcg->api.vcpu_request_interrupt(c->cpu); break;
    case INTC_NMI: tcg->api.vcpu_request_nmi(c->cpu); break;
    case INTC_INIT: c->events = TCG_INIT; break;
    case INTC_SIPI: c->events = (c->events & TCG_INIT) | TCG_SIPI | (uint32_t)vector << 8; break;
    }
    if (c->events) {
        tcg->special = true;
        if (tcg->current) {
            tcg->api.vcpu_kick(tcg->current->cpu);
        }
    }
    if (tcg->asleep) {
        tcg_look_again(tcg);
    } else if (tcg->current && tcg->current != c) {
        begin_slice(tcg);
    }
}

/* ---- turns: the vCPU thread ------------------------------------------------------------------------------------------- */

/* INIT and start-up IPIs (SDM vol. 3, 9.4): the engine is stopped. intc.lock held. */
static void take_events(struct tcg *tcg) {
    tcg->special = false;
    for (uint32_t i = 0; i < tcg->cpu_count; i++) {
        struct tcg_vcpu *c = tcg->cpu[i];
        uint32_t events = c->events;
        c->events = 0;
        if (events & TCG_INIT) {
            tcg->api.x86_reset(c->cpu, 1);
            c->waits_for_sipi = !(tcg->intc.cpu[i]->base >> 8 & 1);
            c->shut_down = false;
            lapic_update(tcg->intc.cpu[i]);
        }
        if ((events & TCG_SIPI) && c->waits_for_sipi) {
            tcg->api.x86_sipi(c->cpu, (uint8_t)(events >> 8));
            c->waits_for_sipi = false;
        }
    }
}

/* Who runs next: the one after him who ran last. *others: more could. intc.lock held. */
static struct tcg_vcpu *choose(struct tcg *tcg, bool *others) {
    struct tcg_vcpu *chosen = NULL;
    *others = false;
    for (uint32_t i = 1; i <= tcg->cpu_count; i++) {
        struct tcg_vcpu *c = tcg->cpu[(tcg->turn + i) % tcg->cpu_count];
        if (can_run(c)) {
            *others = chosen != NULL;
            if (*others) {
                break;
            }
            chosen = c;
        }
    }
    return chosen;
}

/* Wait until there is a reason to look again or the next timer is due. intc.lock held; released meanwhile. */
static void sleep_until(struct tcg *tcg, struct core_thread *t, int64_t next_ns) {
    uint32_t seen = atomic_load(&tcg->wake);
    bool timed = next_ns != INTC_NEVER && tcg->clock_runs;
    int64_t due = core_monotonic_ns() + next_ns - intc_now(&tcg->intc);
    struct timespec until = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
    tcg->asleep = true;
    tcg_disarm(tcg);
    pthread_mutex_unlock(&tcg->intc.lock);
    if (!atomic_load(&t->attention) && (!timed || due > 0)) {
        syscall(SYS_futex, (uint32_t *)&tcg->wake, FUTEX_WAIT_BITSET_PRIVATE, seen, timed ? &until : NULL, NULL,
                FUTEX_BITSET_MATCH_ANY);
    }
    pthread_mutex_lock(&tcg->intc.lock);
    tcg->asleep = false;
}

/* Get the next vCPU into its turn, or sleep; NULL when the thread must look up. */
static struct tcg_vcpu *begin_turn(struct tcg *tcg, struct core_thread *t) {
    struct tcg_vcpu *c = NULL;
    pthread_mutex_lock(&tcg->intc.lock);
    while (!atomic_load(&t->attention)) {
        int64_t now = intc_now(&tcg->intc);
        int64_t next = intc_poll(&tcg->intc, now);
        if (tcg->special) {
            take_events(tcg);
        }
        bool others;
        c = choose(tcg, &others);
        if (c) {
            tcg->current = c;
            tcg->turn = c->vcpu->index;
            tcg->turn_began_ns = now;
            tcg->slice_end_ns = 0;
            if (next != INTC_NEVER) {
                tcg_arm(tcg, next);
            }
            if (others) {
                begin_slice(tcg);
            }
            break;
        }
        sleep_until(tcg, t, next);
    }
    pthread_mutex_unlock(&tcg->intc.lock);
    return c;
}

static void end_turn(struct tcg *tcg, uint32_t reason) {
    struct tcg_vcpu *c = tcg->current;
    pthread_mutex_lock(&tcg->intc.lock);
    bool spun = reason == AIOEMU_EXIT_YIELD && intc_now(&tcg->intc) - tcg->turn_began_ns < TCG_SPIN_NS;
    c->spins = spun ? c->spins + 1 : 0;
    tcg->current = NULL;
    tcg->slice_end_ns = 0;
    pthread_mutex_unlock(&tcg->intc.lock);
}

static int stop_with(core_event *stop, const struct tcg_vcpu *c, uint64_t reason, uint64_t offset, uint64_t aux) {
    stop->vcpu = c->vcpu->index;
    stop->value = reason;
    stop->offset = offset;
    stop->aux = aux;
    return 1;
}

static void count(struct tcg_vcpu *c, enum core_exit kind) {
    atomic_fetch_add_explicit(&c->vcpu->exits[kind], 1, memory_order_relaxed);
}

static int leave(struct tcg_vcpu *c, const struct aioemu_exit *exit, core_event *stop) {
    switch (exit->reason) {
    case AIOEMU_EXIT_KICK: count(c, CORE_EXIT_INTR); return 0;
    case AIOEMU_EXIT_HALT: count(c, CORE_EXIT_HLT); return 0;
    case AIOEMU_EXIT_YIELD: count(c, CORE_EXIT_OTHER); return 0;
    case AIOEMU_EXIT_SHUTDOWN:
        count(c, CORE_EXIT_SYSTEM);
        c->shut_down = true;
        return stop_with(stop, c, CORE_STOP_SHUTDOWN, 0, 0);
    case AIOEMU_EXIT_DEBUG: return stop_with(stop, c, CORE_STOP_DEBUG, 1, exit->address);
    default: return stop_with(stop, c, CORE_STOP_INTERNAL_ERROR, 0, exit->address);
    }
}

int tcg_run(struct core_vcpu *v, core_event *stop) {
    struct tcg *tcg = tcg_of(v->machine);
    prctl(PR_SET_TIMERSLACK, 1); /* HLT sleeps to the guest's own deadlines: not 50 us longer */
    int stopped = 0;
    while (!stopped) {
        struct tcg_vcpu *c = begin_turn(tcg, v->thread);
        if (!c) {
            return 0;
        }
        if (!atomic_load_explicit(&c->vcpu->first_entry_ns, memory_order_relaxed)) {
            atomic_store(&c->vcpu->first_entry_ns, (uint64_t)core_monotonic_ns());
        }
        struct aioemu_exit exit = {0};
        atomic_store(&tcg->in_engine, true);
        int rc = tcg->api.vcpu_run(c->cpu, &exit);
        atomic_store(&tcg->in_engine, false);
        end_turn(tcg, exit.reason);
        if (rc < 0) {
            return stop_with(stop, c, CORE_STOP_HOST_ERROR, (uint64_t)-rc, 0);
        }
        if (tcg->any_override) {
            tcg_apply_overrides(tcg);
        } else {
            stopped = leave(c, &exit, stop);
        }
    }
    return stopped;
}
