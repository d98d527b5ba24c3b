/* port.c: wires between ports: joining, passing frames on, counting. port.h says who may call what, and from where. */
#include "port.h"

#include <errno.h>
#include <string.h>

#include "offload.h"

void core_port_init(struct core_port *port, const struct core_port_ops *ops, uint32_t takes) {
    memset(port, 0, sizeof *port);
    port->ops = ops;
    atomic_init(&port->takes, takes);
    atomic_init(&port->up, true);
}

/* ---- joining -------------------------------------------------------------------------------------------------------- */

static void tell_carrier(struct core_port *port) {
    if (port->ops->carrier) {
        port->ops->carrier(port, core_port_carrier(port));
    }
}

/* Whoever waits for the other end may go on: it drops, or sends. */
static void release(struct core_port *port) {
    if (port->ops->ready) {
        port->ops->ready(port, CORE_PORT_ALL_QUEUES);
    }
}

int core_port_join(core_port *a, core_port *b) {
    if (a == b) {
        return -EINVAL;
    }
    if (atomic_load(&a->peer) || atomic_load(&b->peer)) {
        return -EBUSY;
    }
    atomic_store(&a->peer, b);
    atomic_store(&b->peer, a);
    core_port_set_takes(a, atomic_load(&a->takes));
    core_port_set_takes(b, atomic_load(&b->takes));
    tell_carrier(a);
    tell_carrier(b);
    return 0;
}

void core_port_part(core_port *port) {
    struct core_port *peer = atomic_exchange(&port->peer, NULL);
    if (!peer) {
        return;
    }
    atomic_store(&peer->peer, NULL);
    passage_wait(&port->users);
    passage_wait(&peer->users);
    tell_carrier(port);
    tell_carrier(peer);
    release(port);
    release(peer);
}

core_port *core_port_peer(core_port *port) {
    return atomic_load(&port->peer);
}

void core_port_set_up(core_port *port, int up) {
    struct core_port *peer = atomic_load(&port->peer);
    if (atomic_exchange(&port->up, up != 0) == (up != 0) || !peer) {
        return;
    }
    tell_carrier(peer);
    release(port);
    release(peer);
}

int core_port_is_up(core_port *port) {
    return atomic_load(&port->up);
}

int core_port_carrier(core_port *port) {
    const struct core_port *peer = atomic_load(&port->peer);
    return peer && atomic_load(&peer->up);
}

int core_port_drive(core_port *port, core_io *io) {
    return port->ops->drive ? port->ops->drive(port, io) : 0;
}

void core_port_free(core_port *port) {
    if (port) {
        core_port_part(port);
        port->ops->destroy(port);
    }
}

const char *core_port_kind(core_port *port) {
    return port->ops->name;
}

/* ---- offloads ------------------------------------------------------------------------------------------------------- */

uint32_t core_port_takes(core_port *port) {
    return atomic_load_explicit(&port->takes, memory_order_relaxed);
}

void core_port_set_takes(struct core_port *port, uint32_t takes) {
    atomic_store(&port->takes, takes);
    _Atomic uint32_t *inside = passage_enter(&port->users);
    struct core_port *peer = atomic_load(&port->peer); /* which stays until this one leaves */
    if (peer && peer->ops->offloads) {
        peer->ops->offloads(peer, takes);
    }
    passage_leave(inside);
}

uint32_t core_port_peer_takes(struct core_port *port) {
    _Atomic uint32_t *inside = passage_enter(&port->users);
    const struct core_port *peer = atomic_load(&port->peer);
    uint32_t takes = peer ? atomic_load(&peer->takes) : CORE_TAKES_ALL;
    passage_leave(inside);
    return takes;
}

/* ---- counting ------------------------------------------------------------------------------------------------------- */

static void add(_Atomic uint64_t *counter, uint64_t n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

void core_port_drop_in(struct core_port *port, enum core_drop why, uint64_t bytes) {
    add(&port->drop_in[why], 1);
    add(&port->in_frames, UINT64_MAX); /* it counts as taken in a moment */
    add(&port->in_bytes, 0 - bytes);
}

void core_port_drop_out(struct core_port *port, enum core_drop why, uint64_t frames) {
    add(&port->drop_out[why], frames);
}

/* One that was dropped counts as taken in a moment: until then there may seem to be less than none. */
static uint64_t so_far(const _Atomic uint64_t *counter) {
    uint64_t count = atomic_load(counter);
    return count >> 63 ? 0 : count;
}

void core_port_stats(core_port *port, core_port_counts *counts) {
    *counts = (core_port_counts){.out_frames = so_far(&port->out_frames),
                                 .out_bytes = so_far(&port->out_bytes),
                                 .in_frames = so_far(&port->in_frames),
                                 .in_bytes = so_far(&port->in_bytes)};
    for (int i = 0; i < CORE_DROP_COUNT; i++) {
        counts->drop_out[i] = atomic_load(&port->drop_out[i]);
        counts->drop_in[i] = atomic_load(&port->drop_in[i]);
    }
}

const char *core_drop_name(uint32_t why) {
    static const char *const names[CORE_DROP_COUNT] = {
        [CORE_DROP_NO_PEER] = "no-peer",
        [CORE_DROP_LINK_DOWN] = "link-down",
        [CORE_DROP_NO_DRIVER] = "no-driver",
        [CORE_DROP_NO_ROOM] = "no-room",
        [CORE_DROP_QUEUE_FULL] = "queue-full",
        [CORE_DROP_TOO_LONG] = "too-long",
        [CORE_DROP_TOO_SHORT] = "too-short",
        [CORE_DROP_BAD_HEADER] = "bad-header",
        [CORE_DROP_NO_OFFLOAD] = "no-offload",
        [CORE_DROP_FILTERED] = "filtered",
        [CORE_DROP_HOST] = "host",
        [CORE_DROP_IMPAIRED] = "impaired",
        [CORE_DROP_BAD_CHECKSUM] = "bad-checksum",
        [CORE_DROP_GUEST] = "guest",
    };
    return why < CORE_DROP_COUNT ? names[why] : "";
}

/* ---- frames --------------------------------------------------------------------------------------------------------- */

uint32_t core_frame_copy(const struct core_frame *frame, uint32_t offset, void *to, uint32_t size) {
    uint32_t done = 0;
    for (uint32_t i = 1; i < frame->count && done < size; i++) {
        size_t part = frame->iov[i].iov_len;
        if (offset >= part) {
            offset -= (uint32_t)part;
            continue;
        }
        part -= offset;
        part = part < size - done ? part : size - done;
        memcpy((uint8_t *)to + done, (const uint8_t *)frame->iov[i].iov_base + offset, part);
        done += (uint32_t)part;
        offset = 0;
    }
    return done;
}

/* What a receiver must understand to be given this header; all ones when the kind is unknown. */
static uint32_t needs(const struct core_net_hdr *hdr) {
    uint32_t takes = hdr->flags & CORE_NET_HDR_F_NEEDS_CSUM ? CORE_TAKES_CSUM : 0;
    takes |= hdr->gso_type & CORE_GSO_ECN ? CORE_TAKES_ECN : 0;
    switch (hdr->gso_type & ~CORE_GSO_ECN) {
    case CORE_GSO_NONE: return takes & ~(uint32_t)CORE_TAKES_ECN;
    case CORE_GSO_TCPV4: return takes | CORE_TAKES_TSO4;
    case CORE_GSO_TCPV6: return takes | CORE_TAKES_TSO6;
    case CORE_GSO_UDP: return takes | CORE_TAKES_UFO;
    case CORE_GSO_UDP_L4: return takes | CORE_TAKES_USO;
    default: return UINT32_MAX;
    }
}

int core_frame_fault(const struct core_frame *frame) {
    const struct core_net_hdr *hdr = core_frame_hdr(frame);
    if (frame->size > CORE_FRAME_MAX || frame->count > CORE_FRAME_PARTS) {
        return CORE_DROP_TOO_LONG;
    }
    if (frame->size < 14) {
        return CORE_DROP_TOO_SHORT; /* no Ethernet header */
    }
    bool csum = hdr->flags & CORE_NET_HDR_F_NEEDS_CSUM;
    if (csum && (uint32_t)hdr->csum_start + hdr->csum_offset + 2 > frame->size) {
        return CORE_DROP_BAD_HEADER;
    }
    bool segments = hdr->gso_type != CORE_GSO_NONE;
    if (segments && (hdr->gso_size == 0 || hdr->hdr_len > frame->size || needs(hdr) == UINT32_MAX)) {
        return CORE_DROP_BAD_HEADER;
    }
    return -1;
}

/* ---- watching ------------------------------------------------------------------------------------------------------- */

void core_port_watch(struct core_port *port, struct core_port_watch *watch) {
    watch->next = atomic_load(&port->watch);
    atomic_store(&port->watch, watch);
}

void core_port_unwatch(struct core_port *port, struct core_port_watch *watch) {
    struct core_port_watch *first = atomic_load(&port->watch);
    if (first == watch) {
        atomic_store(&port->watch, watch->next);
    }
    for (struct core_port_watch *each = first; each; each = each->next) {
        if (each->next == watch) {
            each->next = watch->next;
        }
    }
    struct core_port *peer = atomic_load(&port->peer);
    passage_wait(&port->users);
    if (peer) {
        passage_wait(&peer->users);
    }
}

static void show(struct core_port *port, bool out, const struct core_frame *frames, int count) {
    struct core_port_watch *watch = atomic_load_explicit(&port->watch, memory_order_acquire);
    for (; watch; watch = watch->next) {
        watch->passed(watch, out, frames, count);
    }
}

/* ---- sending -------------------------------------------------------------------------------------------------------- */

int port_deliver(struct core_port *port, struct core_port *peer, uint32_t queue, const struct core_frame *frames,
                 int count) {
    int taken = peer->ops->deliver(peer, queue, frames, count);
    uint64_t bytes = 0;
    for (int i = 0; i < taken; i++) {
        bytes += frames[i].size;
    }
    if (taken > 0) {
        add(&port->out_frames, (uint64_t)taken);
        add(&port->out_bytes, bytes);
        add(&peer->in_frames, (uint64_t)taken);
        add(&peer->in_bytes, bytes);
        show(port, true, frames, taken);
        show(peer, false, frames, taken);
    }
    return taken;
}

/* How many of the first frames the peer understands as they are; *fault is what is the matter with the next. */
static int plain_run(const struct core_frame *frames, int count, uint32_t takes, int *fault) {
    for (int i = 0; i < count; i++) {
        *fault = core_frame_fault(&frames[i]);
        if (*fault < 0 && (needs(core_frame_hdr(&frames[i])) & ~takes)) {
            *fault = CORE_DROP_NO_OFFLOAD;
        }
        if (*fault >= 0) {
            return i;
        }
    }
    return count;
}

static int pass(struct core_port *port, struct core_port *peer, uint32_t queue, const struct core_frame *frames,
                int count) {
    uint32_t takes = core_port_takes(peer);
    int done = 0;
    while (done < count) {
        int fault = -1, run = plain_run(frames + done, count - done, takes, &fault);
        int taken = run ? port_deliver(port, peer, queue, frames + done, run) : 0;
        done += taken;
        if (taken < run) {
            return done;
        }
        if (done == count) {
            break;
        }
        int rc = fault == CORE_DROP_NO_OFFLOAD ? offload_send(port, peer, queue, &frames[done]) : -1 - fault;
        if (rc == 0) {
            return done;
        }
        if (rc < 0) {
            core_port_drop_out(port, (enum core_drop)(-1 - rc), 1);
        }
        done++;
    }
    return done;
}

int core_port_send(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    _Atomic uint32_t *inside = passage_enter(&port->users);
    struct core_port *peer = atomic_load(&port->peer);
    int done = count;
    if (!peer) {
        core_port_drop_out(port, CORE_DROP_NO_PEER, (uint64_t)count);
    } else if (!atomic_load(&port->up) || !atomic_load(&peer->up)) {
        core_port_drop_out(port, CORE_DROP_LINK_DOWN, (uint64_t)count);
    } else {
        done = pass(port, peer, queue, frames, count);
    }
    passage_leave(inside);
    return done;
}

void core_port_ready(struct core_port *port, uint32_t queue) {
    _Atomic uint32_t *inside = passage_enter(&port->users);
    struct core_port *peer = atomic_load(&port->peer);
    if (peer && peer->ops->ready) {
        peer->ops->ready(peer, queue);
    }
    passage_leave(inside);
}
