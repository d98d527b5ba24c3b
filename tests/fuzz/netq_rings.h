/* netq_rings.h: the rings of a guest's network card, of both kinds, and frames to put there: good, or nearly. */
#pragma once

#include "guest.h"
#include "netq.h"

enum {
    QUEUES = 4,
    QUEUE = 64,
    RINGS = 0x1000, /* one after the other: descriptors, what the driver offers, what the device gives back */
    RING = 0x1000,
    DRIVER = 0x400,
    DEVICE = 0x800,
    BUFFERS = 0x8000,
    LONGEST = CORE_FRAME_MAX + 32,
};

/* What a driver knows of its rings. */
struct rings {
    bool packed, wild; /* wild: they are garbage as well */
    struct {
        uint16_t at, offered; /* split: the index so far */
        bool wrap;            /* packed */
    } each[QUEUES];
};

uint64_t ring_of(uint32_t q);
/* Empty ones. */
void rings_clear(struct guest *g, struct rings *rings);
/* Offer (size) bytes from (address) on as a chain, in pieces of any size. */
void rings_offer(struct guest *g, struct rings *rings, struct dice *dice, uint32_t q, uint64_t address, uint32_t size,
                 bool writable);
/* Everything was given back, where the rings are what they should be. */
bool rings_are_back(const struct guest *g, const struct rings *rings);

uint32_t a_length(struct dice *dice);
/* A header and a frame of (size) bytes at (at) that look like something. */
void make_frame(struct dice *dice, uint8_t *at, uint32_t size);
