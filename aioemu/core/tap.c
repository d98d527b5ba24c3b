/* tap.c: a port over a TAP device's descriptors, one for each queue: read in an io context (tap_read.c), written in the
 * sender's (tap_write.c). With a vnet header, checksums and segmentation pass through to the host's kernel. Not here:
 * making devices. A device that disappears takes the carrier and loses frames; it disturbs nothing else. */
#include <errno.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tap_internal.h"

#ifndef TUN_F_USO4 /* since Linux 6.2 */
#    define TUN_F_USO4 0x20
#    define TUN_F_USO6 0x40
#endif

enum { TAP_MAX_QUEUES = 256 }; /* what the kernel has */

void tap_lose(struct tap *t) {
    if (!atomic_exchange(&t->gone, true)) {
        (void)!write(t->news_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
}

/* Go on with what the peer did not take, or wait until the host takes something: inside the io context. */
static void go_on(void *argument) {
    struct tap_queue *q = argument;
    atomic_store(&q->posted, false);
    bool waited = atomic_exchange(&q->waits, false);
    if (!waited || tap_hand_on(q)) {
        tap_watch(q);
    }
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

static int tap_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    struct tap *t = (struct tap *)port;
    struct tap_queue *q = &t->queues[queue % t->count];
    int done = 0, part = 1;
    while (done < count && part > 0) {
        part = tap_write(q, frames + done, count - done);
        done += part;
    }
    if (done < count) { /* the host takes nothing now */
        atomic_store(&q->full, true);
        soon(q);
    }
    atomic_fetch_add_explicit(&t->sent, (uint32_t)done, memory_order_relaxed);
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
        tap_leave(&t->queues[i]);
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
        tap_ring_free(&t->queues[i]);
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
        ok = tap_reader_init(&queues[i]) == 0 && ok;
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
