/* msix.c: a function's MSI-X table and pending bits (PCI 3.0, 6.8.2). Notifications come from any thread and go straight
 * to the interrupt controllers; what is masked waits in the pending bits and goes out when it is unmasked. The guest is
 * not trusted: any address and data may be in the table, and what they hit is the interrupt controllers' business. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum {
    MAX_VECTORS = 2048, /* the 11 bits of Table Size */
    ENTRY_BYTES = 16,
    PENDING_WORDS = MAX_VECTORS / 64,
    VECTOR_MASKED = 1,
};

struct entry {
    uint32_t address_low, address_high, data, control;
};

struct msix {
    struct core_chip chip;
    pthread_mutex_t lock;
    uint32_t vectors, pba_offset;
    bool enabled, masked; /* as Message Control says */
    struct entry *table;
    uint64_t pending[PENDING_WORDS];
};

static bool is_pending(const struct msix *x, uint32_t vector) {
    return x->pending[vector / 64] >> (vector % 64) & 1;
}

static int send(struct msix *x, const struct entry *e) {
    if (!x->chip.machine) {
        return -ENODEV;
    }
    return core_msi_send(x->chip.machine, (uint64_t)e->address_high << 32 | e->address_low, e->data);
}

/* Deliver what waits for a vector that nothing masks any more. */
static void flush(struct msix *x, uint32_t vector) {
    const struct entry *e = &x->table[vector];
    if (x->enabled && !x->masked && !(e->control & VECTOR_MASKED) && is_pending(x, vector)) {
        x->pending[vector / 64] &= ~(1ull << (vector % 64));
        send(x, e);
    }
}

static uint32_t word(const struct entry *e, uint32_t index) {
    const uint32_t words[] = {e->address_low, e->address_high, e->data, e->control};
    return words[index];
}

static void set_word(struct entry *e, uint32_t index, uint32_t value) {
    switch (index) {
    case 0: e->address_low = value & ~3u; break;
    case 1: e->address_high = value; break;
    case 2: e->data = value; break;
    default: e->control = value & VECTOR_MASKED; break;
    }
}

/* Table and pending bits are made of 32-bit words; a part never crosses one. */
static void table_part(struct msix *x, uint32_t offset, struct core_part *part) {
    uint32_t vector = offset / ENTRY_BYTES, index = offset % ENTRY_BYTES / 4, shift = 8 * (offset % 4);
    uint32_t old = word(&x->table[vector], index);
    if (!part->is_write) {
        part->value = old >> shift;
        return;
    }
    uint32_t lanes = (uint32_t)(((1ull << (8 * part->size)) - 1) << shift);
    set_word(&x->table[vector], index, (old & ~lanes) | ((uint32_t)part->value << shift & lanes));
    flush(x, vector);
}

static int msix_access(struct core_chip *chip, struct core_part *part) {
    struct msix *x = (struct msix *)chip;
    uint32_t room = 4 - (uint32_t)part->offset % 4;
    part->size = part->size < room ? part->size : room;
    pthread_mutex_lock(&x->lock);
    uint64_t offset = part->offset;
    if (offset < (uint64_t)x->vectors * ENTRY_BYTES) {
        table_part(x, (uint32_t)offset, part);
    } else if (!part->is_write) {
        uint64_t bit = offset >= x->pba_offset ? 8 * (offset - x->pba_offset) : UINT64_MAX;
        part->value = bit < 64 * PENDING_WORDS ? x->pending[bit / 64] >> (bit % 64) : 0;
    }
    pthread_mutex_unlock(&x->lock);
    return CORE_DONE;
}

static void msix_reset(struct core_chip *chip) {
    struct msix *x = (struct msix *)chip;
    pthread_mutex_lock(&x->lock);
    x->enabled = x->masked = false;
    memset(x->pending, 0, sizeof x->pending);
    for (uint32_t i = 0; i < x->vectors; i++) {
        x->table[i] = (struct entry){.control = VECTOR_MASKED};
    }
    pthread_mutex_unlock(&x->lock);
}

static void msix_destroy(struct core_chip *chip) {
    struct msix *x = (struct msix *)chip;
    pthread_mutex_destroy(&x->lock);
    free(x->table);
    free(x);
}

/* Saved: the table, then one byte a vector for what waits. Whether it is on comes from Message Control. */
static int msix_state_size(struct core_chip *chip) {
    return (int)(((struct msix *)chip)->vectors * (ENTRY_BYTES + 1));
}

static int msix_save(struct core_chip *chip, uint8_t *state) {
    struct msix *x = (struct msix *)chip;
    pthread_mutex_lock(&x->lock);
    memcpy(state, x->table, x->vectors * sizeof *x->table);
    for (uint32_t i = 0; i < x->vectors; i++) {
        state[x->vectors * ENTRY_BYTES + i] = is_pending(x, i);
    }
    pthread_mutex_unlock(&x->lock);
    return 0;
}

static int msix_load(struct core_chip *chip, const uint8_t *state) {
    struct msix *x = (struct msix *)chip;
    const uint8_t *waits = state + x->vectors * ENTRY_BYTES;
    for (uint32_t i = 0; i < x->vectors; i++) {
        struct entry e;
        memcpy(&e, state + i * ENTRY_BYTES, sizeof e);
        if ((e.address_low & 3) || (e.control & ~VECTOR_MASKED) || waits[i] > 1) {
            return -EINVAL;
        }
    }
    pthread_mutex_lock(&x->lock);
    memcpy(x->table, state, x->vectors * sizeof *x->table);
    memset(x->pending, 0, sizeof x->pending);
    for (uint32_t i = 0; i < x->vectors; i++) {
        x->pending[i / 64] |= (uint64_t)waits[i] << (i % 64);
    }
    pthread_mutex_unlock(&x->lock);
    return 0;
}

static const struct core_chip_ops msix_ops = {
    .name = "msix",
    .access = msix_access,
    .reset = msix_reset,
    .destroy = msix_destroy,
    .state_size = msix_state_size,
    .save = msix_save,
    .load = msix_load,
};

/* A table of (vectors) at offset 0 and pending bits at (pba_offset), which must not overlap. NULL if it cannot be. */
core_chip *core_msix_new(int vectors, uint32_t pba_offset) {
    if (vectors < 1 || vectors > MAX_VECTORS || pba_offset < (uint32_t)vectors * ENTRY_BYTES || pba_offset % 8) {
        return NULL;
    }
    struct msix *x = calloc(1, sizeof *x);
    if (!x) {
        return NULL;
    }
    core_chip_init(&x->chip, &msix_ops);
    pthread_mutex_init(&x->lock, NULL);
    x->vectors = (uint32_t)vectors;
    x->pba_offset = pba_offset;
    x->table = calloc((size_t)vectors, sizeof *x->table);
    if (!x->table) {
        msix_destroy(&x->chip);
        return NULL;
    }
    msix_reset(&x->chip);
    return &x->chip;
}

/* Message Control as the guest wrote it: what waits goes out when it may. */
void core_msix_control(core_chip *msix, int enabled, int masked) {
    struct msix *x = (struct msix *)msix;
    pthread_mutex_lock(&x->lock);
    x->enabled = enabled != 0;
    x->masked = masked != 0;
    for (uint32_t i = 0; i < x->vectors; i++) {
        flush(x, i);
    }
    pthread_mutex_unlock(&x->lock);
}

/* Interrupt by (vector): 0 sent or pending, -EAGAIN when MSI-X is off (use the pin), -EINVAL for no such vector. */
int core_msix_notify(core_chip *msix, uint32_t vector) {
    struct msix *x = (struct msix *)msix;
    int rc = -EINVAL;
    pthread_mutex_lock(&x->lock);
    if (vector < x->vectors) {
        const struct entry *e = &x->table[vector];
        if (!x->enabled) {
            rc = -EAGAIN;
        } else if (x->masked || (e->control & VECTOR_MASKED)) {
            x->pending[vector / 64] |= 1ull << (vector % 64);
            rc = 0;
        } else {
            rc = send(x, e);
        }
    }
    pthread_mutex_unlock(&x->lock);
    return rc;
}

/* Whether the table has this vector. */
int core_msix_has(core_chip *msix, uint32_t vector) {
    return vector < ((struct msix *)msix)->vectors;
}

int core_msix_enabled(core_chip *msix) {
    struct msix *x = (struct msix *)msix;
    pthread_mutex_lock(&x->lock);
    int enabled = x->enabled;
    pthread_mutex_unlock(&x->lock);
    return enabled;
}
