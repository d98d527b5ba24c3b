/* blk.c: a guest that asks a disk for anything, in any framing, while the block graph answers anything at any time, under
 * sanitizers.
 *
 *     blk RUNS [SEED]
 *
 * One run is one driver's life: requests that are mostly possible, extents that come, are void or lie about a file that is
 * shorter, pauses, resets. What must not happen is what the sanitizers report; a request that never comes back is found
 * too: at the end of a run that broke nothing all are. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blk.h"

enum { RAM = 1 << 18, QUEUE = 64, RINGS = 0x1000, BUFFERS = 0x8000, GUARD = 1 << 26, DISK = 1 << 20 };
enum { STATUS = 0x70, READY = 0x44, SIZE = 0x38, NOTIFY = 0x50, DRIVER_SELECT = 0x24, DRIVER_FEATURES = 0x20 };

struct fuzz {
    uint64_t state;
    struct core_machine *machine;
    core_chip *virtio, *face;
    core_io *io;
    core_blk *blk;
    uint8_t *ram;
    int fds[2];
    uint16_t idx;
    uint64_t asked, answered, broken, done;
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
            if (data & 0xff) {
                core_virtio_set_status(f->virtio, data & 0xff);
            } else {
                core_blk_stop(f->blk);
                core_chip_reset(f->virtio);
            }
        }
        offset += part;
        size -= part;
        value = part < 8 ? value >> (8 * part) : 0;
    }
}

static void set_up(struct fuzz *f) {
    uint64_t features = VIRTIO_F_VERSION_1 | (below(f, 2) ? VIRTIO_F_EVENT_IDX : 0);
    put(f, STATUS, 4, 0);
    put(f, STATUS, 4, 3);
    for (uint32_t half = 0; half < 2; half++) {
        put(f, DRIVER_SELECT, 4, half);
        put(f, DRIVER_FEATURES, 4, features >> (32 * half));
    }
    put(f, STATUS, 4, 11);
    put(f, SIZE, 4, QUEUE);
    const uint64_t areas[] = {RINGS, RINGS + 16 * QUEUE, RINGS + 16 * QUEUE + 0x400};
    for (uint32_t i = 0; i < 3; i++) {
        put(f, 0x80 + 0x10 * i, 8, areas[i]);
    }
    put(f, READY, 4, 1);
    put(f, STATUS, 4, 15);
    core_virtio_kick_fd(f->virtio, 0, core_blk_bell_fd(f->blk, 0));
    core_blk_start(f->blk);
}

static void set_disk(struct fuzz *f) {
    core_blk_disk disk = {.size = below(f, 4) ? DISK : below(f, 2 * DISK),
                          .block_size = below(f, 4) ? 512 : 4096,
                          .max_discard = (uint32_t)below(f, 2) * 4096,
                          .max_zeroes = (uint32_t)below(f, 2) * 4096,
                          .flush_fd = below(f, 2) ? f->fds[below(f, 2)] : -(int)below(f, 2) - 1,
                          .read_only = rarely(f),
                          .on_read_error = (uint8_t)below(f, 4),
                          .on_write_error = (uint8_t)below(f, 4),
                          .use_uring = (uint8_t)below(f, 2)};
    core_blk_set_disk(f->blk, &disk);
    core_blk_set_writethrough(f->blk, (int)below(f, 2));
}

static void desc(struct fuzz *f, uint32_t at, uint64_t address, uint32_t size, uint16_t flags, uint16_t next) {
    uint8_t *d = f->ram + RINGS + 16 * at;
    memcpy(d, &address, 8);
    memcpy(d + 8, &size, 4);
    memcpy(d + 12, &flags, 2);
    memcpy(d + 14, &next, 2);
}

/* A part of a request in pieces of any size; the number of the descriptor after it. */
static uint32_t part(struct fuzz *f, uint32_t at, uint64_t address, uint32_t size, bool writable) {
    while (size && at < QUEUE - 1) {
        uint32_t piece = below(f, 2) ? size : 1 + (uint32_t)below(f, size);
        desc(f, at, address, piece, (uint16_t)(1 | (writable ? 2 : 0)), (uint16_t)(at + 1));
        address += piece;
        size -= piece;
        at++;
    }
    return at;
}

static void offer(struct fuzz *f) {
    static const uint32_t types[] = {0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 2, 77};
    uint32_t type = types[below(f, 12)], size = 512 * (uint32_t)below(f, 40);
    uint64_t sector = rarely(f) ? draw(f) : below(f, 2 * DISK / 512), header = BUFFERS + 32 * below(f, 64);
    memcpy(f->ram + header, &type, 4);
    memcpy(f->ram + header + 8, &sector, 8);
    if (type >= 11 && type <= 13) {
        uint32_t range[] = {(uint32_t)sector, 0, (uint32_t)below(f, 64), (uint32_t)below(f, 2)};
        memcpy(f->ram + header + 16, range, 16);
    }
    bool out = type == 1 || (type >= 11 && type <= 13);
    uint32_t at = part(f, 0, header, type >= 11 && type <= 13 ? 32 : 16, false);
    if (type < 2 || type == 8) {
        at = part(f, at, BUFFERS + 4096 + below(f, 64) * 512, rarely(f) ? (uint32_t)draw(f) % 70000 : size, !out);
    }
    desc(f, at, BUFFERS + below(f, 4096), rarely(f) ? 0 : 1, rarely(f) ? (uint16_t)draw(f) : 2,
         (uint16_t)below(f, QUEUE));
    uint16_t head = rarely(f) && rarely(f) ? (uint16_t)draw(f) : 0;
    memcpy(f->ram + RINGS + 16 * QUEUE + 4 + 2 * (f->idx % QUEUE), &head, 2);
    f->idx++;
    memcpy(f->ram + RINGS + 16 * QUEUE + 2, &f->idx, 2);
    put(f, NOTIFY, 4, 0);
    f->asked++;
}

static void extent(struct fuzz *f, const core_blk_ask *ask) {
    uint64_t start = ask->offset - below(f, 1 + (ask->offset < 8192 ? ask->offset : 8192));
    uint64_t length = rarely(f) ? draw(f) : ask->offset - start + 1 + below(f, 65536);
    uint32_t kind = (uint32_t)below(f, 6), voids = core_blk_voids(f->blk) - rarely(f);
    int fd = f->fds[below(f, 2)];
    core_blk_extent(f->blk, voids, kind > 3 ? 0 : kind, start, length, rarely(f) ? -1 : fd,
                    rarely(f) ? draw(f) >> 1 : below(f, 2 * DISK), (int)below(f, 3));
}

/* The graph: does what it is asked, wrongly now and then, and whenever it likes. */
static void answer(struct fuzz *f, bool properly) {
    static const uint8_t zeroes[BLK_ASK_PIECE];
    core_blk_ask ask;
    for (int n = 0; n < 4 * QUEUE && core_blk_next_ask(f->blk, &ask) == 1; n++) {
        if (ask.kind == CORE_BLK_ASK_ERROR || (!properly && rarely(f))) {
            continue;
        }
        if (ask.kind == CORE_BLK_ASK_EXTENT) {
            extent(f, &ask);
        }
        uint8_t data[512];
        if (ask.kind == CORE_BLK_ASK_WRITE) {
            core_blk_ask_data(f->blk, ask.id, data, ask.size < sizeof data ? ask.size : sizeof data);
        }
        uint64_t id = ask.id ^ (rarely(f) ? 1ull << below(f, 64) : 0), size = rarely(f) ? 0 : ask.size;
        f->answered += core_blk_answer(f->blk, id, rarely(f) ? 1 + (int)below(f, 40) : 0, zeroes, size) == 0;
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

static bool one_run(struct fuzz *f) {
    memset(f->ram + RINGS, 0, BUFFERS - RINGS);
    f->idx = 0;
    core_blk_void(f->blk, 0, UINT64_MAX);
    set_disk(f);
    set_up(f);
    for (uint64_t n = 1 + below(f, 24); n; n--) {
        offer(f);
        if (below(f, 2)) {
            core_io_run(f->io, 1000);
        }
        if (below(f, 2)) {
            answer(f, false);
        }
        switch (below(f, 24)) {
        case 0: core_blk_void(f->blk, below(f, DISK), draw(f)); break;
        case 1: core_blk_hold(f->blk, 1); break;
        case 2: core_blk_hold(f->blk, 0); break;
        case 3: set_disk(f); break;
        case 4: (void)!ftruncate(f->fds[1], (off_t)below(f, DISK)); break;
        default: break;
        }
    }
    for (int n = 0; n < 64; n++) {
        core_blk_hold(f->blk, 0);
        core_io_run(f->io, 1000);
        core_blk_void(f->blk, 0, 0);
        answer(f, true);
    }
    core_blk_hold(f->blk, 1);
    bool is_broken = core_virtio_status(f->virtio) & VIRTIO_NEEDS_RESET;
    f->broken += is_broken;
    f->done += f->blk->counts.ops[0];
    core_blk_hold(f->blk, 0);
    return is_broken || !f->blk->running || f->blk->on_read_error || f->blk->on_write_error || all_back(f);
}

int main(int argc, char **argv) {
    uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
    struct fuzz f = {.state = argc > 2 ? strtoull(argv[2], NULL, 0) | 1 : 0x9e3779b97f4a7c15ull};
    const uint16_t sizes[] = {QUEUE};
    f.machine = calloc(1, sizeof *f.machine);
    uint8_t *space = mmap(NULL, RAM + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    f.ram = space + GUARD; /* nothing is mapped around it: whoever leaves it faults */
    f.virtio = core_virtio_new(2, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX, sizes, 1, 60);
    f.io = core_io_new();
    f.fds[0] = memfd_create("disk", MFD_CLOEXEC);
    f.fds[1] = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (!f.machine || space == MAP_FAILED || mprotect(f.ram, RAM, PROT_READ | PROT_WRITE) < 0 || !f.virtio || !f.io ||
        f.fds[0] < 0 || f.fds[1] < 0 || ftruncate(f.fds[0], DISK) < 0 || ftruncate(f.fds[1], DISK) < 0) {
        return 2;
    }
    f.face = core_virtio_face_new(f.virtio, CORE_VIRTIO_MMIO);
    f.machine->ram[0] = (struct core_ram){.size = RAM, .host = f.ram, .used = true};
    core_chip_wire(f.virtio, f.machine, -1);
    f.blk = core_blk_new(f.virtio, f.io);
    bool kept = f.blk != NULL;
    for (uint64_t n = 0; kept && n < runs; n++) {
        kept = one_run(&f);
    }
    printf("%llu runs, %llu requests, %llu answers, %llu broken%s\n", (unsigned long long)runs,
           (unsigned long long)f.asked, (unsigned long long)f.answered, (unsigned long long)f.broken,
           kept ? "" : ": a request never came back");
    core_blk_free(f.blk);
    core_io_free(f.io);
    core_chip_free(f.face);
    core_chip_free(f.virtio);
    munmap(space, RAM + 2 * GUARD);
    free(f.machine);
    return kept && f.done && f.answered && f.broken ? 0 : 3;
}
