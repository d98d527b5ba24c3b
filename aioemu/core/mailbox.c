/* mailbox.c: how a vCPU thread hands an access to the reactor and waits for the answer. No Python, no allocation. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "threads.h"

enum {
    SPIN_NS = 12 * 1000, /* a device in Python answers in 6-10 us; sleeping and waking costs 5 us more */
    SPIN_TURNS = 16,     /* pauses between two looks at the clock */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static bool torn_down(const struct core_thread *t) {
    return atomic_load(&t->machine->target) == CORE_QUIT;
}

/* Spin a little: true when the answer came meanwhile. */
static bool spin_for_answer(struct core_slot *slot) {
    int64_t end = core_monotonic_ns() + SPIN_NS;
    do {
        for (int i = 0; i < SPIN_TURNS; i++) {
            if (atomic_load_explicit(&slot->state, memory_order_acquire) == CORE_SLOT_ANSWERED) {
                return true;
            }
            __builtin_ia32_pause();
        }
    } while (core_monotonic_ns() < end);
    return false;
}

static void sleep_for_answer(struct core_thread *t) {
    struct core_slot *slot = &t->slot;
    core_gate_leave(t->machine);
    atomic_store(&slot->asleep, true);
    for (;;) {
        uint32_t state = atomic_load(&slot->state);
        if (state == CORE_SLOT_ANSWERED || torn_down(t)) {
            break;
        }
        futex_wait(&slot->state, state);
    }
    atomic_store(&slot->asleep, false);
    core_gate_enter(t->machine);
}

uint64_t core_ask(struct core_vcpu *v, const core_event *event) {
    struct core_thread *t = v->thread;
    struct core_slot *slot = &t->slot;
    slot->event = *event;
    slot->event.thread = t->index;
    slot->event.vcpu = v->index;
    slot->event.seq = ++slot->seq;
    atomic_fetch_add_explicit(&v->exits[CORE_EXIT_HANDED_OVER], 1, memory_order_relaxed);
    atomic_store_explicit(&slot->state, CORE_SLOT_ASKED, memory_order_release);
    core_ring(t->machine);
    if (!spin_for_answer(slot)) {
        sleep_for_answer(t);
    }
    uint64_t answer = UINT64_MAX;
    if (atomic_load_explicit(&slot->state, memory_order_acquire) == CORE_SLOT_ANSWERED) {
        answer = slot->answer;
    }
    atomic_store_explicit(&slot->state, CORE_SLOT_IDLE, memory_order_release);
    return answer;
}

void core_post(struct core_vcpu *v, const core_event *event) {
    struct core_thread *t = v->thread;
    uint32_t head = atomic_load_explicit(&t->posted_head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&t->posted_tail, memory_order_acquire);
    if (head - tail == CORE_POSTED_RING) {
        core_gate_leave(t->machine);
        while (head - tail == CORE_POSTED_RING && !torn_down(t)) {
            core_ring(t->machine);
            futex_wait(&t->posted_tail, tail);
            tail = atomic_load_explicit(&t->posted_tail, memory_order_acquire);
        }
        core_gate_enter(t->machine);
        if (torn_down(t)) {
            return;
        }
    }
    core_event *place = &t->posted[head % CORE_POSTED_RING];
    *place = *event;
    place->kind = CORE_EVENT_POSTED;
    place->thread = t->index;
    place->vcpu = v->index;
    atomic_fetch_add_explicit(&v->exits[CORE_EXIT_HANDED_OVER], 1, memory_order_relaxed);
    atomic_store_explicit(&t->posted_head, head + 1, memory_order_release);
    core_ring(t->machine);
}

int core_answer(core_machine *m, uint32_t thread, uint64_t seq, uint64_t value) {
    if (thread >= m->thread_count) {
        return -EINVAL;
    }
    struct core_slot *slot = &m->threads[thread]->slot;
    if (atomic_load_explicit(&slot->state, memory_order_acquire) != CORE_SLOT_TAKEN || slot->event.seq != seq) {
        return -ESTALE;
    }
    slot->answer = value;
    atomic_store(&slot->state, CORE_SLOT_ANSWERED);
    if (atomic_load(&slot->asleep)) {
        futex_wake(&slot->state);
    }
    return 0;
}

void core_mailbox_cancel(struct core_thread *t) {
    futex_wake(&t->slot.state);
    futex_wake(&t->posted_tail);
}

/* ---- the reactor's side ------------------------------------------------------------------------------------------- */

static int take_posted(struct core_thread *t, core_event *events, int max) {
    uint32_t tail = atomic_load_explicit(&t->posted_tail, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&t->posted_head, memory_order_acquire);
    bool was_full = head - tail == CORE_POSTED_RING;
    int n = 0;
    while (n < max && tail != head) {
        events[n++] = t->posted[tail++ % CORE_POSTED_RING];
    }
    atomic_store_explicit(&t->posted_tail, tail, memory_order_release);
    if (was_full && n) {
        futex_wake(&t->posted_tail);
    }
    return n;
}

/* What one thread has to say: its posted writes first, then the access it waits for, then why it stopped. */
static int take_thread(struct core_thread *t, core_event *events, int max) {
    int n = take_posted(t, events, max);
    if (n < max && atomic_load_explicit(&t->slot.state, memory_order_acquire) == CORE_SLOT_ASKED &&
        atomic_load(&t->posted_head) == atomic_load(&t->posted_tail)) {
        atomic_store_explicit(&t->slot.state, CORE_SLOT_TAKEN, memory_order_release);
        events[n++] = t->slot.event;
    }
    if (n < max && atomic_exchange(&t->stop_news, false)) {
        events[n++] = t->stop;
    }
    return n;
}

static int take_notifications(core_machine *m, core_event *events, int max) {
    int n = 0;
    for (uint32_t word = 0; word * 64 < m->notify_count && n < max; word++) {
        uint64_t held = atomic_load(&m->notify_held[word]);
        uint64_t bits = atomic_fetch_and(&m->notify_bits[word], held) & ~held;
        while (bits && n < max) {
            int bit = __builtin_ctzll(bits);
            bits &= bits - 1;
            events[n++] = (core_event){.kind = CORE_EVENT_NOTIFY, .tag = m->notify_tags[word * 64 + (uint32_t)bit]};
        }
        if (bits) {
            atomic_fetch_or(&m->notify_bits[word], bits);
        }
    }
    return n;
}

static int take_all(core_machine *m, core_event *events, int max) {
    atomic_store(&m->rung, false);
    int n = 0;
    for (uint32_t i = 0; i < m->thread_count && n < max; i++) {
        n += take_thread(m->threads[i], events + n, max - n);
    }
    n += take_notifications(m, events + n, max - n);
    if (n < max && atomic_exchange(&m->paused_news, false)) {
        events[n++] = (core_event){.kind = CORE_EVENT_PAUSED};
    }
    if (n == max) {
        core_ring(m);
    }
    return n;
}

/* Fill `events` with what has come since the last call; when it is full, the event fd stays readable. */
int core_machine_collect(core_machine *m, core_event *events, int max) {
    uint64_t count;
    (void)!read(m->event_fd, &count, sizeof count);
    return take_all(m, events, max);
}

/* Whoever rings while the reactor polls does not write to the event fd, so what rang last is taken before this ends. */
int core_machine_poll(core_machine *m, core_event *events, int max, uint32_t wait_ns) {
    int64_t end = core_monotonic_ns() + wait_ns;
    atomic_store(&m->polling, true);
    while (!atomic_load(&m->rung) && core_monotonic_ns() < end) {
        for (int i = 0; i < SPIN_TURNS; i++) {
            __builtin_ia32_pause();
        }
    }
    atomic_store(&m->polling, false);
    return atomic_load(&m->rung) ? take_all(m, events, max) : 0;
}
