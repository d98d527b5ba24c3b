/* window.c: registers declared as data, served from memory without leaving C; the rest is handed over. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum {
    MAX_WINDOW = 1 << 20, /* bytes: the largest register file of a chip here is 64 KiB; twelve doublings to spare */
    NO_REG = UINT16_MAX,  /* a byte that no register covers: reads zero, ignores writes */
    MAX_REGS = UINT16_MAX - 1,
};

struct window {
    struct core_chip chip;
    pthread_mutex_t lock;
    uint32_t size, count;
    uint8_t *bytes;
    uint16_t *owner; /* of each byte: index of its register */
    core_reg *regs;
};

static uint64_t ones(uint32_t bytes) {
    return bytes >= 8 ? UINT64_MAX : (1ull << (8 * bytes)) - 1;
}

static uint64_t get(const struct window *w, uint32_t offset, uint32_t size) {
    uint64_t value = 0;
    memcpy(&value, w->bytes + offset, size);
    return value;
}

static void put(struct window *w, uint32_t offset, uint32_t size, uint64_t value) {
    memcpy(w->bytes + offset, &value, size);
}

/* Bytes from `offset` that belong to the same owner, at most `size`. */
static uint32_t run_length(const struct window *w, uint32_t offset, uint32_t size) {
    uint32_t n = 1;
    while (n < size && offset + n < w->size && w->owner[offset + n] == w->owner[offset]) {
        n++;
    }
    return n;
}

static int read_part(struct window *w, const core_reg *reg, struct core_part *part) {
    if (reg->read_mode == CORE_READ_SYNC) {
        return CORE_HANDOVER;
    }
    part->value = get(w, (uint32_t)part->offset, part->size);
    if (reg->read_mode == CORE_READ_CLEAR) {
        put(w, (uint32_t)part->offset, part->size, 0);
    }
    return CORE_DONE;
}

/* Store what may be stored; a hook then sees the register as the guest wrote it, all of its bytes. */
static int write_part(struct window *w, const core_reg *reg, struct core_part *part) {
    uint32_t shift = 8 * ((uint32_t)part->offset - reg->offset);
    uint64_t lanes = ones(part->size) << shift;
    uint64_t written = (part->value << shift) & lanes;
    uint64_t old = get(w, reg->offset, reg->width);
    uint64_t stored = (old & ~(reg->writable & lanes) & ~(reg->clear & written)) | (written & reg->writable);
    put(w, reg->offset, reg->width, stored);
    if (reg->write_mode == CORE_WRITE_MEMORY) {
        return CORE_DONE;
    }
    part->value = (stored & ~lanes) | written;
    part->posted = reg->write_mode == CORE_WRITE_POSTED;
    return CORE_HANDOVER;
}

static int window_access(struct core_chip *chip, struct core_part *part) {
    struct window *w = (struct window *)chip;
    if (part->offset >= w->size) {
        part->value = 0;
        return CORE_DONE;
    }
    pthread_mutex_lock(&w->lock);
    uint32_t offset = (uint32_t)part->offset;
    uint16_t owner = w->owner[offset];
    int rc = CORE_DONE;
    part->size = run_length(w, offset, part->size);
    part->reg = owner;
    if (owner == NO_REG) {
        part->value = 0;
    } else if (part->is_write) {
        part->value &= ones(part->size);
        rc = write_part(w, &w->regs[owner], part);
    } else {
        rc = read_part(w, &w->regs[owner], part);
    }
    pthread_mutex_unlock(&w->lock);
    return rc;
}

static void window_reset(struct core_chip *chip) {
    struct window *w = (struct window *)chip;
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->count; i++) {
        put(w, w->regs[i].offset, w->regs[i].width, w->regs[i].reset);
    }
    pthread_mutex_unlock(&w->lock);
}

static void window_destroy(struct core_chip *chip) {
    struct window *w = (struct window *)chip;
    pthread_mutex_destroy(&w->lock);
    free(w->bytes);
    free(w->owner);
    free(w->regs);
    free(w);
}

static int window_state_size(struct core_chip *chip) {
    return (int)((struct window *)chip)->size;
}

static int window_save(struct core_chip *chip, uint8_t *state) {
    struct window *w = (struct window *)chip;
    pthread_mutex_lock(&w->lock);
    memcpy(state, w->bytes, w->size);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

/* Bits that the guest cannot change must be those of reset or of the device itself: the block checks those. */
static int window_load(struct core_chip *chip, const uint8_t *state) {
    struct window *w = (struct window *)chip;
    pthread_mutex_lock(&w->lock);
    memcpy(w->bytes, state, w->size);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

static const struct core_chip_ops window_ops = {
    .name = "window",
    .access = window_access,
    .reset = window_reset,
    .destroy = window_destroy,
    .state_size = window_state_size,
    .save = window_save,
    .load = window_load,
};

/* Each register within the window, of a usual width, overlapping no other. */
static int claim(struct window *w, uint32_t index) {
    const core_reg *reg = &w->regs[index];
    if ((reg->width != 1 && reg->width != 2 && reg->width != 4 && reg->width != 8) || reg->offset >= w->size ||
        reg->width > w->size - reg->offset || reg->read_mode > CORE_READ_SYNC || reg->write_mode > CORE_WRITE_SYNC) {
        return -EINVAL;
    }
    for (uint32_t i = 0; i < reg->width; i++) {
        if (w->owner[reg->offset + i] != NO_REG) {
            return -EEXIST;
        }
        w->owner[reg->offset + i] = (uint16_t)index;
    }
    return 0;
}

core_chip *core_window_new(uint32_t size, const core_reg *regs, int count) {
    if (size == 0 || size > MAX_WINDOW || count < 0 || count > MAX_REGS) {
        return NULL;
    }
    struct window *w = calloc(1, sizeof *w);
    if (!w) {
        return NULL;
    }
    core_chip_init(&w->chip, &window_ops);
    pthread_mutex_init(&w->lock, NULL);
    w->size = size;
    w->count = (uint32_t)count;
    w->bytes = calloc(1, size + CORE_ACCESS_MAX);
    w->owner = malloc(size * sizeof *w->owner);
    w->regs = calloc((size_t)count + 1, sizeof *w->regs);
    if (!w->bytes || !w->owner || !w->regs) {
        window_destroy(&w->chip);
        return NULL;
    }
    memset(w->owner, 0xff, size * sizeof *w->owner);
    if (count) {
        memcpy(w->regs, regs, (size_t)count * sizeof *regs);
    }
    for (uint32_t i = 0; i < w->count; i++) {
        if (claim(w, i) < 0) {
            window_destroy(&w->chip);
            return NULL;
        }
    }
    window_reset(&w->chip);
    return &w->chip;
}

/* The window's memory, `size` bytes, for the device's own reads and writes of its registers. */
uint8_t *core_window_bytes(core_chip *window) {
    return ((struct window *)window)->bytes;
}

/* Keep the bits of `keep` and set those of `set` in one step, whatever vCPUs do to the register. The value before. */
uint64_t core_window_update(core_chip *window, uint32_t offset, uint32_t width, uint64_t keep, uint64_t set) {
    struct window *w = (struct window *)window;
    if (width > CORE_ACCESS_MAX || offset >= w->size || width > w->size - offset) {
        return 0;
    }
    pthread_mutex_lock(&w->lock);
    uint64_t old = get(w, offset, width);
    put(w, offset, width, (old & keep) | set);
    pthread_mutex_unlock(&w->lock);
    return old;
}

/* ---- a range without declared registers: every access is handed over whole ------------------------------------------ */

static int raw_access(struct core_chip *chip, struct core_part *part) {
    (void)chip;
    part->reg = UINT32_MAX;
    return CORE_HANDOVER;
}

static void raw_destroy(struct core_chip *chip) {
    free(chip);
}

static const struct core_chip_ops raw_ops = {.name = "raw", .access = raw_access, .destroy = raw_destroy};

core_chip *core_raw_new(void) {
    struct core_chip *chip = calloc(1, sizeof *chip);
    if (chip) {
        core_chip_init(chip, &raw_ops);
    }
    return chip;
}
