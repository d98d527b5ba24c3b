/* vring.c: the queue engine: chains out of guest memory, checked and copied before use, and back to the driver.
 * The guest is hostile: a ring that cannot be stops its device (NEEDS_RESET), nothing else. Reactor or iothread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio.h"

int vq_fail(struct core_vq *q, const char *why) {
    virtio_break(q->virtio, why);
    return -EPROTO;
}

void vq_written(const struct core_vq *q, uint64_t gpa, uint32_t size) {
    core_ram_written(q->virtio->chip.machine, gpa, size);
}

/* Find the three areas in host memory. The guest's memory may have changed since the last time. */
int vq_map(struct core_vq *q) {
    core_machine *m = q->virtio->chip.machine;
    bool packed = virtio_has(q->virtio, VIRTIO_F_PACKED), events = virtio_has(q->virtio, VIRTIO_F_EVENT_IDX);
    uint64_t driver = packed ? 4 : 4 + 2ull * q->size + 2 * events;
    uint64_t device = packed ? 4 : 4 + 8ull * q->size + 2 * events;
    q->desc_ptr = vq_ring_ptr(m, q->desc, 16ull * q->size, packed);
    q->driver_ptr = vq_ring_ptr(m, q->driver, driver, false);
    q->device_ptr = vq_ring_ptr(m, q->device, device, true);
    return q->desc_ptr && q->driver_ptr && q->device_ptr ? 0 : vq_fail(q, "a ring is not in memory");
}

/* ---- enabling ------------------------------------------------------------------------------------------------------- */

static int check_shape(struct core_vq *q) {
    bool packed = virtio_has(q->virtio, VIRTIO_F_PACKED);
    if (q->size == 0 || q->size > q->max || (!packed && (q->size & (q->size - 1)))) {
        return vq_fail(q, "queue size");
    }
    if (q->desc % 16 || q->driver % (packed ? 4 : 2) || q->device % 4) {
        return vq_fail(q, "a ring is not aligned");
    }
    return vq_map(q);
}

static int make_slots(struct core_vq *q) {
    q->chains = calloc(q->size, sizeof *q->chains);
    q->free_slots = calloc(q->size, sizeof *q->free_slots);
    q->redo = calloc(q->size, sizeof *q->redo);
    if (!q->chains || !q->free_slots || !q->redo) {
        return vq_fail(q, "out of memory");
    }
    for (uint16_t i = 0; i < q->size; i++) {
        q->free_slots[i] = (uint16_t)(q->size - 1 - i);
    }
    q->free_count = q->size;
    return 0;
}

static void free_slots(struct core_vq *q) {
    for (uint32_t i = 0; q->chains && i < q->size; i++) {
        free(q->chains[i].segments);
    }
    free(q->chains);
    free(q->free_slots);
    free(q->redo);
    q->chains = NULL;
    q->free_slots = q->redo = NULL;
    q->free_count = q->redo_count = q->redo_next = 0;
}

/* Begin at the start of the rings, wherever they are. */
int vq_start(struct core_vq *q) {
    int rc = make_slots(q);
    if (rc < 0) {
        free_slots(q);
        return rc;
    }
    q->epoch++;
    q->avail = q->used = 0;
    q->avail_wrap = q->used_wrap = q->armed = true;
    q->unsignalled = 0;
    atomic_store(&q->ready, true);
    return 0;
}

int vq_enable(struct core_vq *q) {
    pthread_mutex_lock(&q->lock);
    int rc = atomic_load(&q->ready) ? -EEXIST : check_shape(q);
    if (rc == 0) {
        rc = vq_start(q);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

/* Chains that are out are void from now on: completing one does nothing. */
void vq_disable(struct core_vq *q) {
    pthread_mutex_lock(&q->lock);
    atomic_store(&q->ready, false);
    q->epoch++;
    free_slots(q);
    pthread_mutex_unlock(&q->lock);
}

void vq_free(struct core_vq *q) {
    free_slots(q);
    pthread_mutex_destroy(&q->lock);
}

/* ---- what devices call ----------------------------------------------------------------------------------------------- */

void vq_describe(const struct core_vq *q, uint16_t slot, core_vchain_info *info) {
    const struct core_vchain *chain = &q->chains[slot];
    *info = (core_vchain_info){.slot = slot,
                               .epoch = q->epoch,
                               .id = chain->id,
                               .descriptors = chain->descriptors,
                               .segments = chain->count,
                               .readable = chain->readable,
                               .writable = chain->writable};
}

/* An empty chain in the next free slot; take_slot makes it one that is out. */
static struct core_vchain *next_slot(struct core_vq *q) {
    struct core_vchain *chain = &q->chains[q->free_slots[q->free_count - 1]];
    chain->count = 0;
    chain->readable = chain->writable = 0;
    chain->descriptors = 1;
    return chain;
}

static uint16_t take_slot(struct core_vq *q) {
    uint16_t slot = q->free_slots[--q->free_count];
    q->chains[slot].busy = true;
    return slot;
}

int vq_put_back(struct core_vq *q, uint16_t id, uint16_t descriptors, const core_vseg *segments, uint32_t count) {
    struct core_vchain *chain = next_slot(q);
    for (uint32_t i = 0; i < count; i++) {
        if (vq_add(q, chain, segments[i].gpa, segments[i].size, segments[i].writable) < 0) {
            return -EINVAL;
        }
    }
    chain->id = id;
    chain->descriptors = descriptors;
    q->redo[q->redo_count++] = take_slot(q);
    return 0;
}

static void arm(struct core_vq *q, bool on) {
    if (virtio_has(q->virtio, VIRTIO_F_PACKED)) {
        vq_packed_arm(q, on);
    } else {
        vq_split_arm(q, on);
    }
}

int vq_waiting(struct core_vq *q) {
    return virtio_has(q->virtio, VIRTIO_F_PACKED) ? vq_packed_waiting(q) : vq_split_waiting(q);
}

int vq_take(struct core_vq *q, struct core_vchain *chain) {
    chain->count = 0;
    chain->readable = chain->writable = 0;
    chain->descriptors = 1;
    return virtio_has(q->virtio, VIRTIO_F_PACKED) ? vq_packed_take(q, chain) : vq_split_take(q, chain);
}

bool vq_listen(struct core_vq *q) {
    if (!q->armed) {
        arm(q, true);
    }
    return vq_waiting(q) != 0;
}

void vq_ignore(struct core_vq *q) {
    if (q->armed) {
        arm(q, false);
    }
}

static int pop_new(struct core_vq *q) {
    if (q->free_count == 0) {
        return 0; /* every place of the ring is out: there cannot be more */
    }
    if (vq_map(q) < 0) {
        return -EPROTO;
    }
    int count = vq_waiting(q);
    if (count == 0 && !q->polled && vq_listen(q)) {
        count = vq_waiting(q);
    }
    if (count <= 0) {
        return count;
    }
    vq_ignore(q);
    int rc = vq_take(q, &q->chains[q->free_slots[q->free_count - 1]]);
    return rc <= 0 ? rc : take_slot(q) + 1;
}

static int pop(struct core_vq *q, core_vchain_info *info) {
    if (!atomic_load(&q->ready) || !virtio_runs(q->virtio)) {
        return 0;
    }
    if (q->redo_next < q->redo_count) {
        vq_describe(q, q->redo[q->redo_next++], info);
        return 1;
    }
    int rc = pop_new(q);
    if (rc > 0) {
        vq_describe(q, (uint16_t)(rc - 1), info);
    }
    return rc < 0 ? rc : rc > 0;
}

/* The next chain: 1 and *info; 0 none, and the driver will ring when there is one; -EPROTO the ring is broken. */
int core_vq_pop(core_chip *virtio, uint32_t queue, core_vchain_info *info) {
    struct core_vq *q = vq_of(virtio, queue);
    if (!q) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    int rc = pop(q, info);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int core_vq_segments(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, core_vseg *segments, int max) {
    struct core_vq *q = vq_of(virtio, queue);
    if (!q || max < 0) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    const struct core_vchain *chain = vq_chain(q, slot, epoch);
    int count = -ESTALE;
    if (chain) {
        count = (int)chain->count < max ? (int)chain->count : max;
        if (count) {
            memcpy(segments, chain->segments, (size_t)count * sizeof *segments);
        }
    }
    pthread_mutex_unlock(&q->lock);
    return count;
}

/* Give a chain back; the driver sees it after core_vq_flush. -ESTALE: the queue was reset meanwhile. */
int core_vq_push(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, uint64_t written) {
    struct core_vq *q = vq_of(virtio, queue);
    if (!q) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    struct core_vchain *chain = vq_chain(q, slot, epoch);
    int rc = !chain ? -ESTALE : virtio_runs(q->virtio) ? vq_map(q) : -EPROTO;
    if (rc == 0) {
        uint32_t size = (uint32_t)(written < chain->writable ? written : chain->writable);
        if (virtio_has(q->virtio, VIRTIO_F_PACKED)) {
            vq_packed_push(q, chain->id, chain->descriptors, size);
        } else {
            vq_split_push(q, chain->id, size);
        }
        chain->busy = false;
        q->free_slots[q->free_count++] = (uint16_t)slot;
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

/* Show the driver what was given back since the last time, and interrupt it if it wants that. */
int core_vq_flush(core_chip *virtio, uint32_t queue) {
    struct core_vq *q = vq_of(virtio, queue);
    if (!q) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    bool signal = false;
    if (atomic_load(&q->ready) && q->unsignalled && virtio_runs(q->virtio) && vq_map(q) == 0) {
        signal = virtio_has(q->virtio, VIRTIO_F_PACKED) ? vq_packed_publish(q) : vq_split_publish(q);
    }
    pthread_mutex_unlock(&q->lock);
    if (signal) {
        virtio_signal_queue(q->virtio, q);
    }
    return signal;
}
