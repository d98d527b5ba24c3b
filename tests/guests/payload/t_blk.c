/*
 * t_blk.c: a polling virtio-blk driver over virtio-mmio (Virtio 1.2, 4.2 and 5.2), for the time that requests take:
 *
 *     blk qd=32 size=4096 write=0 seq=0 ms=500 check=0
 *
 * Keeps (qd) requests in flight on the first disk found for (ms), and prints requests, time and their quantiles. It asks
 * for no interrupts and rings only when the device wants to hear. check=1 first writes a pattern and reads it back.
 */
#include "tests.h"

#define SLOTS_AT   0xfeb00000
#define SLOT_SIZE  0x200
#define SLOTS      24
#define RING       256
#define IN_FLIGHT  64
#define RINGS_AT   0x2000000ull
#define HEADERS_AT 0x2010000ull
#define BUFFERS_AT 0x2100000ull
#define ROOM       (40u << 20)

#define F_EVENT_IDX (1u << 29)

enum { READ, WRITE };
enum { DEVICE_ID = 0x08, FEATURES = 0x10, FEATURES_SEL = 0x14, DRIVER = 0x20, DRIVER_SEL = 0x24, QUEUE_SEL = 0x30 };
enum { QUEUE_NUM = 0x38, QUEUE_READY = 0x44, NOTIFY = 0x50, STATUS = 0x70, DESC = 0x80, AVAIL = 0x90, USED = 0xa0 };
enum { CAPACITY = 0x100 };

struct desc {
    uint64_t address;
    uint32_t size;
    uint16_t flags, next;
};

struct used {
    uint32_t id, size;
};

struct header {
    uint32_t type, reserved;
    uint64_t sector;
    uint8_t status;
    uint8_t unused[7];
    uint64_t begun;
};

struct disk {
    uint64_t at, sectors;
    bool events;
    volatile struct desc *desc;
    volatile uint16_t *avail; /* flags, index, ring, used_event */
    volatile uint16_t *used_index;
    volatile struct used *used;
    volatile uint16_t *avail_event;
    volatile struct header *headers;
    uint16_t next, rung, seen;
};

static uint64_t find_disk(void) {
    for (uint64_t i = 0; i < SLOTS; i++)
        if (read32(SLOTS_AT + i * SLOT_SIZE) == 0x74726976 && read32(SLOTS_AT + i * SLOT_SIZE + DEVICE_ID) == 2)
            return SLOTS_AT + i * SLOT_SIZE;
    return 0;
}

static void set64(uint64_t at, uint64_t value) {
    write32(at, (uint32_t)value);
    write32(at + 4, (uint32_t)(value >> 32));
}

static bool set_up(struct disk *d) {
    d->at = find_disk();
    if (!d->at)
        return false;
    write32(d->at + STATUS, 0);
    write32(d->at + STATUS, 1);
    write32(d->at + STATUS, 3);
    write32(d->at + FEATURES_SEL, 0);
    d->events = read32(d->at + FEATURES) & F_EVENT_IDX;
    write32(d->at + DRIVER_SEL, 0);
    write32(d->at + DRIVER, (d->events ? F_EVENT_IDX : 0) | 1u << 9); /* flush: so that writes may be cached */
    write32(d->at + DRIVER_SEL, 1);
    write32(d->at + DRIVER, 1);
    write32(d->at + STATUS, 11);
    if (!(read32(d->at + STATUS) & 8))
        return false;
    d->desc = (volatile struct desc *)RINGS_AT;
    d->avail = (volatile uint16_t *)(RINGS_AT + 0x2000);
    d->used_index = (volatile uint16_t *)(RINGS_AT + 0x4002);
    d->used = (volatile struct used *)(RINGS_AT + 0x4004);
    d->avail_event = (volatile uint16_t *)(RINGS_AT + 0x4004 + RING * sizeof(struct used));
    d->headers = (volatile struct header *)HEADERS_AT;
    d->avail[0] = 1;
    write32(d->at + QUEUE_SEL, 0);
    write32(d->at + QUEUE_NUM, RING);
    set64(d->at + DESC, RINGS_AT);
    set64(d->at + AVAIL, RINGS_AT + 0x2000);
    set64(d->at + USED, RINGS_AT + 0x4000);
    write32(d->at + QUEUE_READY, 1);
    write32(d->at + STATUS, 15);
    d->sectors = read32(d->at + CAPACITY) | (uint64_t)read32(d->at + CAPACITY + 4) << 32;
    return true;
}

/* Request (slot): its three descriptors and its header are its own. */
static void offer(struct disk *d, uint32_t slot, uint32_t type, uint64_t sector, uint32_t size) {
    volatile struct header *h = &d->headers[slot];
    volatile struct desc *desc = &d->desc[3 * slot];

    h->type = type;
    h->sector = sector;
    h->status = 0xff;
    h->begun = tsc();
    desc[0] = (struct desc){(uint64_t)(uintptr_t)h, 16, 1, (uint16_t)(3 * slot + 1)};
    desc[1] = (struct desc){BUFFERS_AT + (uint64_t)slot * size, size, (uint16_t)(type == READ ? 3 : 1),
                            (uint16_t)(3 * slot + 2)};
    desc[2] = (struct desc){(uint64_t)(uintptr_t)&h->status, 1, 2, 0};
    d->avail[2 + d->next % RING] = (uint16_t)(3 * slot);
    d->next++;
}

static void ring(struct disk *d) {
    uint16_t wanted;

    __asm__ volatile("" ::: "memory");
    d->avail[1] = d->next;
    __asm__ volatile("mfence" ::: "memory");
    wanted = *d->avail_event;
    if (d->events ? (uint16_t)(d->next - wanted - 1) < (uint16_t)(d->next - d->rung) : !(d->used_index[-1] & 1))
        write32(d->at + NOTIFY, 0);
    d->rung = d->next;
    if (d->events)
        d->avail[2 + RING] = (uint16_t)(d->seen - 1); /* no interrupt: the furthest away */
}

/* The next that is done, or -1. */
static int take(struct disk *d) {
    if (*d->used_index == d->seen)
        return -1;
    __asm__ volatile("" ::: "memory");
    return (int)(d->used[d->seen++ % RING].id / 3);
}

static int wait_for(struct disk *d) {
    int slot;

    while ((slot = take(d)) < 0)
        pause();
    return slot;
}

static int transfer(struct disk *d, uint32_t type, uint64_t sector, uint32_t size) {
    offer(d, 0, type, sector, size);
    ring(d);
    return d->headers[wait_for(d)].status;
}

static int check(struct disk *d) {
    volatile uint64_t *words = (volatile uint64_t *)BUFFERS_AT;
    uint32_t count = 65536 / 8;

    for (uint32_t pass = 0; pass < 16; pass++) {
        for (uint32_t i = 0; i < count; i++)
            words[i] = i * 0x9e3779b97f4a7c15ull + pass;
        if (transfer(d, WRITE, 128 * pass, 65536))
            return fail("write %u\n", pass);
        for (uint32_t i = 0; i < count; i++)
            words[i] = 0;
        if (transfer(d, READ, 128 * pass, 65536))
            return fail("read %u\n", pass);
        for (uint32_t i = 0; i < count; i++)
            if (words[i] != i * 0x9e3779b97f4a7c15ull + pass)
                return fail("pass %u: word %u is wrong\n", pass, i);
    }
    return transfer(d, READ, d->sectors, 512) == 1 ? 0 : fail("a read beyond the end was not refused\n");
}

int test_blk(void) {
    static struct disk disk;
    struct disk *d = &disk;
    uint32_t qd = (uint32_t)arg("qd", 1), size = (uint32_t)arg("size", 4096), type = arg("write", 0) ? WRITE : READ;
    uint64_t state = 0x1234567, done = 0, bad = 0, at = 0, begin, now, end;

    if (!set_up(d))
        return fail("no disk\n");
    if (qd < 1 || qd > IN_FLIGHT || (uint64_t)qd * size > ROOM || d->sectors * 512 < size)
        return fail("qd or size\n");
    if (arg("check", 0) && check(d))
        return 1;
    begin = tsc();
    end = begin + arg("ms", 500) * tsc_per_ms();
    begin = tsc();
    for (uint32_t i = 0; i < qd; i++)
        d->headers[i].status = 0;
    for (uint64_t offered = 0, busy = 0; busy || offered == 0;) {
        now = tsc();
        if (offered == 0) {
            for (uint32_t i = 0; i < qd; i++, offered++, busy++)
                offer(d, i, type, (at++ % (d->sectors * 512 / size)) * (size / 512), size);
            ring(d);
        }
        int slot = take(d);
        if (slot < 0) {
            pause();
            continue;
        }
        bool more = false;
        do {
            busy--;
            bad += d->headers[slot].status != 0;
            sample((uint32_t)(done % SAMPLES_MAX), now - d->headers[slot].begun);
            done++;
            if (now < end) {
                uint64_t where = arg("seq", 0) ? at++ : random64(&state);

                offer(d, (uint32_t)slot, type, (where % (d->sectors * 512 / size)) * (size / 512), size);
                busy++;
                more = true;
            }
        } while ((slot = take(d)) >= 0);
        if (more)
            ring(d);
    }
    now = tsc();
    print("{\"done\":%lu,\"bad\":%lu,\"cycles\":%lu}\n", done, bad, now - begin);
    samples_print("blk", (uint32_t)(done < SAMPLES_MAX ? done : SAMPLES_MAX));
    return bad ? fail("%lu requests failed\n", bad) : 0;
}
