/* virtio.h: a virtio device's transport state and its queues, as the C files of the core see them. Any thread may take
 * chains from a queue, one at a time (its lock); the order of locks is device, queue, line. */
#pragma once

#include "core.h"

enum {
    VIRTIO_MAX_QUEUES = 1024,
    VIRTIO_MAX_SIZE = 1024,     /* entries of a ring: what QEMU offers at most; keeps what a guest can bind small */
    VIRTIO_MAX_SEGMENTS = 1024, /* of one chain, indirect or not: also what one readv takes */
    VIRTIO_MAX_CONFIG = 0x1000, /* bytes: the device's page of the BAR */
    VIRTIO_NO_VECTOR = 0xffff,
};

/* Device status (Virtio 1.2, 2.1) and interrupt status (4.1.4.5, 4.2.2). */
enum { VIRTIO_DRIVER_OK = 0x04, VIRTIO_FEATURES_OK = 0x08, VIRTIO_NEEDS_RESET = 0x40, VIRTIO_STATUS_BITS = 0xcf };
enum { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };

#define VIRTIO_F_INDIRECT  (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_F_PACKED    (1ull << 34)
#define VIRTIO_F_RESET     (1ull << 40) /* VIRTIO_F_RING_RESET: queues by themselves */

/* One chain that the device has and the driver waits for: copied from guest memory once, so the guest cannot change it. */
struct core_vchain {
    core_vseg *segments;
    uint32_t count, room;
    uint64_t readable, writable; /* bytes */
    uint16_t id;                 /* head index (split) or buffer id (packed) */
    uint16_t descriptors;        /* places in the ring (packed) */
    bool busy;
};

struct core_vq {
    pthread_mutex_t lock;
    struct core_virtio *virtio;
    uint16_t index, max;
    /* as the driver wrote them; in force from enabling on (device's lock) */
    uint16_t size;
    uint64_t desc, driver, device;
    _Atomic uint16_t vector;
    _Atomic bool ready;
    _Atomic int kick_fd; /* rung instead of the reactor; -1 = none */
    /* the engine's own (queue's lock) */
    uint32_t epoch; /* chains of another one are void */
    uint16_t avail, used;
    bool avail_wrap, used_wrap, armed;
    bool polled; /* its device listens when it wants to (vq_listen): taking the last chain does not */
    uint32_t unsignalled;
    uint16_t held_at, held_flags; /* packed: the first that is not published */
    uint16_t free_count, redo_count, redo_next;
    struct core_vchain *chains;
    uint16_t *free_slots, *redo;
    uint8_t *desc_ptr, *driver_ptr, *device_ptr; /* found anew by each call */
};

struct core_virtio {
    struct core_chip chip;
    pthread_mutex_t lock, line_lock;
    uint32_t device_id, queue_count, config_size;
    uint64_t offered;
    _Atomic uint64_t accepted;
    uint32_t device_select, driver_select, queue_select;
    _Atomic uint32_t status, isr, generation;
    _Atomic uint16_t config_vector;
    _Atomic(const char *) error; /* why it needs a reset */
    _Atomic bool intx_off;
    _Atomic uint64_t kicked[VIRTIO_MAX_QUEUES / 64];
    struct core_chip *msix, *function; /* PCI only */
    uint8_t *config;
    struct core_vq *queues;
};

static inline bool virtio_has(const struct core_virtio *v, uint64_t feature) {
    return atomic_load_explicit(&v->accepted, memory_order_relaxed) & feature;
}

static inline bool virtio_runs(struct core_virtio *v) {
    uint32_t status = atomic_load(&v->status);
    return (status & VIRTIO_DRIVER_OK) && !(status & VIRTIO_NEEDS_RESET);
}

/* Copy out of guest memory once: what the guest changes afterwards is not seen. */
static inline void virtio_take(void *to, const uint8_t *from, uint32_t size) {
    __builtin_memcpy(to, from, size);
    __asm__ volatile("" ::: "memory");
}

/* virtio.c */
void virtio_break(struct core_virtio *v, const char *why); /* NEEDS_RESET; any thread */
void virtio_signal_queue(struct core_virtio *v, struct core_vq *q);
void virtio_kick(struct core_virtio *v, uint32_t queue); /* the driver says that there is something */
void virtio_acknowledge(struct core_virtio *v, uint32_t bits);
void virtio_update_line(struct core_virtio *v);
/* virtio_state.c */
int virtio_state_size(struct core_chip *chip);
int virtio_save(struct core_chip *chip, uint8_t *state);
int virtio_load(struct core_chip *chip, const uint8_t *state);
/* vring.c; with the queue's lock unless said otherwise */
int vq_enable(struct core_vq *q); /* takes the lock; breaks the device when the rings cannot be */
int vq_start(struct core_vq *q);
void vq_disable(struct core_vq *q);
void vq_free(struct core_vq *q);
int vq_map(struct core_vq *q);
int vq_add(struct core_vq *q, struct core_vchain *chain, uint64_t gpa, uint32_t size, bool writable);
int vq_fail(struct core_vq *q, const char *why); /* -EPROTO */
void vq_written(const struct core_vq *q, uint64_t gpa, uint32_t size);
void vq_describe(const struct core_vq *q, uint16_t slot, core_vchain_info *info);
/* The next free slot becomes a chain that is out and comes again; there is a free one. */
int vq_put_back(struct core_vq *q, uint16_t id, uint16_t descriptors, const core_vseg *segments, uint32_t count);
/* vring_data.c */
bool vq_is_ram(core_machine *m, uint64_t gpa, uint64_t size, bool writable);
uint8_t *vq_ring_ptr(core_machine *m, uint64_t gpa, uint64_t size,
                     bool writable); /* all of it in one memory, or NULL */
struct core_vq *vq_of(core_chip *virtio, uint32_t queue);
struct core_vchain *vq_chain(struct core_vq *q, uint32_t slot, uint32_t epoch); /* if it is still out */
/* vring_split.c, vring_packed.c; with the rings found (vq_map). How many chains wait (a packed ring: 1 for any), or
 * -EPROTO. Take one that waits: 1, or -EPROTO. Arm: ask to be told of the next chain, or not to be. */
int vq_split_waiting(struct core_vq *q);
int vq_split_take(struct core_vq *q, struct core_vchain *chain);
void vq_split_arm(struct core_vq *q, bool on);
void vq_split_push(struct core_vq *q, uint16_t id, uint32_t written);
bool vq_split_publish(struct core_vq *q); /* whether the driver wants an interrupt */
int vq_packed_waiting(const struct core_vq *q);
int vq_packed_take(struct core_vq *q, struct core_vchain *chain);
void vq_packed_arm(struct core_vq *q, bool on);
void vq_packed_push(struct core_vq *q, uint16_t id, uint16_t descriptors, uint32_t written);
bool vq_packed_publish(struct core_vq *q);
int vq_indirect(struct core_vq *q, struct core_vchain *chain, uint64_t table, uint32_t size, bool linked);
/* vring_batch.c: for devices whose data path is native: many chains with one lock and one look for the rings. Nothing
 * is out between two batches, so nothing is kept of a chain but what its owner copies. */
bool vq_open(struct core_vq *q);   /* locks; false, unlocked: it cannot be used now, or is broken */
void vq_close(struct core_vq *q);  /* shows the driver what was given back, unlocks, interrupts if that is wanted */
int vq_waiting(struct core_vq *q); /* chains, or any (packed); 0 none; -EPROTO */
int vq_take(struct core_vq *q,
            struct core_vchain *chain); /* the next one, into a chain of the caller's: 1, or -EPROTO */
void vq_give(struct core_vq *q, uint16_t id, uint16_t descriptors, uint32_t written);
/* Be told of the next chain, or not. True: one waits already. */
bool vq_listen(struct core_vq *q);
void vq_ignore(struct core_vq *q);
struct core_vq_place {
    uint16_t avail;
    bool wrap;
};
static inline struct core_vq_place vq_place(const struct core_vq *q) {
    return (struct core_vq_place){.avail = q->avail, .wrap = q->avail_wrap};
}
static inline void vq_return(struct core_vq *q, struct core_vq_place at) { /* chains taken since were not taken */
    q->avail = at.avail;
    q->avail_wrap = at.wrap;
}
/* The host's bytes at (gpa), and how many follow; NULL where no memory is, or none that may be written. */
uint8_t *vq_bytes(core_machine *m, uint64_t gpa, uint64_t *run, bool writable);
