/* clock.c: the machine's virtual clock. It stands still while the machine is paused; any thread may read it. */
#include <time.h>

#include "core.h"

int64_t core_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

uint64_t core_clock_ns(core_machine *m) {
    if (atomic_load(&m->clock_stopped)) {
        return (uint64_t)atomic_load(&m->clock_stopped_ns);
    }
    return (uint64_t)(core_monotonic_ns() - atomic_load(&m->clock_offset_ns));
}

void core_clock_stop(core_machine *m) {
    if (atomic_load(&m->clock_stopped)) {
        return;
    }
    atomic_store(&m->clock_stopped_ns, (int64_t)core_clock_ns(m));
    atomic_store(&m->clock_stopped, true);
    if (m->accel && m->accel->clock) {
        m->accel->clock(m, false);
    }
}

void core_clock_start(core_machine *m) {
    if (!atomic_load(&m->clock_stopped)) {
        return;
    }
    atomic_store(&m->clock_offset_ns, core_monotonic_ns() - atomic_load(&m->clock_stopped_ns));
    if (m->accel && m->accel->clock) {
        m->accel->clock(m, true);
    }
    atomic_store(&m->clock_stopped, false);
}

/* The clock stands at `now_ns` and moves only by further calls: a client owns it (accel qtest). */
void core_clock_own(core_machine *m, int64_t now_ns) {
    atomic_store(&m->clock_stopped_ns, now_ns);
    atomic_store(&m->clock_stopped, true);
}
