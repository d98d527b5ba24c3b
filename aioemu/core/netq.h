/* netq.h: the data path of a virtio network card (Virtio 1.2, 5.1): pairs of queues on one side, a port on the other.
 *
 * The driver's frames are sent in the card's io context, under the lock of their transmit queue; what the peer sends is
 * put into the driver's buffers in the sender's context, under the lock of the receive queue. A sender may hold a transmit
 * lock, and deliver only ever takes receive locks: there is no circle. Everything else is the control thread's. */
#pragma once

#include "io.h"
#include "port.h"
#include "virtio.h"

enum {
    NET_MAX_PAIRS = 256,  /* with the control queue they fit into what a device may have */
    NET_BATCH = 64,       /* frames taken from a queue before the peer gets them */
    NET_BUDGET = 256,     /* frames of one queue before the context's other work has its turn */
    NET_IOVECS = 4096,    /* of one batch */
    NET_MAC_ENTRIES = 64, /* of each table; a driver with more gets them all (5.1.6.5.2) */
    NET_VLANS = 4096,
};

#define NET_F_CSUM       (1ull << 0)
#define NET_F_GUEST_CSUM (1ull << 1)
#define NET_F_GUEST_TSO4 (1ull << 7)
#define NET_F_GUEST_TSO6 (1ull << 8)
#define NET_F_GUEST_ECN  (1ull << 9)
#define NET_F_GUEST_UFO  (1ull << 10)
#define NET_F_HOST_TSO4  (1ull << 11)
#define NET_F_HOST_TSO6  (1ull << 12)
#define NET_F_HOST_ECN   (1ull << 13)
#define NET_F_HOST_UFO   (1ull << 14)
#define NET_F_MRG_RXBUF  (1ull << 15)
#define NET_F_GUEST_USO4 (1ull << 54)
#define NET_F_GUEST_USO6 (1ull << 55)
#define NET_F_HOST_USO   (1ull << 56)

struct core_net;

struct net_rx {
    struct core_net *net;
    struct core_vq *q;
    uint32_t index; /* of the pair */
    struct core_io_source bell;
    /* the queue's lock */
    struct core_vchain chain;
    _Atomic bool starved; /* the peer waits for buffers */
};

struct net_tx {
    struct core_net *net;
    struct core_vq *q;
    uint32_t index;
    struct core_io_source bell;
    /* the queue's lock */
    struct core_vchain chain;
    struct core_frame frames[NET_BATCH];
    struct core_net_hdr headers[NET_BATCH];
    struct net_taken {
        uint16_t id, descriptors;
        struct core_vq_place before;
    } taken[NET_BATCH];
    struct iovec *iovecs;
    _Atomic bool blocked; /* the peer takes nothing now */
};

struct net_pair {
    struct net_rx rx;
    struct net_tx tx;
};

struct core_net {
    struct core_port port;
    struct core_virtio *virtio;
    pthread_mutex_t wake_lock;
    struct core_io *io; /* under wake_lock */
    uint32_t max_pairs;
    _Atomic uint32_t pairs;       /* in use */
    _Atomic bool held;            /* the machine stands still */
    bool waking;                  /* a wake-up is posted; under wake_lock */
    bool was_joined, announces;   /* the control thread's */
    pthread_rwlock_t filter_lock; /* read for a batch; who writes goes first */
    core_net_filter filter;
    struct net_pair *all;
    struct iovec *iovecs; /* of all pairs */
};

/* netq_tx.c: send what the driver put there: whether there was something. In the io context. */
bool net_transmit(struct net_tx *tx);
/* netq_rx.c */
int net_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count);
/* netq_filter.c: whether the driver wants this frame; (head) are its first bytes. With the filter's lock. */
bool net_wants(const struct core_net *net, const uint8_t *head);
