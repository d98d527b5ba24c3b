/* link.h: a link of two ends, each a port, and a lane for each direction.
 *
 * A lane that does nothing to its frames passes them on in the sender's context, as they are: nothing is copied here,
 * and back-pressure goes through. Any other lane takes every frame: it is judged (link_impair.c), recorded (capture.c),
 * copied once, and sent on by the link's io context when it is due. What the receiver does not take then waits here,
 * bounded. Control thread: everything that is named core_link_*. */
#pragma once

#include "capture.h"
#include "io.h"
#include "link_impair.h"
#include "port.h"

enum {
    LINK_TAPS = 8,                   /* captures at one place of a lane */
    LINK_BACKLOG_BYTES = 256 << 20,  /* on their way in one direction: 200 ms of 10 Gbit/s */
    LINK_BACKLOG_FRAMES = 256 << 10, /* the same for small ones */
    LINK_BATCH = 64,                 /* frames sent at once */
};

/* A frame on its way. */
struct link_frame {
    int64_t due_ns;
    uint64_t order; /* among those due at the same time */
    struct link_frame *next;
    struct core_net_hdr hdr;
    uint32_t size;
    bool seen; /* by the taps at the far end */
    uint8_t data[];
};

/* link_queue.c: frames by time, then those that are due in the order of their times. */
struct link_queue {
    struct link_frame **heap;
    uint32_t count, room;
    struct link_frame *ripe, **ripe_end;
    uint64_t orders, frames, bytes; /* frames, bytes: in the heap and ripe */
};

void link_queue_init(struct link_queue *q);
/* Copy a frame to be due at (due_ns); NULL when there is no room. */
struct link_frame *link_queue_add(struct link_queue *q, const struct core_frame *frame, int64_t due_ns);
void link_queue_ripen(struct link_queue *q, int64_t now_ns);
/* Take up to (max) ripe frames; give back what nobody took, in their order. */
int link_queue_take(struct link_queue *q, struct link_frame **frames, int max);
void link_queue_give_back(struct link_queue *q, struct link_frame **frames, int count);
int64_t link_queue_next(const struct link_queue *q); /* when the next is due; INT64_MAX: none, 0: some are ripe */
uint64_t link_queue_clear(struct link_queue *q);     /* how many there were */
void link_queue_free(struct link_queue *q);

enum { TAP_ENTRY, TAP_EXIT, TAP_PLACES };

struct lane {
    struct core_link *link;
    uint32_t index;
    pthread_mutex_t lock; /* of all below but what is atomic; nothing is sent with it held */
    _Atomic bool direct;
    struct core_passage users; /* senders that pass frames on directly at this moment */
    struct core_impair_state impair;
    bool impaired;
    struct link_queue queue;
    struct core_tap taps[TAP_PLACES][LINK_TAPS];
    uint32_t tap_count;
    bool stalled;         /* the receiver took no more: wait for its ready */
    bool impatient;       /* ... but not any longer: take what comes and drop what is too much */
    bool running;         /* somebody empties the queue */
    uint32_t ready_calls; /* of the receiver */
    _Atomic bool waiting; /* a direct sender was told to wait */
    _Atomic bool watched; /* ... and the patience timer is set, or will be */
    _Atomic int64_t waiting_since_ns;
    bool moving;      /* to another context: no timer is set meanwhile */
    int64_t armed_ns; /* what the timer is, or will be, set to */
    struct core_io_timer timer, patience;
    _Atomic uint64_t passed, passed_bytes; /* directly */
    core_link_counts counts;
};

struct link_end {
    struct core_port port;
    struct core_link *link;
    uint32_t index;
};

struct core_link {
    struct link_end ends[2];
    struct lane lanes[2]; /* lane i leads from end i to the other one */
    struct core_io *io;   /* changed under the locks of both lanes */
    _Atomic bool up;
    bool alive[2]; /* who is at each end is switched on; control thread */
};

/* link_lane.c */
void lane_init(struct lane *lane, struct core_link *link, uint32_t index);
void lane_free(struct lane *lane);
int lane_deliver(struct lane *lane, uint32_t queue, const struct core_frame *frames, int count);
/* The receiver takes again; any thread. */
void lane_ready(struct lane *lane);
/* With the lock: bring `direct` up to date. After the lock is released, lane_settle waits for direct senders to be out. */
void lane_update(struct lane *lane);
void lane_settle(struct lane *lane);
void lane_leave(struct lane *lane);                      /* its context: no timer is set from now on */
void lane_detach(struct lane *lane, struct core_io *io); /* from its context */
void lane_attach(struct lane *lane);                     /* to the link's: go on there */
