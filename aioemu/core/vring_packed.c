/* vring_packed.c: packed virtqueues (Virtio 1.2, 2.8). The flags say whose a descriptor is; they are read first, and
 * everything once. */
#include <string.h>

#include "virtio.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };

struct desc {
    uint64_t gpa;
    uint32_t size;
    uint16_t id, flags;
};

static uint16_t load16(const uint8_t *at) {
    return __atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE);
}

static void store16(uint8_t *at, uint16_t value) {
    __atomic_store_n((uint16_t *)at, value, __ATOMIC_RELEASE);
}

static void advance(const struct core_vq *q, uint16_t *at, bool *wrap, uint16_t count) {
    *at = (uint16_t)(*at + count); /* both at most 1024 */
    if (*at >= q->size) {
        *at = (uint16_t)(*at - q->size);
        *wrap = !*wrap;
    }
}

int vq_packed_waiting(const struct core_vq *q) {
    uint16_t flags = load16(q->desc_ptr + 16u * q->avail + 14);
    return !!(flags & AVAIL) == q->avail_wrap && !!(flags & USED) != q->avail_wrap;
}

void vq_packed_arm(struct core_vq *q, bool on) {
    q->armed = on;
    uint16_t flags = on ? EVENT_ENABLE : EVENT_DISABLE;
    if (on && virtio_has(q->virtio, VIRTIO_F_EVENT_IDX)) {
        store16(q->device_ptr, (uint16_t)(q->avail | q->avail_wrap << 15));
        flags = EVENT_DESC;
    }
    store16(q->device_ptr + 2, flags);
    vq_written(q, q->device, 4);
    atomic_thread_fence(memory_order_seq_cst);
}

/* The descriptors of the chain that begins at q->avail; how many places they take. */
static int walk(struct core_vq *q, struct core_vchain *chain) {
    uint16_t at = q->avail;
    bool wrap = q->avail_wrap;
    for (uint16_t n = 1; n <= q->size; n++) {
        struct desc d;
        virtio_take(&d, q->desc_ptr + 16u * at, sizeof d);
        chain->id = d.id;
        if (d.flags & INDIRECT) {
            int rc = n > 1 || (d.flags & NEXT) ? vq_fail(q, "an indirect table within a chain")
                                               : vq_indirect(q, chain, d.gpa, d.size, false);
            return rc < 0 ? rc : n;
        }
        int rc = vq_add(q, chain, d.gpa, d.size, d.flags & WRITE);
        if (rc < 0 || !(d.flags & NEXT)) {
            return rc < 0 ? rc : n;
        }
        advance(q, &at, &wrap, 1);
    }
    return vq_fail(q, "a chain is longer than the ring");
}

int vq_packed_take(struct core_vq *q, struct core_vchain *chain) {
    int count = walk(q, chain);
    if (count < 0) {
        return count;
    }
    chain->descriptors = (uint16_t)count;
    advance(q, &q->avail, &q->avail_wrap, chain->descriptors);
    return 1;
}

/* The flags of the first one since the last publishing are held back: what follows it shows at once with it. */
void vq_packed_push(struct core_vq *q, uint16_t id, uint16_t descriptors, uint32_t written) {
    uint8_t *at = q->desc_ptr + 16u * q->used;
    memcpy(at + 8, &written, sizeof written);
    memcpy(at + 12, &id, sizeof id);
    uint16_t flags = (uint16_t)((q->used_wrap ? AVAIL | USED : 0) | (written ? WRITE : 0));
    if (q->unsignalled == 0) {
        q->held_at = q->used;
        q->held_flags = flags;
    } else {
        store16(at + 14, flags);
    }
    vq_written(q, q->desc + 16u * q->used, 16);
    advance(q, &q->used, &q->used_wrap, descriptors);
    q->unsignalled += descriptors;
}

bool vq_packed_publish(struct core_vq *q) {
    store16(q->desc_ptr + 16u * q->held_at + 14, q->held_flags);
    vq_written(q, q->desc + 16u * q->held_at + 14, 2);
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t count = q->unsignalled;
    q->unsignalled = 0;
    uint16_t flags = load16(q->driver_ptr + 2) & 3;
    if (flags != EVENT_DESC || !virtio_has(q->virtio, VIRTIO_F_EVENT_IDX)) {
        return flags != EVENT_DISABLE;
    }
    uint16_t event = load16(q->driver_ptr), place = event & 0x7fff;
    if ((event >> 15) != q->used_wrap) {
        place = (uint16_t)(place - q->size);
    }
    return (uint16_t)(q->used - place - 1) < count;
}
