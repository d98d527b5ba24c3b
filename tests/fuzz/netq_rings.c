/* netq_rings.c: netq_rings.h says what this is. */
#include "netq_rings.h"

#include <string.h>

uint64_t ring_of(uint32_t q) {
    return RINGS + (uint64_t)RING * q;
}

void rings_clear(struct guest *g, struct rings *rings) {
    memset(g->ram + RINGS, 0, RING * QUEUES);
    memset(rings->each, 0, sizeof rings->each);
    for (uint32_t q = 0; q < QUEUES; q++) {
        rings->each[q].wrap = true;
    }
}

/* One more piece of a chain; (more) follow. */
static void piece(struct guest *g, struct rings *rings, struct dice *dice, uint32_t q, uint64_t address, uint32_t size,
                  bool writable, bool more) {
    uint16_t flags = (uint16_t)((more ? 1 : 0) | (writable ? 2 : 0)), at = rings->each[q].at;
    if (rings->wild && rarely(dice)) {
        address = draw(dice) >> below(dice, 64);
        size = (uint32_t)draw(dice) >> below(dice, 32);
        flags ^= (uint16_t)(1u << below(dice, 16));
    }
    if (rings->packed) {
        flags |= rings->each[q].wrap ? 1 << 7 : 1 << 15;
        put_desc(g, ring_of(q), at, address, size, at, flags);
    } else {
        uint16_t next = (uint16_t)(rings->wild && rarely(dice) ? draw(dice) : (at + 1) % QUEUE);
        put_desc(g, ring_of(q), at, address, size, flags, next);
    }
    rings->each[q].at = (uint16_t)((at + 1) % QUEUE);
    rings->each[q].wrap ^= at + 1 == QUEUE;
}

void rings_offer(struct guest *g, struct rings *rings, struct dice *dice, uint32_t q, uint64_t address, uint32_t size,
                 bool writable) {
    uint16_t head = rings->each[q].at;
    uint32_t pieces = 1 + (uint32_t)(below(dice, 2) ? 0 : below(dice, 5));
    while (pieces) {
        uint32_t part = pieces > 1 && size ? (uint32_t)below(dice, size) : size;
        pieces--;
        piece(g, rings, dice, q, address, part, writable, pieces > 0);
        address += part;
        size -= part;
    }
    if (!rings->packed) {
        uint8_t *avail = g->ram + ring_of(q) + DRIVER;
        uint16_t number = (uint16_t)(rings->wild && rarely(dice) && rarely(dice) ? draw(dice) : head);
        memcpy(avail + 4 + 2 * (rings->each[q].offered % QUEUE), &number, 2);
        rings->each[q].offered += rings->wild && rarely(dice) && rarely(dice) ? (uint16_t)draw(dice) : 1;
        memcpy(avail + 2, &rings->each[q].offered, 2);
    }
}

bool rings_are_back(const struct guest *g, const struct rings *rings) {
    uint32_t status = core_virtio_status(g->virtio);
    if (rings->wild || rings->packed || !(status & VIRTIO_DRIVER_OK) || (status & VIRTIO_NEEDS_RESET)) {
        return true;
    }
    for (uint32_t q = 1; q < QUEUES; q += 2) {
        uint16_t used;
        memcpy(&used, g->ram + ring_of(q) + DEVICE + 2, 2);
        if (used != rings->each[q].offered) {
            return false;
        }
    }
    return true;
}
