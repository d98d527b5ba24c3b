/* vring_batch.c: a queue for devices whose data path is native: opened, many chains taken and given back, closed. Chains
 * are checked as in vring.c; none is out between two batches. Reactor or iothread. */
#include "virtio.h"

bool vq_open(struct core_vq *q) {
    if (!atomic_load_explicit(&q->ready, memory_order_relaxed)) {
        return false;
    }
    pthread_mutex_lock(&q->lock);
    if (atomic_load(&q->ready) && virtio_runs(q->virtio) && vq_map(q) == 0) {
        return true;
    }
    pthread_mutex_unlock(&q->lock);
    return false;
}

void vq_close(struct core_vq *q) {
    bool signal = false;
    if (q->unsignalled && virtio_runs(q->virtio)) {
        signal = virtio_has(q->virtio, VIRTIO_F_PACKED) ? vq_packed_publish(q) : vq_split_publish(q);
    }
    pthread_mutex_unlock(&q->lock);
    if (signal) {
        virtio_signal_queue(q->virtio, q);
    }
}

void vq_give(struct core_vq *q, uint16_t id, uint16_t descriptors, uint32_t written) {
    if (virtio_has(q->virtio, VIRTIO_F_PACKED)) {
        vq_packed_push(q, id, descriptors, written);
    } else {
        vq_split_push(q, id, written);
    }
}
