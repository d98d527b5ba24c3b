/* passage.c: the side of a passage that waits. */
#include "passage.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The counter may be freed already: then this wakes nobody, or somebody who looks again. */
void passage_wake(_Atomic uint32_t *inside) {
    syscall(SYS_futex, (uint32_t *)inside, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void drain(_Atomic uint32_t *inside) {
    uint32_t count = atomic_load(inside);
    while (count & ~PASSAGE_AWAITED) {
        if (count & PASSAGE_AWAITED) {
            syscall(SYS_futex, (uint32_t *)inside, FUTEX_WAIT_PRIVATE, count, NULL, NULL, 0);
            count = atomic_load(inside);
        } else if (atomic_compare_exchange_weak(inside, &count, count | PASSAGE_AWAITED)) {
            count |= PASSAGE_AWAITED;
        }
    }
    atomic_fetch_and(inside, ~PASSAGE_AWAITED);
}

void passage_wait(struct core_passage *passage) {
    uint32_t now = atomic_load(&passage->now);
    drain(&passage->inside[1 - now]); /* who looked at (now) before it changed last, and was late to enter */
    atomic_store(&passage->now, 1 - now);
    drain(&passage->inside[now]);
}
