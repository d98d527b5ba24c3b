/* blk.c: a guest that asks a disk for anything, in any framing, while the block graph answers anything at any time, under
 * sanitizers.
 *
 *     blk RUNS [SEED [race]]
 *
 * One run is one driver's life on two split or packed queues: requests that are mostly possible, extents that come, are
 * void or lie about a file that is shorter, pauses, resets, queues that go and come back with another size while requests
 * are under way; with `race` another processor of the guest changes rings and buffers all the time. What must not happen
 * is what the sanitizers report; a request that never comes back is found too: at the end of a run that broke nothing all
 * are back. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blk.h"
#include "guest.h"

enum { QUEUES = 2, QUEUE = 64, RINGS = 0x1000, RING = 0x2000, BUFFERS = 0x8000, TABLE = 0xc000, DISK = 1 << 20 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15 };

struct fuzz {
    struct guest guest;
    struct dice dice;
    core_io *io;
    core_blk *blk;
    int fds[2];
    uint32_t queue;       /* where requests go now */
    uint16_t idx[QUEUES]; /* of what is available (split) */
    bool packed, has_racer;
    _Atomic bool racing, at_rest;
    uint64_t asked, answered, broken, done;
};

static void set_status(struct guest *g, uint32_t value) {
    if (value) {
        core_virtio_set_status(g->virtio, value);
    } else {
        core_blk_stop(((struct fuzz *)g)->blk);
        core_chip_reset(g->virtio);
    }
}

static void queue_off(struct guest *g, uint32_t queue, bool reset) {
    core_blk_queue_off(((struct fuzz *)g)->blk, queue, reset);
}

static uint64_t ring_at(struct fuzz *f) {
    return RINGS + f->queue * (uint64_t)RING;
}

/* A queue begins anew, whatever was under way in it. */
static void enable(struct fuzz *f, uint32_t size) {
    const uint64_t areas[] = {ring_at(f), ring_at(f) + 16 * QUEUE, ring_at(f) + 16 * QUEUE + 0x400};
    put(&f->guest, REG_QUEUE, 4, f->queue);
    put(&f->guest, REG_READY, 4, 0);
    memset(f->guest.ram + ring_at(f), 0, RING);
    f->idx[f->queue] = 0;
    put(&f->guest, REG_SIZE, 4, size);
    for (uint32_t i = 0; i < 3; i++) {
        put(&f->guest, REG_DESC + 0x10 * i, 8, areas[i]);
    }
    put(&f->guest, REG_READY, 4, 1);
}

static void set_up(struct fuzz *f) {
    f->packed = below(&f->dice, 2);
    ask_features(&f->guest, VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT | VIRTIO_F_RESET |
                                (below(&f->dice, 2) ? VIRTIO_F_EVENT_IDX : 0) | (f->packed ? VIRTIO_F_PACKED : 0));
    for (f->queue = 0; f->queue < QUEUES; f->queue++) {
        if (below(&f->dice, 8)) {
            enable(f, QUEUE);
        }
        core_virtio_kick_fd(f->guest.virtio, f->queue, core_blk_bell_fd(f->blk, f->queue));
    }
    f->queue = 0;
    put(&f->guest, REG_STATUS, 4, 15);
    core_blk_start(f->blk);
}

static void set_disk(struct fuzz *f) {
    core_blk_disk disk = {.size = below(&f->dice, 4) ? DISK : below(&f->dice, 2 * DISK),
                          .block_size = below(&f->dice, 4) ? 512 : 4096,
                          .max_discard = (uint32_t)below(&f->dice, 2) * 4096,
                          .max_zeroes = (uint32_t)below(&f->dice, 2) * 4096,
                          .flush_fd = below(&f->dice, 2) ? f->fds[below(&f->dice, 2)] : -(int)below(&f->dice, 2) - 1,
                          .read_only = rarely(&f->dice),
                          .on_read_error = (uint8_t)below(&f->dice, 4),
                          .on_write_error = (uint8_t)below(&f->dice, 4),
                          .use_uring = (uint8_t)below(&f->dice, 2)};
    core_blk_set_disk(f->blk, &disk);
    core_blk_set_writethrough(f->blk, (int)below(&f->dice, 2));
}

/* A request's descriptors, before they go into the ring or into a table. */
struct chain {
    core_vseg d[QUEUE];
    uint16_t flags[QUEUE];
    uint32_t count;
};

static void add(struct chain *c, uint64_t address, uint32_t size, uint16_t flags) {
    if (c->count < QUEUE) {
        c->d[c->count] = (core_vseg){.gpa = address, .size = size};
        c->flags[c->count++] = flags;
    }
}

/* A part of a request in pieces of any size. */
static void part(struct fuzz *f, struct chain *c, uint64_t address, uint32_t size, bool writable) {
    while (size && c->count < QUEUE - 1) {
        uint32_t piece = below(&f->dice, 2) ? size : 1 + (uint32_t)below(&f->dice, size);
        add(c, address, piece, (uint16_t)(NEXT | (writable ? WRITE : 0)));
        address += piece;
        size -= piece;
    }
}

/* Descriptor (n) of a chain at place (at) of a ring or table; a packed one has its id where a split one has flags. */
static void store(struct fuzz *f, uint64_t ring, uint32_t at, const struct chain *c, uint32_t n, uint16_t owner) {
    uint16_t flags = c->flags[n] | owner, next = (uint16_t)(at + 1);
    put_desc(&f->guest, ring, at, c->d[n].gpa, c->d[n].size, f->packed ? (uint16_t)draw(&f->dice) : flags,
             f->packed ? flags : next);
}

static void into_table(struct fuzz *f, struct chain *c) {
    for (uint32_t n = 0; n < c->count; n++) {
        store(f, TABLE, n, c, n, 0);
    }
    uint32_t size = rarely(&f->dice) ? (uint32_t)below(&f->dice, 2000) : 16 * c->count;
    c->count = 0;
    add(c, TABLE, size, INDIRECT);
}

/* A packed ring is written from where the device looks. */
static void into_ring(struct fuzz *f, const struct chain *c) {
    const struct core_vq *q = vq_of(f->guest.virtio, f->queue);
    uint16_t at = f->packed ? q->avail : 0, size = q->size && q->size <= QUEUE ? q->size : QUEUE;
    uint16_t head = rarely(&f->dice) && rarely(&f->dice) ? (uint16_t)draw(&f->dice) : 0;
    bool wrap = q->avail_wrap;
    for (uint32_t n = 0; n < c->count; n++) {
        store(f, ring_at(f), at, c, n, !f->packed ? 0 : wrap ? AVAIL : USED);
        if (++at >= (f->packed ? size : QUEUE)) {
            at = 0;
            wrap = !wrap;
        }
    }
    if (!f->packed) {
        uint8_t *avail = f->guest.ram + ring_at(f) + 16 * QUEUE;
        memcpy(avail + 4 + 2 * (f->idx[f->queue]++ % size), &head, 2);
        memcpy(avail + 2, &f->idx[f->queue], 2);
    }
}

static void offer(struct fuzz *f) {
    static const uint32_t types[] = {0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 2, 77};
    struct chain c = {.count = 0};
    uint32_t type = types[below(&f->dice, 12)], size = 512 * (uint32_t)below(&f->dice, 40);
    uint64_t sector = rarely(&f->dice) ? draw(&f->dice) : below(&f->dice, 2 * DISK / 512),
             header = BUFFERS + 32 * below(&f->dice, 64);
    if (type == 1 && below(&f->dice, 4) == 0) { /* as one who has written a lot in a row */
        f->blk->ahead.start = f->blk->ahead.end - DISK;
        sector = f->blk->ahead.end / 512;
    }
    memcpy(f->guest.ram + header, &type, 4);
    memcpy(f->guest.ram + header + 8, &sector, 8);
    if (type >= 11 && type <= 13) {
        uint32_t range[] = {(uint32_t)sector, 0, (uint32_t)below(&f->dice, 64), (uint32_t)below(&f->dice, 2)};
        memcpy(f->guest.ram + header + 16, range, 16);
    }
    bool out = type == 1 || (type >= 11 && type <= 13);
    part(f, &c, header, type >= 11 && type <= 13 ? 32 : 16, false);
    if (type < 2 || type == 8) {
        uint64_t at = rarely(&f->dice) ? ring_at(f) + below(&f->dice, RING) : BUFFERS + 512 * (8 + below(&f->dice, 64));
        part(f, &c, at, rarely(&f->dice) ? (uint32_t)draw(&f->dice) % 70000 : size, !out);
    }
    uint16_t odd = (uint16_t)draw(&f->dice) & (uint16_t)~(AVAIL | USED);
    add(&c, BUFFERS + below(&f->dice, 4096), rarely(&f->dice) ? 0 : 1, rarely(&f->dice) ? odd : WRITE);
    uint16_t size_now = vq_of(f->guest.virtio, f->queue)->size;
    if (below(&f->dice, 3) == 0 || (c.count > size_now && !rarely(&f->dice))) {
        into_table(f, &c);
    }
    into_ring(f, &c);
    put(&f->guest, REG_NOTIFY, 4, f->queue);
    f->asked++;
}

static void extent(struct fuzz *f, const core_blk_ask *ask) {
    uint64_t start = ask->offset - below(&f->dice, 1 + (ask->offset < 8192 ? ask->offset : 8192));
    uint64_t length = rarely(&f->dice) ? draw(&f->dice) : ask->offset - start + 1 + below(&f->dice, 65536);
    uint32_t kind = (uint32_t)below(&f->dice, 6), voids = core_blk_voids(f->blk) - rarely(&f->dice);
    int fd = f->fds[below(&f->dice, 2)];
    core_blk_extent(f->blk, voids, kind > 3 ? 0 : kind, start, length, rarely(&f->dice) ? -1 : fd,
                    rarely(&f->dice) ? draw(&f->dice) >> 1 : below(&f->dice, 2 * DISK), (int)below(&f->dice, 3));
}

/* The graph: does what it is asked, wrongly now and then, and whenever it likes. */
static void answer(struct fuzz *f, bool properly) {
    static const uint8_t zeroes[BLK_ASK_PIECE];
    core_blk_ask ask;
    for (int n = 0; n < 4 * QUEUE && core_blk_next_ask(f->blk, &ask) == 1; n++) {
        if (ask.kind == CORE_BLK_ASK_ERROR || (!properly && rarely(&f->dice))) {
            continue;
        }
        if (ask.kind == CORE_BLK_ASK_EXTENT || ask.kind == CORE_BLK_ASK_AHEAD) {
            extent(f, &ask);
        }
        uint8_t data[512];
        if (ask.kind == CORE_BLK_ASK_WRITE) {
            core_blk_ask_data(f->blk, ask.id, data, ask.size < sizeof data ? ask.size : sizeof data);
        }
        uint64_t id = ask.id ^ (rarely(&f->dice) ? 1ull << below(&f->dice, 64) : 0),
                 size = rarely(&f->dice) ? 0 : ask.size;
        f->answered +=
            core_blk_answer(f->blk, id, rarely(&f->dice) ? 1 + (int)below(&f->dice, 40) : 0, zeroes, size) == 0;
        f->answered += core_blk_answer(f->blk, ask.id, 0, zeroes, ask.size) == 0;
    }
}

static bool all_back(struct fuzz *f) {
    for (uint32_t i = 0; i < f->blk->req_count; i++) {
        if (f->blk->reqs[i].state != BLK_FREE && f->blk->reqs[i].state != BLK_ASKED) {
            return false;
        }
    }
    return true;
}

/* Another processor of the guest: what the device reads may be another thing the next moment. */
static void *race(void *arg) {
    struct fuzz *f = arg;
    struct dice dice = {.state = 0x5eed};
    for (;;) {
        atomic_store(&f->at_rest, !atomic_load(&f->racing));
        if (atomic_load(&f->at_rest)) {
            usleep(1);
            continue;
        }
        for (int n = 0; n < 64; n++) {
            uint64_t at = below(&dice, 2) ? RINGS + below(&dice, 2) * RING + below(&dice, 0x600) : BUFFERS;
            at += at == BUFFERS ? below(&dice, TABLE + 0x400 - BUFFERS) : 0;
            __atomic_store_n(f->guest.ram + at, (uint8_t)draw(&dice), __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

static void let_race(struct fuzz *f, bool on) {
    atomic_store(&f->racing, on);
    while (f->has_racer && !on && !atomic_load(&f->at_rest)) {
        usleep(1);
    }
}

/* What is mapped is as if it had been used a lot. */
static void warm(struct fuzz *f) {
    for (int i = 0; i < BLK_MAPS; i++) {
        struct blk_map *m = &f->blk->maps[i];
        for (uint64_t chunk = 0; m->at && chunk < DISK / BLK_MAP_CHUNK; chunk++) {
            m->heat[chunk] = below(&f->dice, 2) ? BLK_MAP_HOT : BLK_MAP_HOT / 2;
        }
    }
}

static bool one_run(struct fuzz *f) {
    memset(f->guest.ram + RINGS, 0, BUFFERS - RINGS);
    (void)!fallocate(f->fds[0], 0, 0, DISK); /* all of it is there */
    core_blk_void(f->blk, 0, UINT64_MAX);
    set_disk(f);
    set_up(f);
    let_race(f, true);
    for (uint64_t n = 1 + below(&f->dice, 24); n; n--) {
        offer(f);
        if (below(&f->dice, 2)) {
            core_io_run(f->io, 1000);
        }
        if (below(&f->dice, 2)) {
            answer(f, false);
        }
        f->queue = (uint32_t)below(&f->dice, QUEUES);
        warm(f);
        switch (below(&f->dice, 24)) {
        case 0: core_blk_void(f->blk, below(&f->dice, DISK), draw(&f->dice)); break;
        case 1: core_blk_hold(f->blk, 1); break;
        case 2: core_blk_hold(f->blk, 0); break;
        case 3: set_disk(f); break;
        case 4: (void)!ftruncate(f->fds[below(&f->dice, 2)], (off_t)below(&f->dice, DISK)); break;
        case 5: enable(f, rarely(&f->dice) ? (uint32_t)draw(&f->dice) : 1u << below(&f->dice, 7)); break;
        case 6: put(&f->guest, REG_READY, 4, 0); break;
        case 7: put(&f->guest, REG_RESET, 4, 1); break;
        default: break;
        }
    }
    let_race(f, false);
    for (int n = 0; n < 64; n++) {
        core_blk_hold(f->blk, 0);
        core_io_run(f->io, 1000);
        core_blk_void(f->blk, 0, 0);
        answer(f, true);
    }
    core_blk_hold(f->blk, 1);
    bool is_broken = core_virtio_status(f->guest.virtio) & VIRTIO_NEEDS_RESET;
    f->broken += is_broken;
    f->done += f->blk->counts.ops[0];
    core_blk_hold(f->blk, 0);
    return is_broken || !f->blk->running || f->blk->on_read_error || f->blk->on_write_error || all_back(f);
}

int main(int argc, char **argv) {
    uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
    struct fuzz f = {.dice.state = argc > 2 ? 2 * strtoull(argv[2], NULL, 0) + 1 : 0x9e3779b97f4a7c15ull};
    const uint16_t sizes[QUEUES] = {QUEUE, QUEUE};
    const uint64_t offered =
        VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT | VIRTIO_F_PACKED | VIRTIO_F_RESET;
    pthread_t racer;
    bool there = guest_new(&f.guest, core_virtio_new(2, offered, sizes, QUEUES, 60));
    f.io = core_io_new();
    f.fds[0] = memfd_create("disk", MFD_CLOEXEC);
    f.fds[1] = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (!there || !f.io || f.fds[0] < 0 || f.fds[1] < 0 || ftruncate(f.fds[0], DISK) < 0 ||
        ftruncate(f.fds[1], DISK) < 0) {
        return 2;
    }
    f.guest.set_status = set_status;
    f.guest.queue_off = queue_off;
    f.blk = core_blk_new(f.guest.virtio, f.io);
    f.has_racer = argc > 3 && pthread_create(&racer, NULL, race, &f) == 0;
    bool kept = f.blk != NULL;
    for (uint64_t n = 0; kept && n < runs; n++) {
        kept = one_run(&f);
    }
    printf("%llu runs, %llu requests, %llu answers, %llu broken%s\n", (unsigned long long)runs,
           (unsigned long long)f.asked, (unsigned long long)f.answered, (unsigned long long)f.broken,
           kept ? "" : ": a request never came back");
    if (f.has_racer) {
        pthread_cancel(racer);
        pthread_join(racer, NULL);
    }
    core_blk_free(f.blk);
    core_io_free(f.io);
    guest_free(&f.guest);
    return kept && f.done && f.answered && f.broken ? 0 : 3;
}
