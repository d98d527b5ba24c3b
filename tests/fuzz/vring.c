/* vring.c: a guest that writes anything into its rings and registers, many times a second, under sanitizers.
 *
 *     vring RUNS [SEED]
 *
 * One run is one driver's life: set up well or badly, rings filled with chains that are mostly possible, kicked, served,
 * completed in any order, saved and loaded. What must not happen is what the sanitizers report; the exit status says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "virtio.h"

enum { RAM = 1 << 18, QUEUE = 64, RINGS = 0x1000, BUFFERS = 0x8000, KICKS = 8, GUARD = 1 << 26 };
enum { STATUS = 0x70, READY = 0x44, SIZE = 0x38, NOTIFY = 0x50, DRIVER_SELECT = 0x24, DRIVER_FEATURES = 0x20 };

struct fuzz {
    uint64_t state;
    struct core_machine *machine;
    core_chip *virtio, *face;
    uint8_t *ram;
    uint64_t popped, broken, saved;
};

/* What the engine calls of the rest of the core. */
void core_ring(struct core_machine *m) {
    (void)m;
}

static uint64_t draw(struct fuzz *f) {
    f->state ^= f->state << 13;
    f->state ^= f->state >> 7;
    f->state ^= f->state << 17;
    return f->state;
}

static uint64_t below(struct fuzz *f, uint64_t limit) {
    return draw(f) % limit;
}

static bool rarely(struct fuzz *f) {
    return below(f, 16) == 0;
}

static void put(struct fuzz *f, uint64_t offset, uint32_t size, uint64_t value) {
    uint32_t reg;
    while (size) {
        uint32_t part = size;
        uint64_t data = value;
        if (core_chip_access(f->face, offset, &part, 1, &data, &reg) == CORE_HANDOVER && reg == CORE_VIRTIO_STATUS) {
            core_virtio_set_status(f->virtio, data & 0xff);
        }
        offset += part;
        size -= part;
        value = part < 8 ? value >> (8 * part) : 0;
    }
}

static uint64_t an_address(struct fuzz *f) {
    switch (below(f, 64)) {
    case 0: return draw(f);
    case 1: return RAM - below(f, 64);
    case 2: return RINGS + below(f, 0x4000);
    case 3: return UINT64_MAX - below(f, 64);
    default: return BUFFERS + below(f, RAM - BUFFERS);
    }
}

static uint32_t a_size(struct fuzz *f) {
    switch (below(f, 32)) {
    case 0: return (uint32_t)draw(f);
    case 1: return 0;
    case 3:
    case 2: return 16 * (uint32_t)below(f, 80);
    default: return (uint32_t)below(f, 512);
    }
}

/* Descriptors of any kind, in a ring or as an indirect table. */
static void fill(struct fuzz *f, uint64_t at, uint32_t count, bool packed) {
    for (uint32_t i = 0; i < count && at + 16 * (i + 1) <= RAM; i++) {
        uint64_t address = an_address(f);
        uint32_t size = a_size(f);
        uint16_t flags = (uint16_t)(rarely(f) ? draw(f) : below(f, 3) ? 2 * below(f, 2) : below(f, 5));
        flags |= packed && below(f, 4) ? 1 << 7 : 0;
        uint16_t other = (uint16_t)(rarely(f) ? draw(f) : below(f, QUEUE));
        memcpy(f->ram + at + 16 * i, &address, 8);
        memcpy(f->ram + at + 16 * i + 8, &size, 4);
        memcpy(f->ram + at + 16 * i + 12, packed ? &other : &flags, 2);
        memcpy(f->ram + at + 16 * i + 14, packed ? &flags : &other, 2);
    }
}

static void set_up(struct fuzz *f, bool packed) {
    uint64_t features = VIRTIO_F_VERSION_1 | (packed ? VIRTIO_F_PACKED : 0) | (below(f, 2) ? VIRTIO_F_EVENT_IDX : 0) |
                        (below(f, 4) ? VIRTIO_F_INDIRECT : 0) | (rarely(f) ? draw(f) : 0);
    put(f, STATUS, 4, 0);
    put(f, STATUS, 4, 3);
    for (uint32_t half = 0; half < 2; half++) {
        put(f, DRIVER_SELECT, 4, half);
        put(f, DRIVER_FEATURES, 4, features >> (32 * half));
    }
    put(f, STATUS, 4, 11);
    put(f, SIZE, 4, rarely(f) ? draw(f) : packed ? 1 + below(f, QUEUE) : 1ull << below(f, 7));
    const uint64_t areas[] = {RINGS, RINGS + 16 * QUEUE, RINGS + 16 * QUEUE + 0x400};
    for (uint32_t i = 0; i < 3; i++) {
        put(f, 0x80 + 0x10 * i, 8, rarely(f) ? an_address(f) : areas[i]);
    }
    put(f, READY, 4, 1);
    put(f, STATUS, 4, 15);
}

static void serve(struct fuzz *f, core_vchain_info *kept, uint32_t *count) {
    uint8_t data[4096];
    core_vchain_info info;
    int rc;
    for (uint32_t n = 0; n < 2 * QUEUE && (rc = core_vq_pop(f->virtio, 0, &info)) == 1; n++) {
        f->popped++;
        uint64_t size = below(f, sizeof data), offset = rarely(f) ? draw(f) : 0;
        core_vq_read(f->virtio, 0, info.slot, info.epoch, offset, data, size);
        core_vq_write(f->virtio, 0, info.slot, info.epoch, offset, data, size);
        kept[(*count)++ % QUEUE] = info;
    }
    while (*count && below(f, 4)) {
        const core_vchain_info *one = &kept[below(f, *count < QUEUE ? *count : QUEUE)];
        core_vq_push(f->virtio, 0, one->slot, one->epoch, draw(f));
        core_vq_flush(f->virtio, 0);
        if (rarely(f)) {
            *count = 0;
        }
    }
}

static void save_and_load(struct fuzz *f) {
    uint8_t state[4096];
    int size = core_chip_state_size(f->virtio);
    if (size > (int)sizeof state || core_chip_save(f->virtio, state, size) < 0) {
        return;
    }
    for (uint64_t n = below(f, 4); n; n--) {
        state[below(f, (uint64_t)size)] ^= (uint8_t)draw(f);
    }
    f->saved += core_chip_load(f->virtio, state, size) == 0;
}

static void one_run(struct fuzz *f) {
    bool packed = below(f, 2);
    core_vchain_info kept[QUEUE];
    uint32_t count = 0;
    memset(kept, 0, sizeof kept);
    memset(f->ram + RINGS, 0, BUFFERS - RINGS);
    set_up(f, packed);
    uint16_t idx = 0;
    for (uint64_t n = 1 + below(f, KICKS); n; n--) {
        fill(f, RINGS, (uint32_t)below(f, QUEUE), packed);
        fill(f, BUFFERS + 16 * below(f, 64), (uint32_t)below(f, 8), packed);
        idx = (uint16_t)(rarely(f) ? draw(f) : idx + below(f, 4));
        memcpy(f->ram + RINGS + 16 * QUEUE + 2, &idx, 2);
        uint16_t head = (uint16_t)(rarely(f) ? draw(f) : below(f, QUEUE));
        memcpy(f->ram + RINGS + 16 * QUEUE + 4 + 2 * below(f, QUEUE), &head, 2);
        put(f, rarely(f) ? below(f, 0x110) : NOTIFY, 4, rarely(f) ? draw(f) : 0);
        serve(f, kept, &count);
        if (rarely(f)) {
            save_and_load(f);
        }
    }
    f->broken += (core_virtio_status(f->virtio) & VIRTIO_NEEDS_RESET) != 0;
}

int main(int argc, char **argv) {
    uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
    struct fuzz f = {.state = argc > 2 ? strtoull(argv[2], NULL, 0) | 1 : 0x9e3779b97f4a7c15ull};
    const uint16_t sizes[] = {QUEUE, 8};
    f.machine = calloc(1, sizeof *f.machine);
    uint8_t *space = mmap(NULL, RAM + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    f.ram = space + GUARD; /* nothing is mapped around it: whoever leaves it faults */
    f.virtio =
        core_virtio_new(4, VIRTIO_F_VERSION_1 | VIRTIO_F_PACKED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT, sizes, 2, 16);
    if (!f.machine || space == MAP_FAILED || mprotect(f.ram, RAM, PROT_READ | PROT_WRITE) < 0 || !f.virtio) {
        return 2;
    }
    f.face = core_virtio_face_new(f.virtio, CORE_VIRTIO_MMIO);
    f.machine->ram[0] = (struct core_ram){.size = RAM, .host = f.ram, .used = true};
    core_chip_wire(f.virtio, f.machine, -1);
    for (uint64_t n = 0; n < runs; n++) {
        one_run(&f);
    }
    printf("%llu runs, %llu chains, %llu broken, %llu loaded\n", (unsigned long long)runs, (unsigned long long)f.popped,
           (unsigned long long)f.broken, (unsigned long long)f.saved);
    core_chip_free(f.face);
    core_chip_free(f.virtio);
    munmap(space, RAM + 2 * GUARD);
    free(f.machine);
    return f.popped && f.broken && f.saved ? 0 : 3;
}
