/* slirp_poll.c: waits for the library's sockets. It asks to be told of all of them before each sleep; here the difference
 * to what it asked before goes into one epoll set, which is one source of the io context. */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "slirp.h"

enum { ENDLESS_MS = 0x7fffffff, WATCH_STEP = 64 };

_Static_assert(SLIRP_IN == 1 && SLIRP_OUT == 2 && SLIRP_PRI == 4 && SLIRP_ERR == 8 && SLIRP_HUP == 16, "bits below");

static short to_poll(int events) {
    return (short)((events & SLIRP_IN ? POLLIN : 0) | (events & SLIRP_OUT ? POLLOUT : 0) |
                   (events & SLIRP_PRI ? POLLPRI : 0));
}

static int from_poll(int events) {
    return (events & POLLIN ? SLIRP_IN : 0) | (events & POLLOUT ? SLIRP_OUT : 0) | (events & POLLPRI ? SLIRP_PRI : 0) |
           (events & (POLLERR | POLLNVAL) ? SLIRP_ERR : 0) | (events & POLLHUP ? SLIRP_HUP : 0);
}

/* What is known of (fd); NULL without memory. */
static struct slirp_watch *watch_of(struct core_slirp *s, int fd) {
    if (fd < 0) {
        return NULL;
    }
    if (fd >= s->watch_count) {
        int count = fd + WATCH_STEP;
        struct slirp_watch *more = realloc(s->watches, (size_t)count * sizeof *more);
        if (!more) {
            return NULL;
        }
        memset(more + s->watch_count, 0, (size_t)(count - s->watch_count) * sizeof *more);
        s->watches = more;
        s->watch_count = count;
    }
    return &s->watches[fd];
}

static void forget(struct core_slirp *s, struct slirp_watch *watch, int fd) {
    if (watch->events) {
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL);
        watch->events = 0;
    }
}

void core_slirp_register(int fd, void *opaque) {
    struct core_slirp *s = opaque;
    struct slirp_watch *watch = watch_of(s, fd);
    if (watch) {
        forget(s, watch, fd); /* of another socket that had the number */
        if (!watch->registered) {
            core_slirp_guard_opened(&s->guard, fd, core_monotonic_ns());
        }
        watch->registered = true;
    }
}

void core_slirp_unregister(int fd, void *opaque) {
    struct core_slirp *s = opaque;
    struct slirp_watch *watch = watch_of(s, fd);
    if (watch) {
        forget(s, watch, fd);
        s->guard.sockets -= watch->registered;
        watch->registered = false;
    }
}

static int add_poll(int fd, int events, void *opaque) {
    struct core_slirp *s = opaque;
    if (s->poll_count == s->poll_room) {
        int room = s->poll_room + WATCH_STEP;
        struct pollfd *more = realloc(s->polls, (size_t)room * sizeof *more);
        if (!more) {
            return -1; /* not waited for this time */
        }
        s->polls = more;
        s->poll_room = room;
    }
    s->polls[s->poll_count] = (struct pollfd){.fd = fd, .events = to_poll(events)};
    return s->poll_count++;
}

static int get_revents(int index, void *opaque) {
    const struct core_slirp *s = opaque;
    return index >= 0 && index < s->poll_count ? from_poll(s->polls[index].revents) : 0;
}

static void want(struct core_slirp *s, const struct pollfd *entry) {
    struct slirp_watch *watch = watch_of(s, entry->fd);
    if (!watch) {
        return;
    }
    watch->turn = s->turn;
    if (watch->events != (uint8_t)entry->events) {
        struct epoll_event event = {.events = (uint32_t)entry->events, .data.fd = entry->fd};
        if (epoll_ctl(s->epoll, EPOLL_CTL_MOD, entry->fd, &event) < 0) {
            epoll_ctl(s->epoll, EPOLL_CTL_ADD, entry->fd, &event);
        }
        watch->events = (uint8_t)entry->events;
    }
}

_Static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLPRI == EPOLLPRI, "the same bits");
_Static_assert((POLLIN | POLLOUT | POLLPRI) < 256, "they fit slirp_watch");

static void turn_page(struct core_slirp *s) {
    struct pollfd *polls = s->polls;
    int room = s->poll_room;
    s->polls = s->polls_before;
    s->poll_room = s->poll_room_before;
    s->polls_before = polls;
    s->poll_room_before = room;
    s->poll_count_before = s->poll_count;
    s->poll_count = 0;
    s->turn++;
}

void core_slirp_settle(struct core_slirp *s) {
    uint32_t timeout_ms = ENDLESS_MS;
    turn_page(s);
    s->library.pollfds_fill(s->instance, &timeout_ms, add_poll, s);
    for (int i = 0; i < s->poll_count; i++) {
        want(s, &s->polls[i]);
    }
    for (int i = 0; i < s->poll_count_before; i++) {
        int fd = s->polls_before[i].fd;
        if (fd < s->watch_count && s->watches[fd].turn != s->turn) {
            forget(s, &s->watches[fd], fd);
        }
    }
    if (timeout_ms < ENDLESS_MS && !s->held) {
        core_io_timer_set(s->io, &s->timer, core_monotonic_ns() + (int64_t)timeout_ms * 1000000);
    } else {
        core_io_timer_clear(s->io, &s->timer);
    }
}

void core_slirp_look(struct core_slirp *s) {
    bool failed = poll(s->polls, (nfds_t)s->poll_count, 0) < 0;
    s->library.pollfds_poll(s->instance, failed, get_revents, s);
}

/* ---- the library's own timers ------------------------------------------------------------------------------------ */

static void wake_fires(struct core_io_timer *timer) {
    struct slirp_wake *wake = (struct slirp_wake *)timer;
    if (wake->owner->held) {
        core_io_timer_set(wake->owner->io, timer, core_monotonic_ns() + SLIRP_HELD_NS);
        return;
    }
    wake->fire(wake->opaque);
    core_slirp_settle(wake->owner);
    core_slirp_flush(wake->owner);
}

void *core_slirp_timer_new(slirp_timer_fn fire, void *fire_opaque, void *opaque) {
    struct core_slirp *s = opaque;
    struct slirp_wake *wake = &s->wakes[s->wake_count < SLIRP_WAKES - 1 ? s->wake_count++ : SLIRP_WAKES - 1];
    wake->timer.fire = wake_fires;
    wake->owner = s;
    wake->fire = fire;
    wake->opaque = fire_opaque;
    return wake;
}

void core_slirp_timer_free(void *timer, void *opaque) {
    struct core_slirp *s = opaque;
    core_io_timer_clear(s->io, timer);
}

void core_slirp_timer_mod(void *timer, int64_t due_ms, void *opaque) {
    struct core_slirp *s = opaque;
    core_io_timer_set(s->io, timer, due_ms * 1000000 + s->behind_ns);
}
