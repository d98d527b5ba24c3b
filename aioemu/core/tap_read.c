/* tap_read.c: frames from a TAP device to the port's peer: read in batches from an io context. Frames that nobody answers
 * may come so fast that being woken for each, or taking turns with who sends them, costs more than the frames: then the
 * descriptor is left alone and looked at by the clock, as network cards moderate their interrupts. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap_internal.h"

enum {
    TAP_BUDGET = 256, /* frames of one queue before the context's other work has its turn */
    TAP_ALIGN = 64,
    LONG_NS = 100 * 1000,        /* an answer takes a tenth of it */
    PAUSE_NS = 10 * 1000 * 1000, /* a few turns of the host's scheduler */
    REST_NS = 100 * 1000,        /* a host sends a third of a usual ring meanwhile */
    FLOOD_NS = 16 * 1000,        /* frames that come closer than this, not counting */
    FLOOD_FEW = 4,               /* so many for each that is sent, are a flood */
};

static struct tap_queue *queue_of(struct core_io_source *s) {
    return (struct tap_queue *)((uint8_t *)s - offsetof(struct tap_queue, source));
}

void tap_watch(struct tap_queue *q) {
    bool reads = !q->resting && !atomic_load(&q->waits);
    (void)core_io_change(&q->source, (reads ? EPOLLIN : 0u) | (atomic_load(&q->full) ? EPOLLOUT : 0u));
}

/* ---- frames ---------------------------------------------------------------------------------------------------------- */

/* Read into the arena from (at): the frame's size, 0 none, or -errno. */
static int64_t read_one(struct tap_queue *q, int slot, uint8_t *at) {
    const struct tap *t = q->tap;
    uint32_t skip = t->vnet ? 0 : CORE_NET_HDR_SIZE;
    /* libc's read() may be cancelled, which costs two atomic operations a frame: nobody cancels this thread */
    ssize_t got = syscall(SYS_read, q->fd, at + skip, TAP_ROOM - skip);
    if (got < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    if (skip) {
        memcpy(at, &t->plain, sizeof t->plain);
    }
    int64_t size = got + skip - CORE_NET_HDR_SIZE;
    if (size <= 0) {
        return 0;
    }
    q->iov[slot][0] = (struct iovec){.iov_base = at, .iov_len = CORE_NET_HDR_SIZE};
    q->iov[slot][1] = (struct iovec){.iov_base = at + CORE_NET_HDR_SIZE, .iov_len = (size_t)size};
    q->frames[slot] = (struct core_frame){.iov = q->iov[slot], .count = 2, .size = (uint32_t)size};
    return size;
}

/* How many frames were read; what they hold is checked on the way to the peer. */
static int read_batch(struct tap_queue *q) {
    size_t used = 0;
    int n = 0;
    while (n < TAP_BATCH && TAP_ARENA - used >= TAP_ROOM) {
        int64_t size = read_one(q, n, q->arena + used);
        if (size == -EBADFD) {
            tap_lose(q->tap);
        }
        if (size <= 0) {
            break;
        }
        n++;
        used += ((size_t)size + CORE_NET_HDR_SIZE + TAP_ALIGN - 1) & ~(size_t)(TAP_ALIGN - 1);
    }
    return n;
}

bool tap_hand_on(struct tap_queue *q) {
    while (q->first < q->count) {
        int taken = core_port_send(&q->tap->port, q->index, q->frames + q->first, q->count - q->first);
        if (taken == 0) {
            atomic_store(&q->waits, true);
            tap_watch(q);
            return false;
        }
        q->first += taken;
    }
    q->first = q->count = 0;
    return true;
}

static bool take(struct tap_queue *q) {
    int done = 0;
    while (done < TAP_BUDGET && !atomic_load_explicit(&q->waits, memory_order_relaxed)) {
        q->count = read_batch(q);
        done += q->count;
        if (q->count == 0 || !tap_hand_on(q)) {
            break;
        }
    }
    q->span.came += (uint32_t)done;
    return done > 0;
}

/* ---- looking --------------------------------------------------------------------------------------------------------- */

/* Idle: who is to answer may wait for this very processor, so it has it first. Where strangers kept it for long instead,
 * it is not offered for a while. */
static void make_way(struct tap *t) {
    int64_t now = core_monotonic_ns();
    if (now >= t->offer_ns) {
        sched_yield();
        int64_t back = core_monotonic_ns();
        t->offer_ns = back - now > LONG_NS ? back + PAUSE_NS : back;
    }
}

/* Look, while the context has nothing else to do. */
static bool tap_poll(struct core_io_source *s) {
    struct tap_queue *q = queue_of(s);
    if (take(q)) {
        return true;
    }
    uint32_t sent = atomic_load_explicit(&q->tap->sent, memory_order_relaxed);
    if (sent == q->sent_seen) {
        make_way(q->tap);
    }
    q->sent_seen = sent;
    return false;
}

static void rest(struct tap_queue *q, bool on) {
    if (on != q->resting) {
        q->resting = on;
        core_io_rest(q->tap->io, on);
        tap_watch(q);
    }
}

/* Judge what came since the last time, once a while: whether it was a flood. */
static bool is_flood(struct tap_queue *q, int64_t now_ns) {
    uint32_t sent = atomic_load_explicit(&q->tap->sent, memory_order_relaxed);
    bool many = (int64_t)q->span.came * FLOOD_NS > now_ns - q->span.since_ns;
    bool flood = many && q->span.came / FLOOD_FEW >= sent - q->span.sent;
    q->span.since_ns = now_ns;
    q->span.came = 0;
    q->span.sent = sent;
    return flood;
}

/* The descriptor says when there is something, but in a flood. */
static bool tap_arm(struct core_io_source *s) {
    struct tap_queue *q = queue_of(s);
    int64_t now = q->span.came || q->resting ? core_monotonic_ns() : 0;
    if (now >= q->span.since_ns + REST_NS) {
        rest(q, is_flood(q, now));
        if (q->resting) {
            core_io_timer_set(q->tap->io, &q->again, now + REST_NS);
        }
    }
    return false;
}

static void look_again(struct core_io_timer *timer) {
    (void)take((struct tap_queue *)((uint8_t *)timer - offsetof(struct tap_queue, again)));
}

/* ---- events ---------------------------------------------------------------------------------------------------------- */

static void tap_ready(struct core_io_source *s, uint32_t events) {
    struct tap_queue *q = queue_of(s);
    if ((events & EPOLLOUT) && atomic_exchange(&q->full, false)) {
        tap_watch(q);
        core_port_ready(&q->tap->port, q->index);
    }
    if (events & EPOLLERR) { /* the one reason for it */
        tap_lose(q->tap);
        tap_leave(q); /* it would ring for ever */
        return;
    }
    (void)take(q);
}

int tap_reader_init(struct tap_queue *q) {
    q->source = (struct core_io_source){.fd = q->fd, .ready = tap_ready, .poll = tap_poll, .arm = tap_arm};
    q->again.fire = look_again;
    q->arena = malloc(TAP_ARENA);
    return q->arena ? 0 : -ENOMEM;
}

void tap_leave(struct tap_queue *q) {
    struct core_io *io = q->source.io;
    if (io) {
        core_io_enter(io);
        core_io_timer_clear(io, &q->again);
        rest(q, false);
        core_io_remove(&q->source);
        core_io_leave(io);
    }
}
