/* tap_internal.h: a TAP device's port in three parts: tap.c (the port), tap_read.c (frames from the host) and tap_write.c
 * (frames to the host). */
#pragma once

#include "io.h"
#include "port.h"

enum {
    TAP_BATCH = 16, /* frames read before the peer gets them: it works on them while the next are read */
    TAP_ROOM = CORE_NET_HDR_SIZE + CORE_FRAME_MAX,
    TAP_ARENA = 4 * TAP_ROOM, /* small frames lie close together, and four of the largest fit */
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
    uint32_t sent_seen;
    bool resting; /* the descriptor is not watched: the timer looks again */
    struct core_io_timer again;
    struct {
        int64_t since_ns;
        uint32_t came, sent; /* frames: since then, and what was sent until then */
    } span;
    /* the sender's that has set writing */
    struct tap_ring *ring;
    uint32_t ring_batches; /* so many more go through the ring */
    bool no_ring;          /* the host has none for this */
    /* any thread's */
    _Atomic bool writing;
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
    _Atomic uint32_t sent;     /* frames so far */
    struct core_net_hdr plain; /* of frames that come without a header */
    struct tap_queue *queues;
};

/* tap.c: the device is gone: no descriptor of it will ever do again. */
void tap_lose(struct tap *t);
/* tap_read.c: with `fd` known: the source's callbacks, the timer's, and the arena, which tap.c frees. -ENOMEM. */
int tap_reader_init(struct tap_queue *q);
/* tap_write.c: how many of the first frames were done with; 0: the host takes nothing now. */
int tap_write(struct tap_queue *q, const struct core_frame *frames, int count);
void tap_ring_free(struct tap_queue *q);
/* tap_read.c: watch the descriptor for what is waited for now. */
void tap_watch(struct tap_queue *q);
/* Give the peer what was read: whether it took all. */
bool tap_hand_on(struct tap_queue *q);
/* The context does not serve it any more. */
void tap_leave(struct tap_queue *q);
