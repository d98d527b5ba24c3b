/* iothread.c: a thread that drives an io context and never touches Python: it looks for work for a while that adapts to
 * how soon work comes, then sleeps. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io_internal.h"

enum { IO_STACK = 256 * 1024 };

static void *run(void *argument) {
    struct core_io *io = argument;
    atomic_store(&io->tid, gettid());
    core_io_enter(io);
    io->running = true;
    while (!atomic_load(&io->quit)) {
        io_linger(io, INT64_MAX);
        if (io_arm(io)) {
            io_turn(io, true);
            continue;
        }
        io_wait(io);
        if (io->pollers) {
            io_learn(io, core_monotonic_ns() - io->quiet_ns);
        }
        io_turn(io, false);
    }
    io->running = false;
    core_io_leave(io);
    return NULL;
}

/* How long to look before sleeping, and how that grows and shrinks (0 and 0: not at all; one of them 0: doubles, ends at
 * once); and after how many requests those who gather them hand them to the kernel (0: they decide). */
int core_io_set_poll(core_io *io, int64_t max_ns, uint32_t grow, uint32_t shrink, uint32_t max_batch) {
    if (max_ns < 0) {
        return -EINVAL;
    }
    core_io_enter(io);
    io->poll = (struct io_poll){
        .max_ns = max_ns, .now_ns = grow == 0 && shrink == 0 ? max_ns : 0, .grow = grow, .shrink = shrink};
    io->max_batch = max_batch;
    core_io_leave(io);
    return 0;
}

uint32_t core_io_max_batch(const struct core_io *io) {
    return io->max_batch;
}

/* Let a thread called (name) drive the context from now on. Not for one that the reactor drives. */
int core_io_thread_start(core_io *io, const char *name) {
    if (io->has_thread) {
        return -EALREADY;
    }
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* guard.c */
    atomic_store(&io->quit, false);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, IO_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the reactor's */
    int rc = pthread_create(&io->thread, &attributes, run, io);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (rc) {
        return -rc;
    }
    io->has_thread = true;
    char shown[16];
    snprintf(shown, sizeof shown, "IO %s", name);
    pthread_setname_np(io->thread, shown);
    while (!atomic_load(&io->tid)) {
        sched_yield();
    }
    return 0;
}

/* End the thread between two callbacks. Not from inside the context. */
void core_io_thread_stop(core_io *io) {
    if (io->has_thread) {
        atomic_store(&io->quit, true);
        io_wake(io);
        pthread_join(io->thread, NULL);
        io->has_thread = false;
        atomic_store(&io->tid, 0);
    }
}

/* The host's id of the thread; 0: there is none, or it has not run yet. */
int core_io_thread_id(core_io *io) {
    return atomic_load(&io->tid);
}
