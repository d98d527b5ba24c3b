/* tap.c: a port over a TAP device's descriptors, one for each queue: read in batches from an io context, written in the
 * sender's. With a vnet header, checksums and segmentation pass through to the host's kernel. Not here: making devices.
 * A device that disappears takes the carrier and loses frames; it disturbs nothing else. */
#include <errno.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "io.h"
#include "port.h"

#ifndef TUN_F_USO4 /* since Linux 6.2 */
#    define TUN_F_USO4 0x20
#    define TUN_F_USO6 0x40
#endif

enum {
    TAP_MAX_QUEUES = 256, /* what the kernel has */
    TAP_BATCH = 64,       /* frames read before the peer gets them */
    TAP_BUDGET = 256,     /* frames of one queue before the context's other work has its turn */
    TAP_ROOM = CORE_NET_HDR_SIZE + CORE_FRAME_MAX,
    TAP_ARENA = 4 * TAP_ROOM, /* small frames lie close together, and four of the largest fit */
    TAP_ALIGN = 64,
    LONG_NS = 100 * 1000,        /* an answer takes a tenth of it */
    PAUSE_NS = 10 * 1000 * 1000, /* a few turns of the host's scheduler */
};

struct tap;

struct tap_queue {
    struct tap *tap;
    uint32_t index;
    int fd;
    struct core_io_source source;
    /* the io context's */
    uint8_t *arena;
    struct core_frame frames[TAP_BATCH];
    struct iovec iov[TAP_BATCH][2];
    int first, count; /* read, and not taken by the peer yet */
    uint32_t writes_seen;
    /* any thread's */
    _Atomic bool full;  /* the host takes nothing now */
    _Atomic bool waits; /* the peer takes nothing now */
    _Atomic bool posted;
};

struct tap {
    struct core_port port;
    struct core_io *io;
    bool vnet, has_uso;
    uint32_t count;
    int news_fd; /* rung when the device is gone */
    _Atomic bool gone;
    int64_t offer_ns;          /* the io context's: when the processor may be offered to others again */
    _Atomic uint32_t writes;   /* batches so far */
    struct core_net_hdr plain; /* of frames that come without a header */
    struct tap_queue *queues;
};

/* The device is gone: no descriptor of it will ever do again. */
static void lose(struct tap *t) {
    if (!atomic_exchange(&t->gone, true)) {
        (void)!write(t->news_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
}

/* ---- from the host to the peer: in the io context --------------------------------------------------------------------- */

/* Read into the arena from (at): the frame's size, 0 none, or -errno. */
static int64_t read_one(struct tap_queue *q, int slot, uint8_t *at) {
    const struct tap *t = q->tap;
    uint32_t skip = t->vnet ? 0 : CORE_NET_HDR_SIZE;
    ssize_t got = read(q->fd, at + skip, TAP_ROOM - skip);
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
            lose(q->tap);
        }
        if (size <= 0) {
            break;
        }
        n++;
        used += ((size_t)size + CORE_NET_HDR_SIZE + TAP_ALIGN - 1) & ~(size_t)(TAP_ALIGN - 1);
    }
    return n;
}

/* Give the peer what was read: whether it took all. */
static bool hand_on(struct tap_queue *q) {
    while (q->first < q->count) {
        int taken = core_port_send(&q->tap->port, q->index, q->frames + q->first, q->count - q->first);
        if (taken == 0) {
            atomic_store(&q->waits, true);
            (void)core_io_change(&q->source, 0);
            return false;
        }
        q->first += taken;
    }
    q->first = q->count = 0;
    return true;
}

static bool tap_poll(struct core_io_source *s) {
    struct tap_queue *q = (struct tap_queue *)((uint8_t *)s - offsetof(struct tap_queue, source));
    int done = 0;
    while (done < TAP_BUDGET && !atomic_load_explicit(&q->waits, memory_order_relaxed)) {
        q->count = read_batch(q);
        done += q->count;
        if (q->count == 0 || !hand_on(q)) {
            break;
        }
    }
    return done > 0;
}

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
static bool tap_look(struct core_io_source *s) {
    struct tap_queue *q = (struct tap_queue *)((uint8_t *)s - offsetof(struct tap_queue, source));
    if (tap_poll(s)) {
        return true;
    }
    uint32_t writes = atomic_load_explicit(&q->tap->writes, memory_order_relaxed);
    if (writes == q->writes_seen) {
        make_way(q->tap);
    }
    q->writes_seen = writes;
    return false;
}

static bool tap_arm(struct core_io_source *s) {
    (void)s;
    return false; /* the descriptor says when there is something */
}

static void tap_ready(struct core_io_source *s, uint32_t events) {
    struct tap_queue *q = (struct tap_queue *)((uint8_t *)s - offsetof(struct tap_queue, source));
    if ((events & EPOLLOUT) && atomic_exchange(&q->full, false)) {
        (void)core_io_change(s, EPOLLIN);
        core_port_ready(&q->tap->port, q->index);
    }
    if (events & EPOLLERR) { /* the one reason for it */
        lose(q->tap);
        core_io_remove(s); /* it would ring for ever */
        return;
    }
    (void)tap_poll(s);
}

/* Go on with what the peer did not take, or wait until the host takes something: inside the io context. */
static void go_on(void *argument) {
    struct tap_queue *q = argument;
    atomic_store(&q->posted, false);
    bool waited = atomic_exchange(&q->waits, false);
    if (waited && !hand_on(q)) {
        return;
    }
    (void)core_io_change(&q->source, atomic_load(&q->full) ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void soon(struct tap_queue *q) {
    if (q->tap->io && !atomic_exchange(&q->posted, true) && core_io_post(q->tap->io, go_on, q) < 0) {
        atomic_store(&q->posted, false);
    }
}

static void tap_peer_ready(struct core_port *port, uint32_t queue) {
    struct tap *t = (struct tap *)port;
    for (uint32_t i = 0; i < t->count; i++) {
        if (queue == CORE_PORT_ALL_QUEUES || i % t->count == queue % t->count) {
            soon(&t->queues[i]);
        }
    }
}

/* ---- from the peer to the host: in the sender's context ---------------------------------------------------------------- */

/* 1 done with, 0 the host takes nothing now. */
static int write_one(struct tap_queue *q, const struct core_frame *frame) {
    struct tap *t = q->tap;
    uint32_t skip = t->vnet ? 0 : 1;
    ssize_t done = writev(q->fd, frame->iov + skip, (int)(frame->count - skip));
    if (done >= 0) {
        return 1;
    }
    if (errno == EAGAIN) {
        atomic_store(&q->full, true);
        soon(q);
        return 0;
    }
    if (errno == EBADFD) {
        lose(t);
    }
    core_port_drop_in(&t->port, CORE_DROP_HOST, frame->size);
    return 1;
}

static int tap_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    struct tap *t = (struct tap *)port;
    struct tap_queue *q = &t->queues[queue % t->count];
    int done = 0;
    while (done < count && write_one(q, &frames[done])) {
        done++;
    }
    atomic_fetch_add_explicit(&t->writes, 1, memory_order_relaxed);
    return done;
}

/* ---- the port -------------------------------------------------------------------------------------------------------- */

static void tap_carrier(struct core_port *port, bool up) {
    int on = up;
    (void)ioctl(((struct tap *)port)->queues[0].fd, TUNSETCARRIER, &on); /* the host sees what the guest did */
}

static unsigned long tun_flags(const struct tap *t, uint32_t takes) {
    unsigned long flags = takes & CORE_TAKES_CSUM ? TUN_F_CSUM : 0;
    if (flags) {
        flags |= takes & CORE_TAKES_TSO4 ? TUN_F_TSO4 : 0;
        flags |= takes & CORE_TAKES_TSO6 ? TUN_F_TSO6 : 0;
        flags |= (takes & CORE_TAKES_ECN) && (flags & (TUN_F_TSO4 | TUN_F_TSO6)) ? TUN_F_TSO_ECN : 0;
        flags |= takes & CORE_TAKES_UFO ? TUN_F_UFO : 0;
        flags |= t->has_uso && (takes & CORE_TAKES_USO) ? TUN_F_USO4 | TUN_F_USO6 : 0;
    }
    return flags;
}

static void tap_offloads(struct core_port *port, uint32_t takes) {
    const struct tap *t = (const struct tap *)port;
    if (t->vnet) {
        (void)ioctl(t->queues[0].fd, TUNSETOFFLOAD, tun_flags(t, takes));
    }
}

static void leave_io(struct tap *t) {
    for (uint32_t i = 0; i < t->count; i++) {
        core_io_remove(&t->queues[i].source);
    }
    if (t->io) {
        core_io_sync(t->io); /* what was posted has run */
    }
    t->io = NULL;
}

/* The joined peer must not send meanwhile: parted, or its driver stands still. */
static int tap_drive(struct core_port *port, struct core_io *io) {
    struct tap *t = (struct tap *)port;
    leave_io(t);
    t->io = io;
    int rc = 0;
    for (uint32_t i = 0; io && rc == 0 && i < t->count; i++) {
        t->queues[i].source.events = atomic_load(&t->queues[i].waits) ? 0 : EPOLLIN;
        rc = core_io_add(io, &t->queues[i].source);
    }
    return rc;
}

static void tap_destroy(struct core_port *port) {
    struct tap *t = (struct tap *)port;
    leave_io(t);
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->queues[i].fd >= 0) {
            close(t->queues[i].fd);
        }
        free(t->queues[i].arena);
    }
    if (t->news_fd >= 0) {
        close(t->news_fd);
    }
    free(t->queues);
    free(t);
}

static const struct core_port_ops tap_ops = {.name = "tap",
                                             .deliver = tap_deliver,
                                             .ready = tap_peer_ready,
                                             .carrier = tap_carrier,
                                             .offloads = tap_offloads,
                                             .drive = tap_drive,
                                             .destroy = tap_destroy};

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static uint32_t probe(struct tap *t) {
    if (!t->vnet) {
        return 0;
    }
    int fd = t->queues[0].fd;
    t->has_uso = ioctl(fd, TUNSETOFFLOAD, (unsigned long)(TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6)) == 0;
    (void)ioctl(fd, TUNSETOFFLOAD, 0ul);
    return t->has_uso ? CORE_TAKES_ALL : CORE_TAKES_ALL & ~(uint32_t)CORE_TAKES_USO;
}

/* A port over (count) queues of one device; the descriptors are the port's from now on, whatever comes of it. (vnet):
 * they carry headers of 12 bytes. NULL: no memory or descriptors. */
core_port *core_tap_new(const int *fds, uint32_t count, int vnet) {
    struct tap *t = count == 0 || count > TAP_MAX_QUEUES ? NULL : calloc(1, sizeof *t);
    struct tap_queue *queues = t ? calloc(count, sizeof *queues) : NULL;
    if (!t || !queues) {
        for (uint32_t i = 0; i < count; i++) {
            close(fds[i]);
        }
        free(t);
        return NULL;
    }
    core_port_init(&t->port, &tap_ops, 0);
    t->queues = queues;
    t->count = count;
    t->vnet = vnet;
    t->news_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    bool ok = t->news_fd >= 0;
    for (uint32_t i = 0; i < count; i++) {
        queues[i].tap = t;
        queues[i].index = i;
        queues[i].fd = fds[i];
        queues[i].arena = malloc(TAP_ARENA);
        queues[i].source = (struct core_io_source){.fd = fds[i], .ready = tap_ready, .poll = tap_look, .arm = tap_arm};
        ok = ok && queues[i].arena;
    }
    if (!ok) {
        tap_destroy(&t->port);
        return NULL;
    }
    atomic_store(&t->port.takes, probe(t));
    return &t->port;
}

/* Readable once the device is gone. */
int core_tap_news_fd(core_port *tap) {
    return ((struct tap *)tap)->news_fd;
}
