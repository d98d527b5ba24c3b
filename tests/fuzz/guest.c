/* guest.c: guest.h says what this is. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* What the engine calls of the rest of the core. */
void core_ring(struct core_machine *m) {
    (void)m;
}

uint64_t draw(struct dice *dice) {
    dice->state ^= dice->state << 13;
    dice->state ^= dice->state >> 7;
    dice->state ^= dice->state << 17;
    return dice->state;
}

uint64_t below(struct dice *dice, uint64_t limit) {
    return draw(dice) % limit;
}

bool rarely(struct dice *dice) {
    return below(dice, 16) == 0;
}

static void set_status(struct guest *g, uint32_t value) {
    core_virtio_set_status(g->virtio, value);
}

static void queue_off(struct guest *g, uint32_t queue, bool reset) {
    core_virtio_queue_off(g->virtio, queue, reset);
}

bool guest_new(struct guest *g, core_chip *virtio) {
    uint8_t *space =
        mmap(NULL, GUEST_RAM + 2 * GUEST_GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g->machine = calloc(1, sizeof *g->machine);
    g->virtio = virtio;
    g->set_status = set_status;
    g->queue_off = queue_off;
    if (space == MAP_FAILED || !g->machine || !virtio) {
        return false;
    }
    g->ram = space + GUEST_GUARD;
    g->face = core_virtio_face_new(virtio, CORE_VIRTIO_MMIO);
    g->machine->ram[0] = (struct core_ram){.size = GUEST_RAM, .host = g->ram, .used = true};
    core_chip_wire(virtio, g->machine, -1);
    return g->face && mprotect(g->ram, GUEST_RAM, PROT_READ | PROT_WRITE) == 0;
}

void guest_free(struct guest *g) {
    core_chip_free(g->face);
    core_chip_free(g->virtio);
    munmap(g->ram - GUEST_GUARD, GUEST_RAM + 2 * GUEST_GUARD);
    free(g->machine);
}

void put(struct guest *g, uint64_t offset, uint32_t size, uint64_t value) {
    uint32_t reg;
    while (size) {
        uint32_t part = size;
        uint64_t data = value;
        int rc = core_chip_access(g->face, offset, &part, 1, &data, &reg);
        if (rc == CORE_HANDOVER && reg == CORE_VIRTIO_STATUS) {
            g->set_status(g, data & 0xff);
        } else if (rc == CORE_HANDOVER && reg == CORE_VIRTIO_QUEUE_OFF) {
            g->queue_off(g, (uint32_t)core_virtio_selected(g->virtio), data == 1);
        }
        offset += part;
        size -= part;
        value = part < 8 ? value >> (8 * part) : 0;
    }
}

void ask_features(struct guest *g, uint64_t features) {
    put(g, REG_STATUS, 4, 0);
    put(g, REG_STATUS, 4, 3);
    for (uint32_t half = 0; half < 2; half++) {
        put(g, REG_DRIVER_SELECT, 4, half);
        put(g, REG_DRIVER_FEATURES, 4, features >> (32 * half));
    }
    put(g, REG_STATUS, 4, 11);
}

void put_desc(struct guest *g, uint64_t ring, uint32_t at, uint64_t address, uint32_t size, uint16_t flags,
              uint16_t next) {
    uint8_t *d = g->ram + ring + 16 * at;
    memcpy(d, &address, 8);
    memcpy(d + 8, &size, 4);
    memcpy(d + 12, &flags, 2);
    memcpy(d + 14, &next, 2);
}

bool save_and_load(struct guest *g, struct dice *dice, uint64_t changes) {
    uint8_t state[4096];
    int size = core_chip_state_size(g->virtio);
    if (size > (int)sizeof state || core_chip_save(g->virtio, state, size) < 0) {
        return false;
    }
    while (changes--) {
        state[below(dice, (uint64_t)size)] ^= (uint8_t)draw(dice);
    }
    return core_chip_load(g->virtio, state, size) == 0;
}
