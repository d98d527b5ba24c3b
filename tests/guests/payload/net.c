/* net.c: the driver of net.h: two split rings (Virtio 1.2, 2.7), the card's queues 0 and 1. */
#include "net.h"

#define SLOTS       0xfeb00000 /* of both boards that have virtio-mmio: ours and the reference */
#define SLOT_SIZE   0x200
#define SLOT_COUNT  24
#define MAGIC       0x74726976
#define NET_ID      1
#define RING        256
#define F_EVENT_IDX (1u << 29)
#define F_STATUS    (1u << 16)
#define NO_NOTIFY   1

enum {
    R_MAGIC = 0,
    R_VERSION = 4,
    R_DEVICE = 8,
    R_OFFERED = 0x10,
    R_OFFERED_SEL = 0x14,
    R_ACCEPTED = 0x20,
    R_ACCEPTED_SEL = 0x24,
    R_QUEUE_SEL = 0x30,
    R_QUEUE_MAX = 0x34,
    R_QUEUE_SIZE = 0x38,
    R_QUEUE_READY = 0x44,
    R_NOTIFY = 0x50,
    R_STATUS = 0x70,
    R_DESC = 0x80,
    R_DRIVER = 0x90,
    R_DEVICE_AREA = 0xa0,
    R_CONFIG_STATUS = 0x106,
};

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct ring {
    struct desc desc[RING];
    struct {
        uint16_t flags, idx, ring[RING], used_event;
    } avail;
    struct {
        uint16_t flags, idx;
        struct {
            uint32_t id, len;
        } ring[RING];
        uint16_t avail_event;
    } used __attribute__((aligned(4096)));
    uint16_t next, told, seen; /* avail index, as of the last notification; used index */
} __attribute__((aligned(4096)));

static struct ring rings[2];
static struct net_frame frames[2][RING] __attribute__((aligned(4096)));
static uint64_t base;
static bool event_idx;

#define NOW(x) (*(volatile __typeof__(x) *)&(x))

static uint64_t find(void) {
    for (uint64_t slot = SLOTS; slot < SLOTS + SLOT_COUNT * SLOT_SIZE; slot += SLOT_SIZE)
        if (read32(slot + R_MAGIC) == MAGIC && read32(slot + R_VERSION) == 2 && read32(slot + R_DEVICE) == NET_ID)
            return slot;
    return 0;
}

static void set64(uint32_t reg, const void *address) {
    write32(base + reg, (uint32_t)(uint64_t)address);
    write32(base + reg + 4, (uint32_t)((uint64_t)address >> 32));
}

static bool start_queue(uint32_t index) {
    struct ring *r = &rings[index];

    write32(base + R_QUEUE_SEL, index);
    if (read32(base + R_QUEUE_MAX) < RING)
        return false;
    write32(base + R_QUEUE_SIZE, RING);
    for (uint32_t i = 0; i < RING; i++) {
        r->desc[i].addr = (uint64_t)&frames[index][i];
        r->desc[i].len = sizeof(struct net_frame);
        r->desc[i].flags = index ? 0 : 2; /* the device writes into those of queue 0 */
        r->avail.ring[i] = (uint16_t)i;
    }
    r->avail.flags = 1; /* no interrupts */
    set64(R_DESC, r->desc);
    set64(R_DRIVER, &r->avail);
    set64(R_DEVICE_AREA, &r->used);
    write32(base + R_QUEUE_READY, 1);
    return true;
}

static void publish(struct ring *r, uint32_t queue) {
    uint16_t from = r->told, to = r->next;

    __atomic_store_n(&r->avail.idx, to, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (from == to)
        return;
    if (event_idx ? (uint16_t)(to - NOW(r->used.avail_event) - 1) < (uint16_t)(to - from)
                  : !(NOW(r->used.flags) & NO_NOTIFY))
        write32(base + R_NOTIFY, queue);
    r->told = to;
}

int net_open(void) {
    base = find();
    if (!base)
        return fail("no network card");
    write32(base + R_STATUS, 0);
    write32(base + R_STATUS, 1 | 2);
    write32(base + R_OFFERED_SEL, 0);
    uint32_t accepted = read32(base + R_OFFERED) & (F_EVENT_IDX | F_STATUS);

    event_idx = accepted & F_EVENT_IDX;
    write32(base + R_ACCEPTED_SEL, 0);
    write32(base + R_ACCEPTED, accepted);
    write32(base + R_ACCEPTED_SEL, 1);
    write32(base + R_ACCEPTED, 1); /* VERSION_1 */
    write32(base + R_STATUS, 1 | 2 | 8);
    if (!(read32(base + R_STATUS) & 8) || !start_queue(0) || !start_queue(1))
        return fail("the network card does not start");
    write32(base + R_STATUS, 1 | 2 | 8 | 4);
    rings[0].next = RING;
    rings[0].avail.used_event = rings[1].avail.used_event = 0xffff;
    publish(&rings[0], 0);
    return 0;
}

uint32_t net_status(void) {
    return (uint32_t)mmio_read(base + R_CONFIG_STATUS, 2);
}

/* ---- sending: places are used in turn, since the device completes in any order but all soon ---- */

static void collect(void) {
    struct ring *r = &rings[1];

    r->seen = __atomic_load_n(&r->used.idx, __ATOMIC_ACQUIRE);
    r->avail.used_event = (uint16_t)(r->seen - 1);
}

struct net_frame *net_room(void) {
    struct ring *r = &rings[1];

    if ((uint16_t)(r->next - r->seen) == RING)
        collect();
    return (uint16_t)(r->next - r->seen) == RING ? NULL : &frames[1][r->next % RING];
}

void net_queue(uint32_t size) {
    struct ring *r = &rings[1];

    r->desc[r->next % RING].len = 12 + size;
    r->next++;
}

void net_kick(void) {
    publish(&rings[1], 1);
}

bool net_all_sent(void) {
    collect();
    return rings[1].seen == rings[1].next;
}

/* ---- receiving ---- */

struct net_frame *net_poll(uint32_t *size) {
    struct ring *r = &rings[0];

    if (__atomic_load_n(&r->used.idx, __ATOMIC_ACQUIRE) == r->seen)
        return NULL;
    *size = r->used.ring[r->seen % RING].len - 12;
    return &frames[0][r->used.ring[r->seen % RING].id];
}

void net_done(void) {
    struct ring *r = &rings[0];

    r->avail.ring[r->next % RING] = (uint16_t)r->used.ring[r->seen % RING].id;
    r->seen++;
    r->next++;
    r->avail.used_event = (uint16_t)(r->seen - 1);
    if (r->next % 32 == 0 || __atomic_load_n(&r->used.idx, __ATOMIC_ACQUIRE) == r->seen)
        publish(r, 0);
}
