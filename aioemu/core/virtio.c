/* virtio.c: a virtio device's status, features, interrupts and configuration (Virtio 1.2, 2 and 3), whatever the
 * transport. The driver is not trusted: out of order, its writes are ignored; a ring that cannot be breaks the device. */
#include "virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- interrupts ------------------------------------------------------------------------------------------------------ */

enum { PCI_STATUS = 0x06, PCI_STATUS_INTERRUPT = 1 << 3 };

/* Drive the pin as the interrupt status says. A line that is taken as edges falls before it rises again. */
static void drive_line(struct core_virtio *v, bool again) {
    pthread_mutex_lock(&v->line_lock);
    bool pending = atomic_load(&v->isr) != 0, level = pending && !atomic_load(&v->intx_off);
    if (v->function) {
        core_window_update(v->function, PCI_STATUS, 2, pending ? UINT64_MAX : ~(uint64_t)PCI_STATUS_INTERRUPT,
                           pending ? PCI_STATUS_INTERRUPT : 0);
    }
    if (again && level) {
        core_chip_line(&v->chip, false);
    }
    core_chip_line(&v->chip, level);
    pthread_mutex_unlock(&v->line_lock);
}

void virtio_update_line(struct core_virtio *v) {
    drive_line(v, false);
}

void virtio_acknowledge(struct core_virtio *v, uint32_t bits) {
    atomic_fetch_and(&v->isr, ~bits);
    drive_line(v, true);
}

static void interrupt(struct core_virtio *v, uint16_t vector, uint32_t isr) {
    if (v->msix && core_msix_enabled(v->msix)) {
        if (vector != VIRTIO_NO_VECTOR) {
            core_msix_notify(v->msix, vector);
        }
        return;
    }
    atomic_fetch_or(&v->isr, isr);
    drive_line(v, false);
}

void virtio_signal_queue(struct core_virtio *v, struct core_vq *q) {
    interrupt(v, atomic_load(&q->vector), VIRTIO_ISR_QUEUE);
}

static void config_changed(struct core_virtio *v) {
    atomic_fetch_add(&v->generation, 1);
    if (atomic_load(&v->status) & VIRTIO_DRIVER_OK) {
        interrupt(v, atomic_load(&v->config_vector), VIRTIO_ISR_CONFIG);
    }
}

void virtio_break(struct core_virtio *v, const char *why) {
    if (atomic_fetch_or(&v->status, VIRTIO_NEEDS_RESET) & VIRTIO_NEEDS_RESET) {
        return;
    }
    atomic_store(&v->error, why);
    config_changed(v);
    core_chip_notify(&v->chip);
}

void virtio_kick(struct core_virtio *v, uint32_t queue) {
    if (queue >= v->queue_count || !atomic_load(&v->queues[queue].ready)) {
        return;
    }
    int fd = atomic_load(&v->queues[queue].kick_fd);
    if (fd >= 0) {
        uint64_t one = 1;
        (void)!write(fd, &one, sizeof one);
        return;
    }
    atomic_fetch_or(&v->kicked[queue / 64], 1ull << (queue % 64));
    core_chip_notify(&v->chip);
}

/* ---- reset and status ------------------------------------------------------------------------------------------------ */

static void reset_queue(struct core_vq *q) {
    vq_disable(q);
    q->size = q->max;
    q->desc = q->driver = q->device = 0;
    atomic_store(&q->vector, VIRTIO_NO_VECTOR);
}

static void virtio_reset(struct core_chip *chip) {
    struct core_virtio *v = (struct core_virtio *)chip;
    pthread_mutex_lock(&v->lock);
    atomic_store(&v->status, 0);
    for (uint32_t i = 0; i < v->queue_count; i++) {
        reset_queue(&v->queues[i]);
    }
    for (uint32_t i = 0; i < VIRTIO_MAX_QUEUES / 64; i++) {
        atomic_store(&v->kicked[i], 0);
    }
    atomic_store(&v->accepted, 0);
    atomic_store(&v->generation, 0);
    atomic_store(&v->error, NULL);
    atomic_store(&v->config_vector, VIRTIO_NO_VECTOR);
    v->device_select = v->driver_select = v->queue_select = 0;
    pthread_mutex_unlock(&v->lock);
    virtio_acknowledge(v, UINT32_MAX);
}

static bool features_possible(struct core_virtio *v) {
    uint64_t accepted = atomic_load(&v->accepted);
    return !(accepted & ~v->offered) && (accepted & VIRTIO_F_VERSION_1);
}

/* The driver writes the device status; what it is then. Control thread: whoever uses the queues has let go of them. */
uint32_t core_virtio_set_status(core_chip *virtio, uint32_t value) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    value &= VIRTIO_STATUS_BITS & ~(uint32_t)VIRTIO_NEEDS_RESET;
    if (value == 0) {
        virtio_reset(virtio);
        return 0;
    }
    pthread_mutex_lock(&v->lock);
    uint32_t status = atomic_load(&v->status) | value; /* a driver must not take back a bit (2.1.1) */
    bool settled = atomic_load(&v->status) & VIRTIO_FEATURES_OK;
    if (!settled && !features_possible(v)) {
        status &= ~(uint32_t)VIRTIO_FEATURES_OK;
    }
    if (!(status & VIRTIO_FEATURES_OK)) {
        status &= ~(uint32_t)VIRTIO_DRIVER_OK;
    }
    status |= atomic_fetch_or(&v->status, status);
    pthread_mutex_unlock(&v->lock);
    return status;
}

uint32_t core_virtio_status(core_chip *virtio) {
    return atomic_load(&((struct core_virtio *)virtio)->status);
}

uint64_t core_virtio_features(core_chip *virtio) {
    return atomic_load(&((struct core_virtio *)virtio)->accepted);
}

/* Why the device needs a reset, or NULL. */
const char *core_virtio_error(core_chip *virtio) {
    return atomic_load(&((struct core_virtio *)virtio)->error);
}

/* The device cannot go on until it is reset; (why) must live as long as the device. */
void core_virtio_break(core_chip *virtio) {
    virtio_break((struct core_virtio *)virtio, "the device gave up");
}

/* The next queue that the driver rang for since it was last asked for, or -1. */
int core_virtio_next_kick(core_chip *virtio) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    for (uint32_t word = 0; word * 64 < v->queue_count; word++) {
        uint64_t bits = atomic_load(&v->kicked[word]);
        if (bits) {
            uint32_t bit = (uint32_t)__builtin_ctzll(bits);
            atomic_fetch_and(&v->kicked[word], ~(1ull << bit));
            return (int)(word * 64 + bit);
        }
    }
    return -1;
}

/* As if the driver had rung: its reactor looks again, after whatever else it has to do. */
void core_virtio_kick(core_chip *virtio, uint32_t queue) {
    virtio_kick((struct core_virtio *)virtio, queue);
}

/* Whether the driver enabled this queue. */
int core_virtio_ready(core_chip *virtio, uint32_t queue) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    return queue < v->queue_count && atomic_load(&v->queues[queue].ready);
}

/* The queue that the driver has selected, or -1: there is none of that number. */
int core_virtio_selected(core_chip *virtio) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    pthread_mutex_lock(&v->lock);
    uint32_t queue = v->queue_select;
    pthread_mutex_unlock(&v->lock);
    return queue < v->queue_count ? (int)queue : -1;
}

/* Chains of this queue are void from now on, until it is enabled again; (reset): its registers are as after a reset.
 * Whoever looks into chains by themselves has let go of them. */
int core_virtio_queue_off(core_chip *virtio, uint32_t queue, int reset) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    if (queue >= v->queue_count) {
        return -EINVAL;
    }
    pthread_mutex_lock(&v->lock);
    if (reset) {
        reset_queue(&v->queues[queue]);
    } else {
        vq_disable(&v->queues[queue]);
    }
    pthread_mutex_unlock(&v->lock);
    return 0;
}

/* Ring (fd) for this queue from now on instead of the reactor; -1: the reactor again. */
int core_virtio_kick_fd(core_chip *virtio, uint32_t queue, int fd) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    if (queue >= v->queue_count) {
        return -EINVAL;
    }
    atomic_store(&v->queues[queue].kick_fd, fd);
    return 0;
}

/* ---- configuration space --------------------------------------------------------------------------------------------- */

/* Change the device's configuration; (tell) the driver with a new generation and an interrupt. */
int core_virtio_set_config(core_chip *virtio, uint32_t offset, const uint8_t *data, uint32_t size, int tell) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    if (offset > v->config_size || size > v->config_size - offset) {
        return -EINVAL;
    }
    pthread_mutex_lock(&v->lock);
    memcpy(v->config + offset, data, size);
    pthread_mutex_unlock(&v->lock);
    if (tell) {
        config_changed(v);
    }
    return 0;
}

int core_virtio_get_config(core_chip *virtio, uint32_t offset, uint8_t *data, uint32_t size) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    if (offset > v->config_size || size > v->config_size - offset) {
        return -EINVAL;
    }
    pthread_mutex_lock(&v->lock);
    memcpy(data, v->config + offset, size);
    pthread_mutex_unlock(&v->lock);
    return 0;
}

/* ---- a PCI function around it ---------------------------------------------------------------------------------------- */

/* Interrupts go by this table; the pin's state shows in this configuration space. Before it is plugged in. */
void core_virtio_wire_pci(core_chip *virtio, core_chip *msix, core_chip *function) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    v->msix = msix;
    v->function = function;
}

/* The Interrupt Disable bit of the command register. */
void core_virtio_intx_off(core_chip *virtio, int off) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    atomic_store(&v->intx_off, off != 0);
    drive_line(v, false);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static void virtio_destroy(struct core_chip *chip) {
    struct core_virtio *v = (struct core_virtio *)chip;
    for (uint32_t i = 0; v->queues && i < v->queue_count; i++) {
        vq_free(&v->queues[i]);
    }
    pthread_mutex_destroy(&v->lock);
    pthread_mutex_destroy(&v->line_lock);
    free(v->queues);
    free(v->config);
    free(v);
}

/* The device itself is on no bus: its faces are. */
static int virtio_access(struct core_chip *chip, struct core_part *part) {
    (void)chip;
    part->value = UINT64_MAX;
    return CORE_DONE;
}

static const struct core_chip_ops virtio_ops = {
    .name = "virtio",
    .access = virtio_access,
    .reset = virtio_reset,
    .destroy = virtio_destroy,
    .state_size = virtio_state_size,
    .save = virtio_save,
    .load = virtio_load,
};

static void init_queues(struct core_virtio *v, const uint16_t *sizes) {
    for (uint32_t i = 0; i < v->queue_count; i++) {
        struct core_vq *q = &v->queues[i];
        pthread_mutex_init(&q->lock, NULL);
        q->virtio = v;
        q->index = (uint16_t)i;
        q->max = sizes[i];
        atomic_init(&q->kick_fd, -1);
    }
}

/* A device with (queues) virtqueues of at most (sizes) entries that offers (features); NULL if it cannot be. */
core_chip *core_virtio_new(uint32_t device_id, uint64_t features, const uint16_t *sizes, uint32_t queues,
                           uint32_t config_size) {
    if (queues > VIRTIO_MAX_QUEUES || config_size > VIRTIO_MAX_CONFIG) {
        return NULL;
    }
    for (uint32_t i = 0; i < queues; i++) {
        if (sizes[i] == 0 || sizes[i] > VIRTIO_MAX_SIZE || (sizes[i] & (sizes[i] - 1))) {
            return NULL;
        }
    }
    struct core_virtio *v = calloc(1, sizeof *v);
    if (!v) {
        return NULL;
    }
    core_chip_init(&v->chip, &virtio_ops);
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_init(&v->line_lock, NULL);
    v->device_id = device_id;
    v->config_size = config_size;
    v->offered = features;
    v->queues = calloc(queues + 1, sizeof *v->queues);
    v->config = calloc(1, config_size + CORE_ACCESS_MAX);
    if (!v->queues || !v->config) {
        virtio_destroy(&v->chip);
        return NULL;
    }
    v->queue_count = queues;
    init_queues(v, sizes);
    virtio_reset(&v->chip);
    return &v->chip;
}
