/* virtio_regs.c: a virtio device as guests reach it: the registers of virtio-mmio (Virtio 1.2, 4.2.2) and the four
 * structures of virtio-pci in one BAR (4.1.4). Python hears of status and of writes to the configuration, nothing else. */
#include <stdlib.h>
#include <string.h>

#include "virtio.h"

enum reg {
    NONE, /* reads zero, ignores writes */
    MAGIC,
    VERSION,
    DEVICE_ID,
    VENDOR_ID,
    DEVICE_FEATURES,
    DEVICE_SELECT,
    DRIVER_FEATURES,
    DRIVER_SELECT,
    CONFIG_VECTOR,
    QUEUES,
    STATUS,
    GENERATION,
    QUEUE_SELECT,
    QUEUE_MAX,
    QUEUE_SIZE,
    QUEUE_VECTOR,
    QUEUE_ENABLE,
    QUEUE_INDEX,
    QUEUE_DESC,
    QUEUE_DRIVER,
    QUEUE_DEVICE,
    QUEUE_RESET, /* reads zero: a reset is done when the write is */
    NOTIFY,
    ISR,
    ISR_CLEAR,
    ISR_ACK,
    ALL_ONES,
};

struct place {
    uint16_t offset;
    uint8_t width; /* bytes */
    uint8_t reg;
    uint8_t shift; /* which part of a 64-bit value: bits */
};

enum { MMIO_CONFIG = 0x100, PCI_ISR = 0x1000, PCI_CONFIG = 0x2000, PCI_NOTIFY = 0x3000, NOTIFY_STRIDE = 4 };
enum { MAGIC_VALUE = 0x74726976, VENDOR = 0x1af4 };

static const struct place mmio[] = {
    {0x00, 4, MAGIC, 0},           {0x04, 4, VERSION, 0},
    {0x08, 4, DEVICE_ID, 0},       {0x0c, 4, VENDOR_ID, 0},
    {0x10, 4, DEVICE_FEATURES, 0}, {0x14, 4, DEVICE_SELECT, 0},
    {0x20, 4, DRIVER_FEATURES, 0}, {0x24, 4, DRIVER_SELECT, 0},
    {0x30, 4, QUEUE_SELECT, 0},    {0x34, 4, QUEUE_MAX, 0},
    {0x38, 4, QUEUE_SIZE, 0},      {0x44, 4, QUEUE_ENABLE, 0},
    {0x50, 4, NOTIFY, 0},          {0x60, 4, ISR, 0},
    {0x64, 4, ISR_ACK, 0},         {0x70, 4, STATUS, 0},
    {0x80, 4, QUEUE_DESC, 0},      {0x84, 4, QUEUE_DESC, 32},
    {0x90, 4, QUEUE_DRIVER, 0},    {0x94, 4, QUEUE_DRIVER, 32},
    {0xa0, 4, QUEUE_DEVICE, 0},    {0xa4, 4, QUEUE_DEVICE, 32},
    {0xb0, 4, ALL_ONES, 0},        {0xb4, 4, ALL_ONES, 0},
    {0xb8, 4, ALL_ONES, 0},        {0xbc, 4, ALL_ONES, 0},
    {0xc0, 4, QUEUE_RESET, 0},     {0xfc, 4, GENERATION, 0},
};

static const struct place pci[] = {
    {0x00, 4, DEVICE_SELECT, 0},   {0x04, 4, DEVICE_FEATURES, 0}, {0x08, 4, DRIVER_SELECT, 0},
    {0x0c, 4, DRIVER_FEATURES, 0}, {0x10, 2, CONFIG_VECTOR, 0},   {0x12, 2, QUEUES, 0},
    {0x14, 1, STATUS, 0},          {0x15, 1, GENERATION, 0},      {0x16, 2, QUEUE_SELECT, 0},
    {0x18, 2, QUEUE_SIZE, 0},      {0x1a, 2, QUEUE_VECTOR, 0},    {0x1c, 2, QUEUE_ENABLE, 0},
    {0x1e, 2, QUEUE_INDEX, 0},     {0x20, 8, QUEUE_DESC, 0},      {0x28, 8, QUEUE_DRIVER, 0},
    {0x30, 8, QUEUE_DEVICE, 0},    {0x3a, 2, QUEUE_RESET, 0},     {PCI_ISR, 1, ISR_CLEAR, 0},
};

struct face {
    struct core_chip chip;
    struct core_virtio *virtio;
    const struct place *places;
    uint32_t count, config_at, config_size;
    bool is_pci;
};

static uint64_t ones(uint32_t bytes) {
    return bytes >= 8 ? UINT64_MAX : (1ull << (8 * bytes)) - 1;
}

static struct core_vq *selected(struct core_virtio *v) {
    return v->queue_select < v->queue_count ? &v->queues[v->queue_select] : NULL;
}

static uint64_t *address_of(struct core_vq *q, enum reg reg) {
    return reg == QUEUE_DESC ? &q->desc : reg == QUEUE_DRIVER ? &q->driver : &q->device;
}

static uint64_t read_queue(struct core_vq *q, enum reg reg) {
    switch (reg) {
    case QUEUE_MAX: return q->max;
    case QUEUE_SIZE: return q->size;
    case QUEUE_VECTOR: return atomic_load(&q->vector);
    case QUEUE_ENABLE: return atomic_load(&q->ready);
    case QUEUE_INDEX: return q->index;
    default: return *address_of(q, reg);
    }
}

/* The whole register, with the device's lock. */
static uint64_t read_reg(struct core_virtio *v, enum reg reg) {
    struct core_vq *q = selected(v);
    switch (reg) {
    case MAGIC: return MAGIC_VALUE;
    case VERSION: return 2;
    case DEVICE_ID: return v->device_id;
    case VENDOR_ID: return VENDOR;
    case DEVICE_FEATURES: return v->device_select < 2 ? (uint32_t)(v->offered >> (32 * v->device_select)) : 0;
    case DEVICE_SELECT: return v->device_select;
    case DRIVER_FEATURES:
        return v->driver_select < 2 ? (uint32_t)(atomic_load(&v->accepted) >> (32 * v->driver_select)) : 0;
    case DRIVER_SELECT: return v->driver_select;
    case CONFIG_VECTOR: return atomic_load(&v->config_vector);
    case QUEUES: return v->queue_count;
    case STATUS: return atomic_load(&v->status);
    case GENERATION: return atomic_load(&v->generation);
    case QUEUE_SELECT: return v->queue_select;
    case ISR: return atomic_load(&v->isr);
    case ALL_ONES: return UINT64_MAX;
    case QUEUE_MAX:
    case QUEUE_SIZE:
    case QUEUE_VECTOR:
    case QUEUE_ENABLE:
    case QUEUE_INDEX:
    case QUEUE_DESC:
    case QUEUE_DRIVER:
    case QUEUE_DEVICE: return q ? read_queue(q, reg) : 0;
    default: return 0;
    }
}

/* A vector that the table does not have is answered with none (4.1.5.1.2.1). */
static uint16_t possible_vector(struct core_virtio *v, uint64_t value) {
    return v->msix && core_msix_has(v->msix, (uint32_t)value) ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

/* A queue's registers count only before it is enabled, and enabling only once features are settled (3.1.1). */
static void write_queue(struct core_virtio *v, struct core_vq *q, enum reg reg, uint64_t value) {
    bool ready = atomic_load(&q->ready);
    if (reg == QUEUE_VECTOR) {
        atomic_store(&q->vector, possible_vector(v, value));
    } else if (reg == QUEUE_ENABLE) {
        if (value == 1 && !ready && (atomic_load(&v->status) & VIRTIO_FEATURES_OK)) {
            vq_enable(q);
        }
    } else if (ready) {
        return;
    } else if (reg == QUEUE_SIZE) {
        q->size = value <= UINT16_MAX ? (uint16_t)value : 0;
    } else {
        *address_of(q, reg) = value;
    }
}

static void accept_features(struct core_virtio *v, uint64_t value) {
    if (v->driver_select < 2 && !(atomic_load(&v->status) & VIRTIO_FEATURES_OK)) {
        uint32_t shift = 32 * v->driver_select;
        uint64_t keep = atomic_load(&v->accepted) & ~(0xffffffffull << shift);
        atomic_store(&v->accepted, keep | (value & 0xffffffff) << shift);
    }
}

/* With the device's lock. */
static void write_reg(struct core_virtio *v, enum reg reg, uint64_t value) {
    struct core_vq *q = selected(v);
    switch (reg) {
    case DEVICE_SELECT: v->device_select = (uint32_t)value; break;
    case DRIVER_SELECT: v->driver_select = (uint32_t)value; break;
    case DRIVER_FEATURES: accept_features(v, value); break;
    case CONFIG_VECTOR: atomic_store(&v->config_vector, possible_vector(v, value)); break;
    case QUEUE_SELECT: v->queue_select = (uint32_t)value; break;
    case QUEUE_SIZE:
    case QUEUE_VECTOR:
    case QUEUE_ENABLE:
    case QUEUE_DESC:
    case QUEUE_DRIVER:
    case QUEUE_DEVICE:
        if (q) {
            write_queue(v, q, reg, value);
        }
        break;
    default: break;
    }
}

/* ---- parts of accesses ------------------------------------------------------------------------------------------------ */

/* The register that holds (offset), or NULL; the part shrinks to what belongs together. */
static const struct place *find(const struct face *f, struct core_part *part) {
    uint64_t until = UINT64_MAX;
    const struct place *found = NULL;
    for (uint32_t i = 0; i < f->count; i++) {
        const struct place *p = &f->places[i];
        if (part->offset >= p->offset && part->offset < p->offset + (uint64_t)p->width) {
            found = p;
            until = p->offset + (uint64_t)p->width;
            break;
        }
        if (p->offset > part->offset) {
            until = p->offset;
            break;
        }
    }
    uint64_t room = until - part->offset;
    part->size = room < part->size ? (uint32_t)room : part->size;
    return found;
}

/* Whether the driver takes a queue back. Its device has to let go of the chains first, so it is asked to do that. */
static bool takes_queue(const struct face *f, enum reg reg, uint64_t value) {
    struct core_virtio *v = f->virtio;
    if (reg != QUEUE_RESET && (reg != QUEUE_ENABLE || f->is_pci)) {
        return false;
    }
    pthread_mutex_lock(&v->lock);
    const struct core_vq *q = selected(v);
    bool takes =
        q && (reg == QUEUE_RESET ? value == 1 && virtio_has(v, VIRTIO_F_RESET) : value == 0 && atomic_load(&q->ready));
    pthread_mutex_unlock(&v->lock);
    return takes;
}

static int registers_part(struct face *f, struct core_part *part) {
    struct core_virtio *v = f->virtio;
    const struct place *p = find(f, part);
    part->reg = CORE_VIRTIO_STATUS;
    if (!p) {
        part->value = 0;
        return CORE_DONE;
    }
    uint32_t lane = 8 * (uint32_t)(part->offset - p->offset) + p->shift;
    uint64_t value = part->value & ones(part->size);
    if (part->is_write && p->reg == STATUS) {
        part->value = value;
        return lane ? CORE_DONE : CORE_HANDOVER; /* all status bits are in the first byte */
    }
    if (part->is_write && !lane && takes_queue(f, p->reg, value)) {
        part->reg = CORE_VIRTIO_QUEUE_OFF;
        part->value = p->reg == QUEUE_RESET;
        return CORE_HANDOVER;
    }
    if (part->is_write && p->reg == NOTIFY) {
        virtio_kick(v, (uint32_t)(value << lane));
    } else if (part->is_write && p->reg == ISR_ACK) {
        virtio_acknowledge(v, (uint32_t)(value << lane));
    } else if (part->is_write) {
        pthread_mutex_lock(&v->lock);
        uint64_t keep = read_reg(v, p->reg) & ~(ones(part->size) << lane);
        write_reg(v, p->reg, keep | value << lane);
        pthread_mutex_unlock(&v->lock);
    } else if (p->reg == ISR_CLEAR) {
        part->value = atomic_exchange(&v->isr, 0);
        virtio_update_line(v);
    } else {
        pthread_mutex_lock(&v->lock);
        part->value = read_reg(v, p->reg) >> lane;
        pthread_mutex_unlock(&v->lock);
    }
    return CORE_DONE;
}

static int config_part(struct face *f, struct core_part *part) {
    struct core_virtio *v = f->virtio;
    uint64_t offset = part->offset - f->config_at, end = f->config_at + (uint64_t)f->config_size;
    part->reg = CORE_VIRTIO_CONFIG;
    part->size = end - part->offset < part->size ? (uint32_t)(end - part->offset) : part->size;
    if (offset >= v->config_size) {
        part->value = 0;
        return CORE_DONE;
    }
    uint64_t room = v->config_size - offset;
    part->size = room < part->size ? (uint32_t)room : part->size;
    if (part->is_write) {
        part->value &= ones(part->size);
        return CORE_HANDOVER;
    }
    part->value = 0;
    pthread_mutex_lock(&v->lock);
    memcpy(&part->value, v->config + offset, part->size);
    pthread_mutex_unlock(&v->lock);
    return CORE_DONE;
}

static int face_access(struct core_chip *chip, struct core_part *part) {
    struct face *f = (struct face *)chip;
    if (part->offset >= f->config_at && part->offset - f->config_at < f->config_size) {
        return config_part(f, part);
    }
    if (f->is_pci && part->offset >= PCI_NOTIFY) {
        if (part->is_write) {
            virtio_kick(f->virtio, (uint32_t)((part->offset - PCI_NOTIFY) / NOTIFY_STRIDE));
        }
        part->value = 0;
        return CORE_DONE;
    }
    if (part->offset < f->config_at && part->offset + part->size > f->config_at) {
        part->size = (uint32_t)(f->config_at - part->offset);
    }
    return registers_part(f, part);
}

static void face_destroy(struct core_chip *chip) {
    free(chip);
}

static const struct core_chip_ops face_ops = {.name = "virtio-face", .access = face_access, .destroy = face_destroy};

/* What a bus can place: the device's registers as (kind) lays them out. Must not outlive the device. */
core_chip *core_virtio_face_new(core_chip *virtio, int kind) {
    struct face *f = calloc(1, sizeof *f);
    if (!f) {
        return NULL;
    }
    core_chip_init(&f->chip, &face_ops);
    f->virtio = (struct core_virtio *)virtio;
    f->is_pci = kind == CORE_VIRTIO_PCI;
    f->places = f->is_pci ? pci : mmio;
    f->count = f->is_pci ? sizeof pci / sizeof *pci : sizeof mmio / sizeof *mmio;
    f->config_at = f->is_pci ? PCI_CONFIG : MMIO_CONFIG;
    f->config_size = f->is_pci ? PCI_NOTIFY - PCI_CONFIG : VIRTIO_MAX_CONFIG;
    return &f->chip;
}
