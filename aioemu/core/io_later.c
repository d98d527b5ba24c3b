/* io_later.c: what an io context does later: timers at their time, posted calls when it comes around. */
#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>

#include "io_internal.h"

/* ---- timers ---------------------------------------------------------------------------------------------------------- */

void io_settle_timers(struct core_io *io) {
    int64_t due = io->timers ? (io->timers->due_ns > 0 ? io->timers->due_ns : 1) : 0;
    if (due == io->timer_fd_ns) {
        return;
    }
    struct itimerspec when = {.it_value = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000}};
    (void)timerfd_settime(io->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    io->timer_fd_ns = due;
}

static void unlink_timer(struct core_io *io, struct core_io_timer *t) {
    for (struct core_io_timer **at = &io->timers; *at; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            break;
        }
    }
    t->set = false;
}

void core_io_timer_set(struct core_io *io, struct core_io_timer *t, int64_t due_ns) {
    core_io_enter(io);
    if (t->set) {
        unlink_timer(io, t);
    }
    struct core_io_timer **at = &io->timers;
    while (*at && (*at)->due_ns <= due_ns) {
        at = &(*at)->next;
    }
    t->due_ns = due_ns;
    t->next = *at;
    t->set = true;
    *at = t;
    if (!io->running) {
        io_settle_timers(io);
    }
    core_io_leave(io);
}

void core_io_timer_clear(struct core_io *io, struct core_io_timer *t) {
    core_io_enter(io);
    if (t->set) {
        unlink_timer(io, t);
    }
    core_io_leave(io);
}

bool io_fire_timers(struct core_io *io) {
    if (!io->timers) {
        return false;
    }
    int64_t now = core_monotonic_ns(); /* one that sets itself anew for now waits for the next turn */
    bool fired = false;
    while (io->timers && io->timers->due_ns <= now) {
        struct core_io_timer *t = io->timers;
        unlink_timer(io, t);
        t->fire(t);
        fired = true;
    }
    return fired;
}

/* ---- calls ----------------------------------------------------------------------------------------------------------- */

int core_io_post(struct core_io *io, void (*fn)(void *arg), void *arg) {
    struct io_call *call = malloc(sizeof *call);
    if (!call) {
        return -ENOMEM;
    }
    *call = (struct io_call){.fn = fn, .arg = arg};
    pthread_mutex_lock(&io->post_lock);
    *io->calls_end = call;
    io->calls_end = &call->next;
    bool news = !atomic_exchange(&io->posted, true);
    pthread_mutex_unlock(&io->post_lock);
    if (news && atomic_load(&io->sleeping)) {
        io_wake(io);
    }
    return 0;
}

bool io_run_calls(struct core_io *io) {
    if (!atomic_load_explicit(&io->posted, memory_order_relaxed)) {
        return false;
    }
    pthread_mutex_lock(&io->post_lock);
    struct io_call *call = io->calls;
    io->calls = NULL;
    io->calls_end = &io->calls;
    atomic_store(&io->posted, false);
    pthread_mutex_unlock(&io->post_lock);
    while (call) {
        struct io_call *next = call->next;
        call->fn(call->arg);
        free(call);
        call = next;
    }
    return true;
}

/* A barrier: what was posted before has run, and no callback runs at this moment. */
void core_io_sync(core_io *io) {
    core_io_enter(io);
    io_run_calls(io);
    core_io_leave(io);
}

void io_drop_calls(struct core_io *io) {
    while (io->calls) {
        struct io_call *call = io->calls;
        io->calls = call->next;
        free(call);
    }
}
