/* vring.c: the queue engine: chains out of guest memory, checked and copied before use, and back to the driver.
 * The guest is hostile: a ring that cannot be stops its device (NEEDS_RESET), nothing else. Reactor or iothread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio.h"

/* The host's bytes at (gpa), and how many follow (*run); NULL where no memory is, or none that a device may write. */
static uint8_t *ram_run(core_machine *m, uint64_t gpa, uint64_t *run, bool writable) {
    for (uint32_t i = 0; m && i < CORE_MAX_RAM; i++) {
        const struct core_ram *ram = &m->ram[i];
        if (ram->used && gpa >= ram->gpa && gpa - ram->gpa < ram->size) {
            *run = ram->size - (gpa - ram->gpa);
            return writable && (ram->flags & CORE_RAM_READONLY) ? NULL : ram->host + (gpa - ram->gpa);
        }
    }
    return NULL;
}

static bool is_ram(core_machine *m, uint64_t gpa, uint64_t size, bool writable) {
    if (gpa + size < gpa) {
        return false;
    }
    for (uint64_t run = 0; size; gpa += run, size -= run) {
        if (!ram_run(m, gpa, &run, writable)) {
            return false;
        }
        run = run < size ? run : size;
    }
    return true;
}

static uint8_t *ring_ptr(core_machine *m, uint64_t gpa, uint64_t size, bool writable) {
    uint64_t run = 0;
    uint8_t *ptr = ram_run(m, gpa, &run, writable);
    return ptr && run >= size ? ptr : NULL;
}

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
    q->desc_ptr = ring_ptr(m, q->desc, 16ull * q->size, packed);
    q->driver_ptr = ring_ptr(m, q->driver, driver, false);
    q->device_ptr = ring_ptr(m, q->device, device, true);
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

/* ---- building a chain ------------------------------------------------------------------------------------------------ */

int vq_add(struct core_vq *q, struct core_vchain *chain, uint64_t gpa, uint32_t size, bool writable) {
    if (size == 0) {
        return 0; /* nothing to read or write there */
    }
    if (!writable && chain->writable) {
        return vq_fail(q, "a readable descriptor follows a writable one");
    }
    if (chain->readable + chain->writable + size > UINT32_MAX) {
        return vq_fail(q, "a chain is longer than 4 GiB");
    }
    if (!is_ram(q->virtio->chip.machine, gpa, size, writable)) {
        return vq_fail(q, "a buffer is not in memory");
    }
    if (chain->count == chain->room) {
        uint32_t room = chain->room ? 2 * chain->room : 4;
        core_vseg *more = room > VIRTIO_MAX_SEGMENTS ? NULL : realloc(chain->segments, room * sizeof *more);
        if (!more) {
            return vq_fail(q, "a chain has too many descriptors");
        }
        chain->segments = more;
        chain->room = room;
    }
    chain->segments[chain->count++] = (core_vseg){.gpa = gpa, .size = size, .writable = writable};
    *(writable ? &chain->writable : &chain->readable) += size;
    return 0;
}

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

struct table_entry {
    uint64_t gpa;
    uint32_t size;
    uint16_t flags, next; /* split; a packed table has the id first, and its flags where `next` is */
};

/* An indirect table: (linked) by next as in a split ring, or in order as in a packed one (2.7.5.3, 2.8.7). */
int vq_indirect(struct core_vq *q, struct core_vchain *chain, uint64_t table, uint32_t size, bool linked) {
    if (size == 0 || size % sizeof(struct table_entry) || !virtio_has(q->virtio, VIRTIO_F_INDIRECT)) {
        return vq_fail(q, "an indirect table of a size that cannot be");
    }
    const uint8_t *entries = ring_ptr(q->virtio->chip.machine, table, size, false);
    uint32_t count = size / (uint32_t)sizeof(struct table_entry);
    if (!entries || table + size < table || count > VIRTIO_MAX_SEGMENTS) {
        return vq_fail(q, "an indirect table is not in memory or too long");
    }
    uint32_t at = 0;
    for (uint32_t n = 0; n < count; n++) {
        struct table_entry e;
        virtio_take(&e, entries + at * sizeof e, sizeof e);
        uint16_t flags = linked ? e.flags : e.next;
        if (flags & DESC_INDIRECT) {
            return vq_fail(q, "an indirect table within an indirect table");
        }
        int rc = vq_add(q, chain, e.gpa, e.size, flags & DESC_WRITE);
        if (rc < 0 || (linked && !(flags & DESC_NEXT))) {
            return rc;
        }
        at = linked ? e.next : at + 1;
        if (linked && at >= count) {
            return vq_fail(q, "a descriptor's next is outside its table");
        }
    }
    return linked ? vq_fail(q, "a chain is a loop") : 0;
}

/* ---- what devices call ----------------------------------------------------------------------------------------------- */

static struct core_vq *queue_of(core_chip *virtio, uint32_t queue) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    return queue < v->queue_count ? &v->queues[queue] : NULL;
}

/* The chain in (slot), if it is still out. */
static struct core_vchain *chain_of(struct core_vq *q, uint32_t slot, uint32_t epoch) {
    if (!atomic_load(&q->ready) || epoch != q->epoch || slot >= q->size || !q->chains[slot].busy) {
        return NULL;
    }
    return &q->chains[slot];
}

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

static int pop_new(struct core_vq *q) {
    if (q->free_count == 0) {
        return 0; /* every place of the ring is out: there cannot be more */
    }
    if (vq_map(q) < 0) {
        return -EPROTO;
    }
    struct core_vchain *chain = next_slot(q);
    int rc = virtio_has(q->virtio, VIRTIO_F_PACKED) ? vq_packed_pop(q, chain) : vq_split_pop(q, chain);
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
    struct core_vq *q = queue_of(virtio, queue);
    if (!q) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    int rc = pop(q, info);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int core_vq_segments(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, core_vseg *segments, int max) {
    struct core_vq *q = queue_of(virtio, queue);
    if (!q || max < 0) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    const struct core_vchain *chain = chain_of(q, slot, epoch);
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

/* Copy (size) bytes at (offset) of the chain's readable or writable part; how many there were. */
static int64_t copy(struct core_vq *q, const struct core_vchain *chain, bool write, uint64_t offset, uint8_t *data,
                    uint64_t size) {
    uint64_t done = 0;
    for (uint32_t i = 0; i < chain->count && done < size; i++) {
        const core_vseg *s = &chain->segments[i];
        if (s->writable != write) {
            continue;
        }
        if (offset >= s->size) {
            offset -= s->size;
            continue;
        }
        uint64_t part = s->size - offset, gpa = s->gpa + offset;
        part = part < size - done ? part : size - done;
        offset = 0;
        for (uint64_t run = 0; part; part -= run, gpa += run, done += run) {
            uint8_t *host = ram_run(q->virtio->chip.machine, gpa, &run, write);
            if (!host) {
                return (int64_t)done; /* memory was taken away meanwhile */
            }
            run = run < part ? run : part;
            memcpy(write ? host : data + done, write ? data + done : host, run);
            if (write) {
                core_ram_written(q->virtio->chip.machine, gpa, run);
            }
        }
    }
    return (int64_t)done;
}

static int64_t copy_locked(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, bool write,
                           uint64_t offset, uint8_t *data, uint64_t size) {
    struct core_vq *q = queue_of(virtio, queue);
    if (!q) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    const struct core_vchain *chain = chain_of(q, slot, epoch);
    int64_t done = chain ? copy(q, chain, write, offset, data, size) : -ESTALE;
    pthread_mutex_unlock(&q->lock);
    return done;
}

int64_t core_vq_read(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, uint64_t offset, uint8_t *data,
                     uint64_t size) {
    return copy_locked(virtio, queue, slot, epoch, false, offset, data, size);
}

int64_t core_vq_write(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, uint64_t offset,
                      const uint8_t *data, uint64_t size) {
    return copy_locked(virtio, queue, slot, epoch, true, offset, (uint8_t *)data, size);
}

/* Give a chain back; the driver sees it after core_vq_flush. -ESTALE: the queue was reset meanwhile. */
int core_vq_push(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, uint64_t written) {
    struct core_vq *q = queue_of(virtio, queue);
    if (!q) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    struct core_vchain *chain = chain_of(q, slot, epoch);
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
    struct core_vq *q = queue_of(virtio, queue);
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
