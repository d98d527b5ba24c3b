/* passage.h: calls on their way through a place that may change, and waiting until those are out that saw it as it was.
 *
 * Who goes through enters, then looks at what may change, and leaves. Who changes it (one thread at a time) does so, then
 * calls passage_wait: when it returns, everybody who is inside has seen the change. It waits for those who were inside,
 * never for those who come meanwhile, however many there are: two counters, of which only one is entered at a time. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define PASSAGE_AWAITED (1u << 31) /* of a counter: who brings it to nothing wakes the one that waits */

struct core_passage {
    _Atomic uint32_t inside[2];
    _Atomic uint32_t now; /* which of the two is entered */
};

void passage_wake(_Atomic uint32_t *inside);
/* Not by a thread that is inside itself. */
void passage_wait(struct core_passage *passage);

/* What to leave through. */
static inline _Atomic uint32_t *passage_enter(struct core_passage *passage) {
    _Atomic uint32_t *inside = &passage->inside[atomic_load(&passage->now)];
    atomic_fetch_add(inside, 1);
    return inside;
}

/* The passage may be gone from here on: who waited frees it. */
static inline void passage_leave(_Atomic uint32_t *inside) {
    if (atomic_fetch_sub(inside, 1) == (PASSAGE_AWAITED | 1)) {
        passage_wake(inside);
    }
}
