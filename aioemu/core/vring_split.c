/* vring_split.c: split virtqueues (Virtio 1.2, 2.7). Everything is read once; indices are 16 bits and wrap. */
#include <string.h>

#include "virtio.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { NO_INTERRUPT = 1, NO_NOTIFY = 1 };

struct desc {
    uint64_t gpa;
    uint32_t size;
    uint16_t flags, next;
};

static uint16_t load16(const uint8_t *at) {
    return __atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE);
}

static void store16(uint8_t *at, uint16_t value) {
    __atomic_store_n((uint16_t *)at, value, __ATOMIC_RELEASE);
}

static uint32_t event_offset(const struct core_vq *q) {
    return 4 + 8u * q->size; /* avail_event, behind the used ring */
}

void vq_split_arm(struct core_vq *q, bool on) {
    q->armed = on;
    if (!virtio_has(q->virtio, VIRTIO_F_EVENT_IDX)) {
        store16(q->device_ptr, on ? 0 : NO_NOTIFY);
        vq_written(q, q->device, 2);
    } else if (on) {
        store16(q->device_ptr + event_offset(q), q->avail);
        vq_written(q, q->device + event_offset(q), 2);
    }
    atomic_thread_fence(memory_order_seq_cst);
}

int vq_split_waiting(struct core_vq *q) {
    uint16_t count = (uint16_t)(load16(q->driver_ptr + 2) - q->avail);
    if (count > q->size) {
        return vq_fail(q, "the available index is further ahead than the ring is long");
    }
    return count;
}

static int walk(struct core_vq *q, struct core_vchain *chain) {
    uint16_t at = chain->id;
    for (uint32_t n = 0; n < q->size; n++) {
        struct desc d;
        virtio_take(&d, q->desc_ptr + 16u * at, sizeof d);
        if (d.flags & INDIRECT) {
            return d.flags & NEXT ? vq_fail(q, "an indirect table with a next descriptor")
                                  : vq_indirect(q, chain, d.gpa, d.size, true);
        }
        int rc = vq_add(q, chain, d.gpa, d.size, d.flags & WRITE);
        if (rc < 0 || !(d.flags & NEXT)) {
            return rc;
        }
        at = d.next;
        if (at >= q->size) {
            return vq_fail(q, "a descriptor's next is outside the ring");
        }
    }
    return vq_fail(q, "a chain is a loop");
}

int vq_split_take(struct core_vq *q, struct core_vchain *chain) {
    uint16_t head;
    virtio_take(&head, q->driver_ptr + 4 + 2u * (q->avail & (q->size - 1)), sizeof head);
    if (head >= q->size) {
        return vq_fail(q, "a head is outside the ring");
    }
    chain->id = head;
    int rc = walk(q, chain);
    if (rc < 0) {
        return rc;
    }
    q->avail++;
    return 1;
}

void vq_split_push(struct core_vq *q, uint16_t id, uint32_t written) {
    uint32_t offset = 4 + 8u * (q->used & (q->size - 1));
    const uint32_t element[2] = {id, written};
    memcpy(q->device_ptr + offset, element, sizeof element);
    vq_written(q, q->device + offset, sizeof element);
    q->used++;
    q->unsignalled++;
}

bool vq_split_publish(struct core_vq *q) {
    store16(q->device_ptr + 2, q->used);
    vq_written(q, q->device + 2, 2);
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t count = q->unsignalled;
    q->unsignalled = 0;
    if (!virtio_has(q->virtio, VIRTIO_F_EVENT_IDX)) {
        return !(load16(q->driver_ptr) & NO_INTERRUPT);
    }
    uint16_t event = load16(q->driver_ptr + 4 + 2u * q->size);
    return (uint16_t)(q->used - event - 1) < count; /* event is among those given back since */
}
