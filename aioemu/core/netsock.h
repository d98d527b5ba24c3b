/* netsock.h: a port whose other side is a socket: what netsock*.c share.
 *
 * A stream carries each frame behind its length, four bytes, most significant first (as QEMU's `socket` and `stream` do);
 * a datagram socket carries one frame a datagram. Who connects, listens and tries again is Python's business: here a
 * connected descriptor is attached, and its end is told by an eventfd. The other side is not trusted. */
#pragma once

#include <sys/socket.h>

#include "io.h"
#include "port.h"

enum {
    NETSOCK_LENGTH = 4,         /* bytes before a frame of a stream */
    NETSOCK_PEER_MAX = 69632,   /* bytes: the longest frame that the other side may announce (QEMU's buffer); one over
                                   CORE_FRAME_MAX is dropped, who announces more has lost the framing */
    NETSOCK_BUFFER = 256 << 10, /* bytes received at once: three of the longest frames */
    NETSOCK_BATCH = 64,         /* frames in one call */
    NETSOCK_TURNS = 8,          /* reads before others have their turn */
    NETSOCK_DATAGRAMS = 16,     /* received at once */
    NETSOCK_RETRY_MIN_NS = 200000,
    NETSOCK_RETRY_MAX_NS = 50000000,
};

struct netsock_kind;

struct core_netsock {
    struct core_port port;
    struct core_io *io;
    const struct netsock_kind *kind; /* of the descriptor that is attached; NULL: none */
    _Atomic uint32_t references;     /* the owner, and each posted call */
    _Atomic bool closed;
    struct core_io_source source;
    struct core_io_timer retry;
    int news;     /* eventfd: the connection has ended */
    int end;      /* -errno of that, 0: the other side closed it */
    bool blocked; /* what arrived waits for the NIC */
    bool ended;
    /* sending, in any context */
    pthread_mutex_t lock;
    int fd;        /* -1: none; frames are dropped */
    bool waits;    /* for room in the socket: the NIC waits with us */
    bool broken;   /* sending failed: the context ends the connection */
    uint8_t *rest; /* of a frame that was sent in part, */
    uint32_t rest_at, rest_end;
    int64_t retry_ns; /* how long to wait for a datagram socket that cannot say when it has room */
    struct sockaddr_storage to;
    socklen_t to_size; /* 0: it is connected */
    /* receiving, in the io context */
    uint8_t *buffer;
    uint32_t start, fill; /* bytes of a stream that wait; the first and the number of datagrams */
    uint32_t sizes[NETSOCK_DATAGRAMS];
};

/* What differs between streams and datagrams. */
struct netsock_kind {
    uint32_t buffer_size;
    /* Send the first of the frames, under the lock: how many, fewer where the socket has no room (waits is set then) */
    int (*send)(struct core_netsock *s, const struct core_frame *frames, int count);
    /* Receive and pass on, until there is nothing or the NIC waits (blocked). 0, or -errno, 1: it was closed. */
    int (*receive)(struct core_netsock *s);
};

extern const struct netsock_kind core_netsock_stream, core_netsock_dgram;

/* Pass what was received to the NIC: how many it took. */
int core_netsock_pass(struct core_netsock *s, const struct iovec *frames, int count);
/* netsock_stream.c: send what is left of a frame: 0 done, -EAGAIN, or another -errno. Under the lock. */
int core_netsock_send_rest(struct core_netsock *s);
