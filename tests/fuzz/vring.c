/* vring.c: a guest that writes anything into its rings and registers, many times a second, under sanitizers.
 *
 *     vring RUNS [SEED]
 *
 * One run is one driver's life: set up well or badly, rings filled with chains that are mostly possible, kicked, served,
 * completed in any order, saved and loaded. What must not happen is what the sanitizers report; the exit status says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"

enum { RAM = GUEST_RAM, QUEUE = 64, RINGS = 0x1000, BUFFERS = 0x8000, KICKS = 8 };

struct fuzz {
    struct dice dice;
    struct guest guest;
    uint64_t popped, broken, saved;
};

static uint64_t an_address(struct fuzz *f) {
    switch (below(&f->dice, 64)) {
    case 0: return draw(&f->dice);
    case 1: return RAM - below(&f->dice, 64);
    case 2: return RINGS + below(&f->dice, 0x4000);
    case 3: return UINT64_MAX - below(&f->dice, 64);
    default: return BUFFERS + below(&f->dice, RAM - BUFFERS);
    }
}

static uint32_t a_size(struct fuzz *f) {
    switch (below(&f->dice, 32)) {
    case 0: return (uint32_t)draw(&f->dice);
    case 1: return 0;
    case 3:
    case 2: return 16 * (uint32_t)below(&f->dice, 80);
    default: return (uint32_t)below(&f->dice, 512);
    }
}

/* Descriptors of any kind, in a ring or as an indirect table. */
static void fill(struct fuzz *f, uint64_t at, uint32_t count, bool packed) {
    for (uint32_t i = 0; i < count && at + 16 * (i + 1) <= RAM; i++) {
        uint64_t address = an_address(f);
        uint32_t size = a_size(f);
        uint16_t flags = (uint16_t)(rarely(&f->dice)     ? draw(&f->dice)
                                    : below(&f->dice, 3) ? 2 * below(&f->dice, 2)
                                                         : below(&f->dice, 5));
        flags |= packed && below(&f->dice, 4) ? 1 << 7 : 0;
        uint16_t other = (uint16_t)(rarely(&f->dice) ? draw(&f->dice) : below(&f->dice, QUEUE));
        memcpy(f->guest.ram + at + 16 * i, &address, 8);
        memcpy(f->guest.ram + at + 16 * i + 8, &size, 4);
        memcpy(f->guest.ram + at + 16 * i + 12, packed ? &other : &flags, 2);
        memcpy(f->guest.ram + at + 16 * i + 14, packed ? &flags : &other, 2);
    }
}

static void set_up(struct fuzz *f, bool packed) {
    uint64_t features = VIRTIO_F_VERSION_1 | (packed ? VIRTIO_F_PACKED : 0) |
                        (below(&f->dice, 2) ? VIRTIO_F_EVENT_IDX : 0) | (below(&f->dice, 4) ? VIRTIO_F_INDIRECT : 0) |
                        (rarely(&f->dice) ? draw(&f->dice) : 0);
    ask_features(&f->guest, features);
    put(&f->guest, REG_SIZE, 4,
        rarely(&f->dice) ? draw(&f->dice)
        : packed         ? 1 + below(&f->dice, QUEUE)
                         : 1ull << below(&f->dice, 7));
    const uint64_t areas[] = {RINGS, RINGS + 16 * QUEUE, RINGS + 16 * QUEUE + 0x400};
    for (uint32_t i = 0; i < 3; i++) {
        put(&f->guest, REG_DESC + 0x10 * i, 8, rarely(&f->dice) ? an_address(f) : areas[i]);
    }
    put(&f->guest, REG_READY, 4, 1);
    put(&f->guest, REG_STATUS, 4, 15);
}

static void serve(struct fuzz *f, core_vchain_info *kept, uint32_t *count) {
    uint8_t data[4096];
    core_vchain_info info;
    int rc;
    for (uint32_t n = 0; n < 2 * QUEUE && (rc = core_vq_pop(f->guest.virtio, 0, &info)) == 1; n++) {
        f->popped++;
        uint64_t size = below(&f->dice, sizeof data), offset = rarely(&f->dice) ? draw(&f->dice) : 0;
        core_vq_read(f->guest.virtio, 0, info.slot, info.epoch, offset, data, size);
        core_vq_write(f->guest.virtio, 0, info.slot, info.epoch, offset, data, size);
        kept[(*count)++ % QUEUE] = info;
    }
    while (*count && below(&f->dice, 4)) {
        const core_vchain_info *one = &kept[below(&f->dice, *count < QUEUE ? *count : QUEUE)];
        core_vq_push(f->guest.virtio, 0, one->slot, one->epoch, draw(&f->dice));
        core_vq_flush(f->guest.virtio, 0);
        if (rarely(&f->dice)) {
            *count = 0;
        }
    }
}

static void one_run(struct fuzz *f) {
    bool packed = below(&f->dice, 2);
    core_vchain_info kept[QUEUE];
    uint32_t count = 0;
    memset(kept, 0, sizeof kept);
    memset(f->guest.ram + RINGS, 0, BUFFERS - RINGS);
    set_up(f, packed);
    uint16_t idx = 0;
    for (uint64_t n = 1 + below(&f->dice, KICKS); n; n--) {
        fill(f, RINGS, (uint32_t)below(&f->dice, QUEUE), packed);
        fill(f, BUFFERS + 16 * below(&f->dice, 64), (uint32_t)below(&f->dice, 8), packed);
        idx = (uint16_t)(rarely(&f->dice) ? draw(&f->dice) : idx + below(&f->dice, 4));
        memcpy(f->guest.ram + RINGS + 16 * QUEUE + 2, &idx, 2);
        uint16_t head = (uint16_t)(rarely(&f->dice) ? draw(&f->dice) : below(&f->dice, QUEUE));
        memcpy(f->guest.ram + RINGS + 16 * QUEUE + 4 + 2 * below(&f->dice, QUEUE), &head, 2);
        put(&f->guest, rarely(&f->dice) ? below(&f->dice, 0x110) : REG_NOTIFY, 4,
            rarely(&f->dice) ? draw(&f->dice) : 0);
        serve(f, kept, &count);
        if (rarely(&f->dice)) {
            f->saved += save_and_load(&f->guest, &f->dice, below(&f->dice, 4));
        }
    }
    f->broken += (core_virtio_status(f->guest.virtio) & VIRTIO_NEEDS_RESET) != 0;
}

int main(int argc, char **argv) {
    uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
    struct fuzz f = {.dice.state = argc > 2 ? 2 * strtoull(argv[2], NULL, 0) + 1 : 0x9e3779b97f4a7c15ull};
    const uint16_t sizes[] = {QUEUE, 8};
    const uint64_t features = VIRTIO_F_VERSION_1 | VIRTIO_F_PACKED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT;
    if (!guest_new(&f.guest, core_virtio_new(4, features, sizes, 2, 16))) {
        return 2;
    }
    for (uint64_t n = 0; n < runs; n++) {
        one_run(&f);
    }
    printf("%llu runs, %llu chains, %llu broken, %llu loaded\n", (unsigned long long)runs, (unsigned long long)f.popped,
           (unsigned long long)f.broken, (unsigned long long)f.saved);
    guest_free(&f.guest);
    return f.popped && f.broken && f.saved ? 0 : 3;
}
