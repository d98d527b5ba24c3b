/*
 * t_net.c: a polling virtio-net driver over virtio-mmio (Virtio 1.2, 4.2 and 5.1), for the time that frames take:
 *
 *     net mode=0 size=64 ms=500     send as fast as frames are taken
 *     net mode=1 ms=500             count what comes
 *     net mode=2 ms=500             send back what comes
 *     net mode=3 size=64 ms=500     send one, wait until it comes back
 *
 * Frames have the type 0x88b5, for experiments. It asks for no interrupts and rings only when the device wants to hear.
 */
#include "tests.h"

#define SLOTS_AT  0xfeb00000
#define SLOT_SIZE 0x200
#define SLOTS     24
#define RING      256
#define ROOM      2048
#define HEADER    12
#define RINGS_AT  0x2000000ull
#define RX_AT     0x2100000ull
#define TX_AT     0x2300000ull
#define SETTLE_MS 20 /* until the flood has begun */

#define F_EVENT_IDX (1u << 29)

enum { TX, RX, ECHO, PING };
enum { DEVICE_ID = 0x08, FEATURES = 0x10, FEATURES_SEL = 0x14, DRIVER = 0x20, DRIVER_SEL = 0x24, QUEUE_SEL = 0x30 };
enum { QUEUE_NUM = 0x38, QUEUE_READY = 0x44, NOTIFY = 0x50, STATUS = 0x70, DESC = 0x80, AVAIL = 0x90, USED = 0xa0 };

struct desc {
    uint64_t address;
    uint32_t size;
    uint16_t flags, next;
};

struct used {
    uint32_t id, size;
};

struct queue {
    uint64_t at, device;
    uint32_t index;
    bool events;
    volatile struct desc *desc;
    volatile uint16_t *avail, *used_index, *avail_event;
    volatile struct used *used;
    uint16_t next, rung, seen;
};

static void set64(uint64_t at, uint64_t value) {
    write32(at, (uint32_t)value);
    write32(at + 4, (uint32_t)(value >> 32));
}

static uint64_t find_card(void) {
    for (uint64_t i = 0; i < SLOTS; i++)
        if (read32(SLOTS_AT + i * SLOT_SIZE) == 0x74726976 && read32(SLOTS_AT + i * SLOT_SIZE + DEVICE_ID) == 1)
            return SLOTS_AT + i * SLOT_SIZE;
    return 0;
}

static void enable(struct queue *q, uint64_t device, uint32_t index, bool events) {
    q->device = device;
    q->index = index;
    q->events = events;
    q->at = RINGS_AT + index * 0x10000ull;
    q->desc = (volatile struct desc *)q->at;
    q->avail = (volatile uint16_t *)(q->at + 0x2000);
    q->used_index = (volatile uint16_t *)(q->at + 0x4002);
    q->used = (volatile struct used *)(q->at + 0x4004);
    q->avail_event = (volatile uint16_t *)(q->at + 0x4004 + RING * sizeof(struct used));
    q->avail[0] = 1;
    write32(device + QUEUE_SEL, index);
    write32(device + QUEUE_NUM, RING);
    set64(device + DESC, q->at);
    set64(device + AVAIL, q->at + 0x2000);
    set64(device + USED, q->at + 0x4000);
    write32(device + QUEUE_READY, 1);
}

static void offer(struct queue *q, uint32_t slot, uint64_t address, uint32_t size, bool writable) {
    q->desc[slot] = (struct desc){address, size, writable ? 2 : 0, 0};
    q->avail[2 + q->next % RING] = (uint16_t)slot;
    q->next++;
}

static void ring(struct queue *q) {
    uint16_t wanted;

    if (q->next == q->rung)
        return;
    __asm__ volatile("" ::: "memory");
    q->avail[1] = q->next;
    __asm__ volatile("mfence" ::: "memory");
    wanted = *q->avail_event;
    if (q->events ? (uint16_t)(q->next - wanted - 1) < (uint16_t)(q->next - q->rung) : !(q->used_index[-1] & 1))
        write32(q->device + NOTIFY, q->index);
    q->rung = q->next;
    if (q->events)
        q->avail[2 + RING] = (uint16_t)(q->seen - 1); /* no interrupt: the furthest away */
}

/* The next that came back, or -1; its size. */
static int take(struct queue *q, uint32_t *size) {
    if (*q->used_index == q->seen)
        return -1;
    __asm__ volatile("" ::: "memory");
    volatile struct used *u = &q->used[q->seen++ % RING];
    *size = u->size;
    return (int)u->id;
}

static bool set_up(struct queue *rx, struct queue *tx) {
    uint64_t device = find_card();
    bool events;

    if (!device)
        return false;
    write32(device + STATUS, 0);
    write32(device + STATUS, 1);
    write32(device + STATUS, 3);
    write32(device + FEATURES_SEL, 0);
    events = read32(device + FEATURES) & F_EVENT_IDX;
    write32(device + DRIVER_SEL, 0);
    write32(device + DRIVER, events ? F_EVENT_IDX : 0);
    write32(device + DRIVER_SEL, 1);
    write32(device + DRIVER, 1);
    write32(device + STATUS, 11);
    if (!(read32(device + STATUS) & 8))
        return false;
    enable(rx, device, 0, events);
    enable(tx, device, 1, events);
    write32(device + STATUS, 15);
    for (uint32_t i = 0; i < RING; i++)
        offer(rx, i, RX_AT + i * (uint64_t)ROOM, ROOM, true);
    ring(rx);
    return true;
}

static void make_frame(uint64_t at) {
    volatile uint8_t *frame = (volatile uint8_t *)at;

    for (uint32_t i = 0; i < HEADER; i++)
        frame[i] = 0;
    for (uint32_t i = 0; i < 6; i++) {
        frame[HEADER + i] = 0xff;
        frame[HEADER + 6 + i] = i ? 0 : 2;
    }
    frame[HEADER + 12] = 0x88;
    frame[HEADER + 13] = 0xb5;
}

static uint64_t send_all(struct queue *tx, uint32_t size, uint64_t end) {
    uint64_t done = 0;
    uint32_t unused;

    for (uint32_t i = 0; i < RING; i++)
        offer(tx, i, TX_AT + i * (uint64_t)ROOM, HEADER + size, false);
    ring(tx);
    while (tsc() < end) {
        int slot;
        uint32_t count = 0;

        while (count < 64 && (slot = take(tx, &unused)) >= 0) {
            offer(tx, (uint32_t)slot, TX_AT + (uint32_t)slot * (uint64_t)ROOM, HEADER + size, false);
            count++;
        }
        done += count;
        if (count)
            ring(tx);
        else
            pause();
    }
    return done;
}

static uint64_t receive_all(struct queue *rx, struct queue *tx, bool echo, uint64_t end) {
    uint64_t done = 0;
    uint32_t size = 0, out = 0;

    while (tsc() < end) {
        int slot;
        uint32_t count = 0;

        while (echo && (slot = take(tx, &size)) >= 0) { /* sent: its buffer receives again */
            offer(rx, (uint32_t)slot, RX_AT + (uint32_t)slot * (uint64_t)ROOM, ROOM, true);
            out--;
        }
        while (count < 64 && (slot = take(rx, &size)) >= 0) {
            uint64_t at = RX_AT + (uint32_t)slot * (uint64_t)ROOM;
            volatile uint8_t *frame = (volatile uint8_t *)at;

            count++;
            if (echo && frame[HEADER + 12] == 0x88 && frame[HEADER + 13] == 0xb5) {
                offer(tx, (uint32_t)slot, at, size, false);
                out++;
                done++;
            } else {
                offer(rx, (uint32_t)slot, at, ROOM, true);
                done += !echo;
            }
        }
        ring(rx);
        if (echo)
            ring(tx);
        if (!count)
            pause();
    }
    return done;
}

static uint64_t ping(struct queue *rx, struct queue *tx, uint32_t frame_size, uint64_t end) {
    uint64_t done = 0, lost = 0;
    uint32_t size = 0;

    while (tsc() < end) {
        uint64_t begun = tsc();
        bool back = false;
        int slot;

        offer(tx, 0, TX_AT, HEADER + frame_size, false);
        ring(tx);
        while (!back && tsc() - begun < 100 * tsc_per_ms()) {
            slot = take(rx, &size);
            if (slot < 0) {
                pause();
                continue;
            }
            volatile uint8_t *frame = (volatile uint8_t *)(RX_AT + (uint32_t)slot * (uint64_t)ROOM);
            back = frame[HEADER + 12] == 0x88 && frame[HEADER + 13] == 0xb5;
            if (back)
                sample((uint32_t)(done++ % SAMPLES_MAX), tsc() - begun);
            offer(rx, (uint32_t)slot, RX_AT + (uint32_t)slot * (uint64_t)ROOM, ROOM, true);
            ring(rx);
        }
        lost += !back;
        while (take(tx, &size) < 0)
            pause();
        if (lost > 20)
            break;
    }
    print("{\"lost\":%lu}\n", lost);
    return done;
}

int test_net(void) {
    static struct queue rx, tx;
    uint32_t mode = (uint32_t)arg("mode", TX), size = (uint32_t)arg("size", 64);
    uint64_t begin, done;

    if (size < 14 || size > ROOM - HEADER)
        return fail("size\n");
    for (uint32_t i = 0; i < RING; i++)
        make_frame(TX_AT + i * (uint64_t)ROOM);
    if (!set_up(&rx, &tx))
        return fail("no card\n");
    if (mode == RX || mode == ECHO)
        receive_all(&rx, &tx, mode == ECHO, tsc() + SETTLE_MS * tsc_per_ms());
    begin = tsc();
    uint64_t end = begin + arg("ms", 500) * tsc_per_ms();
    done = mode == TX     ? send_all(&tx, size, end)
           : mode == PING ? ping(&rx, &tx, size, end)
                          : receive_all(&rx, &tx, mode == ECHO, end);
    print("{\"done\":%lu,\"cycles\":%lu,\"tsc_per_ms\":%lu}\n", done, tsc() - begin, tsc_per_ms());
    if (mode == PING)
        samples_print("net", (uint32_t)(done < SAMPLES_MAX ? done : SAMPLES_MAX));
    return done ? 0 : fail("no frames\n");
}
