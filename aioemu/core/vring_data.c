/* vring_data.c: guest memory as the queue engine reaches it: where rings are, and bytes in and out of chains. Addresses
 * are checked against the memory that there is at each call; what is no memory, or no writable one, is not touched. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "virtio.h"

enum { VIRTIO_PAGE = 4096 }; /* of a balloon, whatever the processor's pages are (5.5.6) */

uint8_t *vq_bytes(core_machine *m, uint64_t gpa, uint64_t *run, bool writable) {
    for (uint32_t i = 0; m && i < CORE_MAX_RAM; i++) {
        const struct core_ram *ram = &m->ram[i];
        if (ram->used && gpa >= ram->gpa && gpa - ram->gpa < ram->size) {
            *run = ram->size - (gpa - ram->gpa);
            return writable && (ram->flags & CORE_RAM_READONLY) ? NULL : ram->host + (gpa - ram->gpa);
        }
    }
    return NULL;
}

bool vq_is_ram(core_machine *m, uint64_t gpa, uint64_t size, bool writable) {
    if (gpa + size < gpa) {
        return false;
    }
    for (uint64_t run = 0; size; gpa += run, size -= run) {
        if (!vq_bytes(m, gpa, &run, writable)) {
            return false;
        }
        run = run < size ? run : size;
    }
    return true;
}

uint8_t *vq_ring_ptr(core_machine *m, uint64_t gpa, uint64_t size, bool writable) {
    uint64_t run = 0;
    uint8_t *ptr = vq_bytes(m, gpa, &run, writable);
    return ptr && run >= size ? ptr : NULL;
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
    if (!vq_is_ram(q->virtio->chip.machine, gpa, size, writable)) {
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
    const uint8_t *entries = vq_ring_ptr(q->virtio->chip.machine, table, size, false);
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

/* Give the host back the memory behind whole pages of [gpa, +size): they read zero from then on, wherever the memory's
 * file is mapped. How many bytes were given back, or -errno. */
int64_t core_ram_discard(core_machine *m, uint64_t gpa, uint64_t size) {
    uint64_t done = 0;
    if (gpa % VIRTIO_PAGE || size % VIRTIO_PAGE || !vq_is_ram(m, gpa, size, true)) {
        return -EINVAL;
    }
    for (uint64_t run = 0; done < size; done += run) {
        uint8_t *host = vq_bytes(m, gpa + done, &run, true);
        run = run < size - done ? run : size - done;
        if (!host || madvise(host, run, MADV_REMOVE) < 0) {
            return done ? (int64_t)done : -errno;
        }
        core_ram_written(m, gpa + done, run);
    }
    return (int64_t)done;
}

int64_t core_virtio_discard(core_chip *virtio, uint64_t gpa, uint64_t size) {
    return virtio->machine ? core_ram_discard(virtio->machine, gpa, size) : -ENODEV;
}

/* ---- chains by queue, slot and epoch ---------------------------------------------------------------------------------------- */

struct core_vq *vq_of(core_chip *virtio, uint32_t queue) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    return queue < v->queue_count ? &v->queues[queue] : NULL;
}

/* The chain in (slot), if it is still out. */
struct core_vchain *vq_chain(struct core_vq *q, uint32_t slot, uint32_t epoch) {
    if (!atomic_load(&q->ready) || epoch != q->epoch || slot >= q->size || !q->chains[slot].busy) {
        return NULL;
    }
    return &q->chains[slot];
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
            uint8_t *host = vq_bytes(q->virtio->chip.machine, gpa, &run, write);
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
    struct core_vq *q = vq_of(virtio, queue);
    if (!q) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->lock);
    const struct core_vchain *chain = vq_chain(q, slot, epoch);
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
