/* virtio_state.c: a virtio device saved and loaded, and the chains that it has at that moment. A loaded state is not
 * trusted: it is checked whole before anything changes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio.h"

struct saved {
    uint64_t accepted;
    uint32_t status, isr, generation, device_select, driver_select, queue_select;
    uint16_t config_vector, unused[3];
};

struct saved_queue {
    uint64_t desc, driver, device;
    uint16_t size, vector, avail, used;
    uint8_t ready, avail_wrap, used_wrap, unused[5];
};

int virtio_state_size(struct core_chip *chip) {
    struct core_virtio *v = (struct core_virtio *)chip;
    return (int)(sizeof(struct saved) + v->config_size + v->queue_count * sizeof(struct saved_queue));
}

static struct saved_queue save_queue(struct core_vq *q) {
    pthread_mutex_lock(&q->lock);
    struct saved_queue s = {.desc = q->desc,
                            .driver = q->driver,
                            .device = q->device,
                            .size = q->size,
                            .vector = atomic_load(&q->vector),
                            .ready = atomic_load(&q->ready)};
    if (s.ready) {
        s.avail = q->avail;
        s.used = q->used;
        s.avail_wrap = q->avail_wrap;
        s.used_wrap = q->used_wrap;
    }
    pthread_mutex_unlock(&q->lock);
    return s;
}

int virtio_save(struct core_chip *chip, uint8_t *state) {
    struct core_virtio *v = (struct core_virtio *)chip;
    pthread_mutex_lock(&v->lock);
    const struct saved s = {.accepted = atomic_load(&v->accepted),
                            .status = atomic_load(&v->status),
                            .isr = atomic_load(&v->isr),
                            .generation = atomic_load(&v->generation),
                            .device_select = v->device_select,
                            .driver_select = v->driver_select,
                            .queue_select = v->queue_select,
                            .config_vector = atomic_load(&v->config_vector)};
    memcpy(state, &s, sizeof s);
    memcpy(state + sizeof s, v->config, v->config_size);
    uint8_t *at = state + sizeof s + v->config_size;
    for (uint32_t i = 0; i < v->queue_count; i++, at += sizeof(struct saved_queue)) {
        const struct saved_queue q = save_queue(&v->queues[i]);
        memcpy(at, &q, sizeof q);
    }
    pthread_mutex_unlock(&v->lock);
    return 0;
}

static bool vector_possible(const struct core_virtio *v, uint16_t vector) {
    return vector == VIRTIO_NO_VECTOR || (v->msix && core_msix_has(v->msix, vector));
}

static bool head_possible(const struct core_virtio *v, const struct saved *s) {
    bool settled = s->status & VIRTIO_FEATURES_OK;
    bool features = !(s->accepted & ~v->offered) && (s->accepted & VIRTIO_F_VERSION_1);
    return !(s->status & ~(uint32_t)VIRTIO_STATUS_BITS) && (!settled || features) &&
           (settled || !(s->status & VIRTIO_DRIVER_OK)) && !(s->isr & ~3u) && vector_possible(v, s->config_vector) &&
           !(s->unused[0] | s->unused[1] | s->unused[2]);
}

static bool queue_possible(const struct core_virtio *v, const struct core_vq *q, const struct saved *head,
                           const struct saved_queue *s) {
    const uint8_t *u = s->unused;
    if (s->ready > 1 || s->avail_wrap > 1 || s->used_wrap > 1 || (u[0] | u[1] | u[2] | u[3] | u[4]) ||
        !vector_possible(v, s->vector)) {
        return false;
    }
    if (!s->ready) {
        return !s->avail && !s->used && !s->avail_wrap && !s->used_wrap;
    }
    bool packed = head->accepted & VIRTIO_F_PACKED;
    bool inside = !packed || (s->avail < s->size && s->used < s->size);
    return (head->status & VIRTIO_FEATURES_OK) && s->size && s->size <= q->max && inside &&
           (packed || !(s->size & (s->size - 1))) && !(s->desc % 16) && !(s->driver % (packed ? 4 : 2)) &&
           !(s->device % 4);
}

static bool state_possible(const struct core_virtio *v, const struct saved *head, const uint8_t *queues) {
    if (!head_possible(v, head)) {
        return false;
    }
    for (uint32_t i = 0; i < v->queue_count; i++) {
        struct saved_queue s;
        memcpy(&s, queues + i * sizeof s, sizeof s);
        if (!queue_possible(v, &v->queues[i], head, &s)) {
            return false;
        }
    }
    return true;
}

static void load_queue(struct core_vq *q, const struct saved_queue *s) {
    q->size = s->size;
    q->desc = s->desc;
    q->driver = s->driver;
    q->device = s->device;
    atomic_store(&q->vector, s->vector);
    if (s->ready && vq_start(q) == 0) {
        q->avail = s->avail;
        q->used = s->used;
        q->avail_wrap = s->avail_wrap;
        q->used_wrap = s->used_wrap;
        q->armed = false; /* the next pop that finds nothing asks to be told */
    }
}

/* Whether the device would load this state. */
int core_virtio_check(core_chip *virtio, const uint8_t *state, int size) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    struct saved s;
    if (size != virtio_state_size(virtio)) {
        return -EINVAL;
    }
    memcpy(&s, state, sizeof s);
    return state_possible(v, &s, state + sizeof s + v->config_size) ? 0 : -EINVAL;
}

int virtio_load(struct core_chip *chip, const uint8_t *state) {
    struct core_virtio *v = (struct core_virtio *)chip;
    struct saved s;
    memcpy(&s, state, sizeof s);
    const uint8_t *queues = state + sizeof s + v->config_size;
    if (!state_possible(v, &s, queues)) {
        return -EINVAL;
    }
    core_chip_reset(chip);
    pthread_mutex_lock(&v->lock);
    memcpy(v->config, state + sizeof s, v->config_size);
    atomic_store(&v->accepted, s.accepted);
    atomic_store(&v->generation, s.generation);
    atomic_store(&v->config_vector, s.config_vector);
    v->device_select = s.device_select;
    v->driver_select = s.driver_select;
    v->queue_select = s.queue_select;
    for (uint32_t i = 0; i < v->queue_count; i++) {
        struct saved_queue q;
        memcpy(&q, queues + i * sizeof q, sizeof q);
        load_queue(&v->queues[i], &q);
    }
    atomic_store(&v->status, s.status);
    atomic_store(&v->isr, s.isr);
    pthread_mutex_unlock(&v->lock);
    virtio_update_line(v);
    return 0;
}

/* ---- chains that are out ---------------------------------------------------------------------------------------------- */

/* Every chain that the device has, for saving. How many, or -ENOSPC. */
int core_vq_in_flight(core_chip *virtio, uint32_t queue, core_vchain_info *infos, int max) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    if (queue >= v->queue_count) {
        return -EINVAL;
    }
    struct core_vq *q = &v->queues[queue];
    int count = 0;
    pthread_mutex_lock(&q->lock);
    for (uint32_t i = 0; atomic_load(&q->ready) && i < q->size && count >= 0; i++) {
        if (q->chains[i].busy) {
            count = count < max ? count + 1 : -ENOSPC;
            if (count > 0) {
                vq_describe(q, (uint16_t)i, &infos[count - 1]);
            }
        }
    }
    pthread_mutex_unlock(&q->lock);
    return count;
}

/* A chain that the device had when it was saved: it comes out of the queue again, before new ones. */
int core_vq_restore(core_chip *virtio, uint32_t queue, uint32_t id, uint32_t descriptors, const core_vseg *segments,
                    uint32_t count) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    if (queue >= v->queue_count || id > UINT16_MAX || count > VIRTIO_MAX_SEGMENTS) {
        return -EINVAL;
    }
    struct core_vq *q = &v->queues[queue];
    pthread_mutex_lock(&q->lock);
    bool packed = virtio_has(v, VIRTIO_F_PACKED);
    int rc = -EINVAL;
    if (atomic_load(&q->ready) && q->free_count && descriptors && descriptors <= q->size && (packed || id < q->size)) {
        rc = vq_put_back(q, (uint16_t)id, (uint16_t)descriptors, segments, count);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}
