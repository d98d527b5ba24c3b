/* port.h: one end of a wire. Everything that sends or takes Ethernet frames is a port: a NIC, a tap, a link's two ends,
 * a switch's ports, user networking, a peer in Python. Two ports are joined; what one sends, the other is given.
 *
 * Frames. iov[0] is the header, in the sender's own memory, 12 bytes; the rest is the Ethernet frame without its check
 * sequence, possibly in guest memory: it may change while it is looked at, so whoever judges it reads it once. The header
 * was checked (core_frame_fault) when deliver sees it. Frames live until deliver returns: copy what is kept.
 *
 * Threads. Each port has an io context (io.h) in which its own work runs: a reactor's or an iothread's; two joined ports
 * may have different ones, in one machine or two. No lock is held across a wire, hence there is no order between ports.
 *   deliver    in the sender's context, several at once (queues). It copies and returns: it locks only what is its own,
 *              never blocks, never joins, parts or frees. It may send through another port only where no way of wires
 *              leads back here: a link does so with its other end; a hub or a switch, of which loops can be built,
 *              queues and sends from its own context.
 *   ready      in the context of the port that takes again: it only posts to its own context (core_io_post).
 *   offloads   in any context: what the peer takes changed; returns at once.
 *   carrier, drive, destroy, and the functions marked (control): the control thread, which is one per machine. Ports of
 *              machines with different control threads must not be joined.
 * core_port_part returns when no call of one port is inside the other any more, and none comes again.
 *
 * Back-pressure. deliver says how many of the first frames it took (a dropped one is taken, and counted). The others stay
 * with the sender, which offers them again after ready; nothing is queued in between. A port that can wait for ever must
 * not be waited for by one that serves several: that one drops (CORE_DROP_QUEUE_FULL) instead. */
#pragma once

#include <sys/uio.h>

#include "core.h"
#include "passage.h"

enum {
    CORE_NET_HDR_SIZE = 12,            /* struct virtio_net_hdr_v1 (Virtio 1.2, 5.1.6) */
    CORE_FRAME_MAX = 65535 + 14 + 8,   /* bytes: the largest IP packet, Ethernet header, two VLAN tags */
    CORE_FRAME_PARTS = 1024,           /* iovecs with the header: what one writev takes */
    CORE_PORT_ALL_QUEUES = 0x7fffffff, /* for ready */
    CORE_NET_HDR_F_NEEDS_CSUM = 1,     /* flags */
    CORE_NET_HDR_F_DATA_VALID = 2,
    CORE_GSO_NONE = 0,
    CORE_GSO_TCPV4 = 1, /* gso_type; ECN is ored to the TCP ones */
    CORE_GSO_UDP = 3,
    CORE_GSO_TCPV6 = 4,
    CORE_GSO_UDP_L4 = 5,
    CORE_GSO_ECN = 0x80,
};

struct core_net_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers; /* little endian, as the hosts we run on */
};

struct core_frame {
    const struct iovec *iov; /* the header, then the frame */
    uint32_t count;          /* of iov */
    uint32_t size;           /* bytes of the frame, without the header */
};

static inline const struct core_net_hdr *core_frame_hdr(const struct core_frame *frame) {
    return (const struct core_net_hdr *)frame->iov[0].iov_base;
}

struct core_io;

struct core_port_ops {
    const char *name;
    int (*deliver)(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count);
    void (*ready)(struct core_port *port, uint32_t queue);    /* NULL: never waits */
    void (*carrier)(struct core_port *port, bool up);         /* what it sees of its peer; NULL: does not care */
    void (*offloads)(struct core_port *port, uint32_t takes); /* NULL: does not care */
    int (*drive)(struct core_port *port, struct core_io *io); /* work in this context from now on; NULL: has no work */
    void (*destroy)(struct core_port *port);
};

/* Somebody who is shown what passes a port, both ways, in the sender's context: as deliver, it copies and returns. */
struct core_port_watch {
    void (*passed)(struct core_port_watch *watch, bool out, const struct core_frame *frames, int count);
    struct core_port_watch *next;
};

/* Every kind of port begins with this head. */
struct core_port {
    const struct core_port_ops *ops;
    _Atomic(struct core_port *) peer;
    _Atomic(struct core_port_watch *) watch; /* usually nobody */
    struct core_passage users;               /* calls on their way from this port into its peer */
    _Atomic uint32_t takes;                  /* core_port_takes: what it understands in a header */
    _Atomic bool up;
    _Atomic uint64_t out_frames, out_bytes, in_frames, in_bytes;
    _Atomic uint64_t drop_out[CORE_DROP_COUNT], drop_in[CORE_DROP_COUNT];
};

void core_port_init(struct core_port *port, const struct core_port_ops *ops, uint32_t takes);

/* (control) Let (watch) see what passes; after core_port_unwatch returns it is not called any more. */
void core_port_watch(struct core_port *port, struct core_port_watch *watch);
void core_port_unwatch(struct core_port *port, struct core_port_watch *watch);

/* Give frames to the peer: how many of the first ones are done with. Where the peer does not understand a header, it is
 * done in software here (offload.c). In the port's own context. */
int core_port_send(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count);

/* After deliver took too few: this port takes frames again (of one queue, or CORE_PORT_ALL_QUEUES). Own context. */
void core_port_ready(struct core_port *port, uint32_t queue);

/* What this port understands in a header has changed. Any thread. */
void core_port_set_takes(struct core_port *port, uint32_t takes);

/* What the peer understands; everything when there is none. */
uint32_t core_port_peer_takes(struct core_port *port);

/* Count a frame that is lost: one that was delivered here, or one that would have been sent from here. Any thread. */
void core_port_drop_in(struct core_port *port, enum core_drop why, uint64_t bytes);
void core_port_drop_out(struct core_port *port, enum core_drop why, uint64_t frames);

/* What is wrong with a frame's size or header (a core_drop), or -1: nothing. */
int core_frame_fault(const struct core_frame *frame);

/* The first (size) bytes of the frame after (offset), copied; how many there were. */
uint32_t core_frame_copy(const struct core_frame *frame, uint32_t offset, void *to, uint32_t size);
