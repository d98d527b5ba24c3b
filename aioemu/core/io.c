/* io.c: an io context's sources, timers, calls and turns, whoever drives it. Nothing here knows what the work is. */
#include "io_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    LOOK_NS = 10000,      /* how often to ask the kernel while polling memory: what only it knows waits this long */
    FIRST_POLL_NS = 4000, /* where growing begins */
    VAIN_MAX = 3, /* after so many looks in vain 2^3 - 1 chances are let pass: a look wastes a tenth of the time then */
};

/* ---- one thread at a time -------------------------------------------------------------------------------------------- */

static uintptr_t self(void) {
    return (uintptr_t)pthread_self();
}

void core_io_enter(struct core_io *io) {
    if (atomic_load_explicit(&io->owner, memory_order_relaxed) != self()) {
        atomic_fetch_add(&io->wanted, 1);
        pthread_mutex_lock(&io->lock);
        atomic_fetch_sub(&io->wanted, 1);
        atomic_store_explicit(&io->owner, self(), memory_order_relaxed);
    }
    io->depth++;
}

void core_io_leave(struct core_io *io) {
    if (--io->depth == 0) {
        atomic_store_explicit(&io->owner, 0, memory_order_relaxed);
        pthread_mutex_unlock(&io->lock);
    }
}

/* The driver, between two callbacks: let in who waits. */
static void let_in(struct core_io *io) {
    if (!atomic_load_explicit(&io->wanted, memory_order_relaxed) || io->depth != 1) {
        return;
    }
    core_io_leave(io);
    while (atomic_load(&io->wanted)) {
        sched_yield();
    }
    core_io_enter(io);
}

void io_wake(struct core_io *io) {
    uint64_t one = 1;
    (void)!write(io->event_fd, &one, sizeof one);
}

/* ---- sources --------------------------------------------------------------------------------------------------------- */

static int set_events(struct core_io_source *s, uint32_t events) {
    struct core_io *io = s->io;
    struct epoll_event wanted = {.events = events, .data.ptr = s};
    bool waits = s->fd >= 0 && (events & ~(uint32_t)EPOLLET);
    int op = !waits ? EPOLL_CTL_DEL : s->in_set ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if ((waits || s->in_set) && epoll_ctl(io->epoll_fd, op, s->fd, &wanted) < 0) {
        return -errno;
    }
    s->in_set = waits;
    s->events = events;
    return 0;
}

static int append(struct core_io *io, struct core_io_source *s) {
    if (io->count == io->room) {
        uint32_t room = io->room ? 2 * io->room : 8;
        struct core_io_source **more = realloc(io->sources, room * sizeof *more);
        if (!more) {
            return -ENOMEM;
        }
        io->sources = more;
        io->room = room;
    }
    io->sources[io->count++] = s;
    return 0;
}

int core_io_add(struct core_io *io, struct core_io_source *s) {
    core_io_enter(io);
    s->io = io;
    s->in_set = false;
    int rc = set_events(s, s->events);
    if (rc == 0 && (rc = append(io, s)) < 0) {
        (void)set_events(s, 0);
    }
    if (rc < 0) {
        s->io = NULL;
    } else if (s->poll) {
        io->pollers++;
        if (!io->running) {
            io_wake(io); /* look at it once before sleeping again */
        }
    }
    core_io_leave(io);
    return rc;
}

int core_io_change(struct core_io_source *s, uint32_t events) {
    struct core_io *io = s->io;
    if (!io) {
        return -ENOENT;
    }
    core_io_enter(io);
    int rc = events == s->events ? 0 : set_events(s, events);
    core_io_leave(io);
    return rc;
}

void core_io_remove(struct core_io_source *s) {
    struct core_io *io = s->io;
    if (!io) {
        return;
    }
    core_io_enter(io);
    if (s->in_set) {
        (void)epoll_ctl(io->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
    }
    for (uint32_t i = 0; i < io->count; i++) {
        if (io->sources[i] == s) {
            io->sources[i] = io->sources[--io->count]; /* a walk goes downwards: what moves was seen */
            break;
        }
    }
    for (int i = 0; i < io->batch_count; i++) {
        if (io->batch[i].data.ptr == s) {
            io->batch[i].data.ptr = NULL;
        }
    }
    io->pollers -= s->poll != NULL;
    io->removals++;
    s->in_set = false;
    s->io = NULL;
    core_io_leave(io);
}

static bool is_source(const struct core_io *io, const void *s) {
    for (uint32_t i = 0; i < io->count; i++) {
        if (io->sources[i] == s) {
            return true;
        }
    }
    return false;
}

/* ---- turns ----------------------------------------------------------------------------------------------------------- */

static void drain_fd(int fd) {
    uint64_t count;
    (void)!read(fd, &count, sizeof count);
}

static bool dispatch(struct core_io *io) {
    bool any = false;
    for (int i = 0; i < io->batch_count; i++) {
        void *what = io->batch[i].data.ptr;
        if (what == &io->event_fd) {
            drain_fd(io->event_fd);
        } else if (what == &io->timer_fd) {
            drain_fd(io->timer_fd);
            io->timer_fd_ns = 0;
        } else if (what) {
            struct core_io_source *s = what;
            s->ready(s, io->batch[i].events);
            any = true;
        }
        let_in(io);
    }
    io->batch_count = 0;
    return any;
}

static bool look_around(struct core_io *io) {
    io->batch_count = epoll_wait(io->epoll_fd, io->batch, IO_EVENTS, 0);
    return dispatch(io);
}

static bool poll_sources(struct core_io *io) {
    bool any = false;
    for (uint32_t i = io->count; i-- > 0;) {
        if (i < io->count && io->sources[i]->poll) {
            any |= io->sources[i]->poll(io->sources[i]);
        }
    }
    return any;
}

bool io_turn(struct core_io *io, bool look) {
    bool any = look && look_around(io);
    any |= io_run_calls(io);
    any |= io_fire_timers(io);
    any |= io->pollers && poll_sources(io);
    let_in(io);
    return any;
}

/* Turn for as long as something comes within (for_ns) of the last, but not beyond (until_ns). Whether anything did. */
static bool spin(struct core_io *io, int64_t for_ns, int64_t until_ns) {
    int64_t now = io->quiet_ns, end = now + for_ns, look_at = now + LOOK_NS;
    bool any = false;
    while (now < end && now < until_ns && !atomic_load_explicit(&io->quit, memory_order_relaxed)) {
        bool busy = io_turn(io, now >= look_at);
        look_at = now >= look_at ? now + LOOK_NS : look_at;
        now = core_monotonic_ns();
        if (busy) {
            any = true;
            io->quiet_ns = now;
            end = now + for_ns;
        } else {
            __builtin_ia32_pause();
        }
    }
    return any;
}

void core_io_rest(struct core_io *io, bool on) {
    core_io_enter(io);
    io->resting += on ? 1u : UINT32_MAX;
    core_io_leave(io);
}

/* Look for more before sleeping, unless that was in vain lately: whoever would bring it may need this very processor. */
void io_linger(struct core_io *io, int64_t until_ns) {
    struct io_poll *p = &io->poll;
    io->quiet_ns = core_monotonic_ns();
    if (!io->pollers || !p->now_ns || io->resting) {
        return;
    }
    if (p->pass) {
        p->pass--;
    } else if (spin(io, p->now_ns, until_ns)) {
        p->vain = 0;
    } else {
        p->vain += p->vain < VAIN_MAX;
        p->pass = (1u << p->vain) - 1;
    }
}

bool io_arm(struct core_io *io) {
    bool busy = false;
    for (uint32_t i = io->count; io->pollers && i-- > 0;) {
        if (i < io->count && io->sources[i]->arm) {
            busy |= io->sources[i]->arm(io->sources[i]);
        }
    }
    io_settle_timers(io);
    atomic_store(&io->sleeping, true);
    if (atomic_load(&io->posted)) {
        busy = true;
    }
    if (busy) {
        atomic_store(&io->sleeping, false);
    }
    return busy;
}

/* Sleep with the context open to others. What was removed meanwhile is not called. */
int io_wait(struct core_io *io) {
    uint32_t removals = io->removals;
    struct epoll_event came[IO_EVENTS];
    io->running = false;
    core_io_leave(io);
    int count = epoll_wait(io->epoll_fd, came, IO_EVENTS, -1);
    core_io_enter(io);
    io->running = true;
    atomic_store(&io->sleeping, false);
    io->batch_count = count > 0 ? count : 0;
    memcpy(io->batch, came, (size_t)io->batch_count * sizeof *came);
    for (int i = 0; removals != io->removals && i < io->batch_count; i++) {
        void *what = io->batch[i].data.ptr;
        if (what != &io->event_fd && what != &io->timer_fd && !is_source(io, what)) {
            io->batch[i].data.ptr = NULL;
        }
    }
    dispatch(io);
    return count;
}

/* It took (waited_ns) from the start of polling until something came. Only those who set poll-grow or poll-shrink have
 * the time of polling change by it. */
void io_learn(struct core_io *io, int64_t waited_ns) {
    struct io_poll *p = &io->poll;
    if (waited_ns <= p->now_ns || (p->grow == 0 && p->shrink == 0)) {
        return;
    }
    if (waited_ns > p->max_ns) {
        p->now_ns = p->shrink ? p->now_ns / p->shrink : 0;
    } else {
        p->now_ns = p->now_ns ? p->now_ns * (p->grow ? p->grow : 2) : FIRST_POLL_NS;
        p->now_ns = p->now_ns < p->max_ns ? p->now_ns : p->max_ns;
    }
}

/* ---- the reactor's driver -------------------------------------------------------------------------------------------- */

int core_io_fd(core_io *io) {
    return io->epoll_fd;
}

/* Serve everything that is ready and what comes soon after, for (budget_ns) or little more; afterwards the fd of the
 * context is readable again if something was left. The reactor, with no callback of the context on its stack. */
void core_io_run(core_io *io, int64_t budget_ns) {
    core_io_enter(io);
    io->running = true;
    atomic_store(&io->sleeping, false);
    int64_t end = core_monotonic_ns() + budget_ns;
    bool busy = io_turn(io, true);
    if (busy && io->pollers) {
        io_learn(io, core_monotonic_ns() - io->quiet_ns);
    }
    for (;;) {
        io_linger(io, end);
        if (!io_arm(io)) {
            break;
        }
        if (core_monotonic_ns() >= end) {
            atomic_store(&io->sleeping, true);
            io_wake(io);
            break;
        }
        io_turn(io, false);
    }
    io->running = false;
    core_io_leave(io);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static int watch(struct core_io *io, int *fd) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = fd};
    return *fd < 0 ? -1 : epoll_ctl(io->epoll_fd, EPOLL_CTL_ADD, *fd, &wanted);
}

core_io *core_io_new(void) {
    struct core_io *io = calloc(1, sizeof *io);
    if (!io) {
        return NULL;
    }
    pthread_mutex_init(&io->lock, NULL);
    pthread_mutex_init(&io->post_lock, NULL);
    io->calls_end = &io->calls;
    atomic_init(&io->sleeping, true);
    io->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    io->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (io->epoll_fd < 0 || watch(io, &io->event_fd) < 0 || watch(io, &io->timer_fd) < 0) {
        core_io_free(io);
        return NULL;
    }
    return io;
}

static void close_fd(int fd) {
    if (fd >= 0) {
        close(fd);
    }
}

/* Nobody uses it any more: its sources were removed, its timers cleared, its thread ended. Posted calls are dropped. */
void core_io_free(core_io *io) {
    if (!io) {
        return;
    }
    core_io_thread_stop(io);
    io_drop_calls(io);
    close_fd(io->epoll_fd);
    close_fd(io->event_fd);
    close_fd(io->timer_fd);
    pthread_mutex_destroy(&io->lock);
    pthread_mutex_destroy(&io->post_lock);
    free(io->sources);
    free(io);
}
