/* io.h: an io context: one set of descriptors, timers, pollers and posted calls, served by one thread at a time.
 *
 * The reactor drives it (core_io_run from a reader of core_io_fd) or a thread of its own (core_io_thread_start). What is
 * called back runs inside the context: never two at once. Whoever changes things from outside enters it first;
 * everything below does that by itself and may be called from any thread, callbacks included. */
#pragma once

#include "core.h"

/* Something that becomes ready. Embedded in its owner, who fills the first part and must remove it before it goes. */
struct core_io_source {
    int fd;          /* -1: nothing to wait for, only polled */
    uint32_t events; /* EPOLLIN, EPOLLOUT, ... (level-triggered unless EPOLLET is among them); 0: none for now */
    void (*ready)(struct core_io_source *s, uint32_t events); /* may be called once for nothing */
    /* Both or neither. Look without waiting: whether there was something, which is then done. */
    bool (*poll)(struct core_io_source *s);
    /* The context is going to sleep: ask for `fd` to be rung. True: something is there already, so poll again. */
    bool (*arm)(struct core_io_source *s);
    /* the context's */
    struct core_io *io;
    bool in_set;
};

struct core_io_timer {
    void (*fire)(struct core_io_timer *t); /* it is not set any more by then */
    int64_t due_ns;                        /* CLOCK_MONOTONIC */
    /* the context's */
    struct core_io_timer *next;
    bool set;
};

/* Requests that who gathers them should hand to the kernel at once at most (aio-max-batch); 0: as many as it likes. */
uint32_t core_io_max_batch(const struct core_io *io);

/* 0 or -errno. A source belongs to one context at a time. */
int core_io_add(struct core_io *io, struct core_io_source *s);
int core_io_change(struct core_io_source *s, uint32_t events);
/* After it returns the callbacks do not run any more, in whatever thread. Nothing happens to one that is in no context. */
void core_io_remove(struct core_io_source *s);

/* Fire at (due_ns), instead of when it was set to before. */
void core_io_timer_set(struct core_io *io, struct core_io_timer *t, int64_t due_ns);
void core_io_timer_clear(struct core_io *io, struct core_io_timer *t);

/* For each of these with (on), until one without, the context sleeps at once when there is nothing to do: looking for more
 * would keep a processor from those who bring it, and a timer of the caller's looks soon. */
void core_io_rest(struct core_io *io, bool on);

/* Call fn(arg) inside the context, soon and in the order of posting. -ENOMEM. */
int core_io_post(struct core_io *io, void (*fn)(void *arg), void *arg);

/* Between the two no callback runs but the caller's own; they nest. The context does not sleep with it held, so this
 * waits for one callback at most. */
void core_io_enter(struct core_io *io);
void core_io_leave(struct core_io *io);
