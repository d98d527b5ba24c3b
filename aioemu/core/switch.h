/* switch.h: a learning switch, or a hub. Each port has a bounded queue of frames to be sent; frames are copied once, however
 * many ports they go to, and sent from the switch's io context: loops of switches cost time, not stack. VLAN tags are
 * passed on, not looked at. A station on any port can fill the table; it then only costs floods. */
#pragma once

#include "io.h"
#include "port.h"

enum {
    SWITCH_PORTS_MAX = 1024,
    SWITCH_BUCKETS = 1024, /* of the table: 8192 stations, as small hardware has */
    SWITCH_WAYS = 8,
    SWITCH_BATCH = 64,
    SWITCH_RUN_BATCHES = 16, /* then the context's other business has its turn */
};

struct switch_frame {
    _Atomic uint32_t users;
    struct core_net_hdr hdr;
    uint32_t size;
    uint8_t data[];
};

struct switch_station {
    uint64_t mac; /* 0: free */
    uint32_t port;
    int64_t seen_ns;
};

struct switch_port {
    struct core_port port;
    struct core_switch *owner;
    uint32_t index;
    struct switch_frame **queue; /* a ring of owner->queue_frames */
    uint32_t first, count;
    uint64_t bytes;
    bool plugged; /* something is joined, and up */
    bool stalled;
    uint32_t ready_calls;
};

struct core_switch {
    struct core_io *io;
    pthread_mutex_t lock; /* of all below; nothing is sent with it held */
    bool learns, passes_reserved;
    bool posted, closing;
    uint32_t queue_frames;
    int64_t age_ns;
    uint32_t count;
    struct switch_port *ports[SWITCH_PORTS_MAX];
    struct switch_station table[SWITCH_BUCKETS][SWITCH_WAYS];
};

/* switch_table.c: with the switch's lock */
uint64_t switch_mac(const uint8_t *bytes);
void switch_learn(struct core_switch *s, uint64_t mac, uint32_t port, int64_t now_ns);
int switch_find(struct core_switch *s, uint64_t mac, int64_t now_ns); /* its port, or -1 */
void switch_forget(struct core_switch *s, uint32_t port);
