/* guest.h: what the fuzz programs share: dice, and a guest that pokes a virtio device's registers and its own memory. */
#pragma once

#include "virtio.h"

enum { GUEST_RAM = 1 << 18, GUEST_GUARD = 1 << 26 };
enum {
    REG_DRIVER_FEATURES = 0x20,
    REG_DRIVER_SELECT = 0x24,
    REG_QUEUE = 0x30,
    REG_SIZE = 0x38,
    REG_READY = 0x44,
    REG_NOTIFY = 0x50,
    REG_STATUS = 0x70,
    REG_DESC = 0x80, /* then driver and device, 0x10 apart */
    REG_RESET = 0xc0,
};

struct dice {
    uint64_t state;
};

uint64_t draw(struct dice *dice);
uint64_t below(struct dice *dice, uint64_t limit);
bool rarely(struct dice *dice); /* one in 16 */

struct guest {
    struct core_machine *machine;
    core_chip *virtio, *face;
    uint8_t *ram; /* nothing is mapped around it: whoever leaves it faults */
    void (*set_status)(struct guest *g, uint32_t value);
    void (*queue_off)(struct guest *g, uint32_t queue, bool reset);
};

/* A guest of its own around (virtio), which is this guest's from now on. False: no memory. */
bool guest_new(struct guest *g, core_chip *virtio);
void guest_free(struct guest *g);

/* Write a register file's bytes, as the driver does. */
void put(struct guest *g, uint64_t offset, uint32_t size, uint64_t value);
/* Reset it, and say what features are wanted. */
void ask_features(struct guest *g, uint64_t features);
/* Descriptor (at) of the split ring at (ring). */
void put_desc(struct guest *g, uint64_t ring, uint32_t at, uint64_t address, uint32_t size, uint16_t flags,
              uint16_t next);
/* Save the device, change up to (changes) bytes, and load it: whether it was taken. */
bool save_and_load(struct guest *g, struct dice *dice, uint64_t changes);
