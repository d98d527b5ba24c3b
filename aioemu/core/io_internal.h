/* io_internal.h: the inside of an io context, shared by its parts: io.c (what it serves), io_later.c (timers and calls)
 * and iothread.c (the thread that can drive it). */
#pragma once

#include <sys/epoll.h>

#include "io.h"

enum {
    IO_EVENTS = 64, /* taken from the kernel at once */
};

struct io_call {
    struct io_call *next;
    void (*fn)(void *arg);
    void *arg;
};

/* How long to look before sleeping, as QEMU's iothreads do. */
struct io_poll {
    int64_t max_ns, now_ns;
    uint32_t vain, pass;   /* looks in vain in a row; chances to let pass before the next */
    uint32_t grow, shrink; /* 0 and 0: it is max_ns always; one of them 0: double, to none */
};

struct core_io {
    pthread_mutex_t lock; /* held while callbacks run */
    _Atomic uintptr_t owner;
    uint32_t depth;          /* of the owner's entries */
    _Atomic uint32_t wanted; /* threads that wait to enter: the driver lets them in */
    int epoll_fd, event_fd, timer_fd;
    /* inside the context */
    struct core_io_source **sources;
    uint32_t count, room, pollers;
    uint32_t removals; /* so far */
    uint32_t resting;  /* core_io_rest */
    struct epoll_event batch[IO_EVENTS];
    int batch_count;
    struct core_io_timer *timers; /* by time */
    int64_t timer_fd_ns;          /* what timer_fd is set to; 0 = not */
    bool running;                 /* in a turn: timer_fd is set at its end */
    int64_t quiet_ns;             /* since when there was nothing to do */
    struct io_poll poll;
    uint32_t max_batch; /* aio-max-batch: for those who submit requests to the kernel */
    /* from any thread */
    pthread_mutex_t post_lock;
    struct io_call *calls, **calls_end;
    _Atomic bool posted, sleeping;
    /* iothread.c */
    pthread_t thread;
    bool has_thread;
    _Atomic bool quit;
    _Atomic int tid;
};

/* io.c; inside the context. */
bool io_turn(struct core_io *io, bool look); /* everything that is ready; (look) asks the kernel too */
void io_linger(struct core_io *io, int64_t until_ns);
bool io_arm(struct core_io *io); /* true: do not sleep */
int io_wait(struct core_io *io); /* sleeps outside the context, then takes what came */
void io_learn(struct core_io *io, int64_t waited_ns);
void io_wake(struct core_io *io);
/* io_later.c; inside the context but for the last. */
void io_settle_timers(struct core_io *io); /* let the kernel wake it for the next */
bool io_fire_timers(struct core_io *io);
bool io_run_calls(struct core_io *io);
void io_drop_calls(struct core_io *io);
