/* apic.c: local APIC (SDM 3A 11, as memory), I/O APIC (82093AA), 8259A masked, 8254 channel 0 as a clock. */
#include "guest.h"

#define LAPIC              0xfee00000ul
#define LAPIC_ID           (LAPIC + 0x20)
#define LAPIC_TPR          (LAPIC + 0x80)
#define LAPIC_EOI          (LAPIC + 0xb0)
#define LAPIC_SVR          (LAPIC + 0xf0)
#define LAPIC_ICR_LOW      (LAPIC + 0x300)
#define LAPIC_ICR_HIGH     (LAPIC + 0x310)
#define LAPIC_LVT_TIMER    (LAPIC + 0x320)
#define LAPIC_TIMER_COUNT  (LAPIC + 0x380)
#define LAPIC_TIMER_DIVIDE (LAPIC + 0x3e0)
#define LVT_PERIODIC       0x20000
#define ICR_PENDING        0x1000
#define DIVIDE_BY_1        0xb
#define IOAPIC             0xfec00000ul
#define PIT_HZ             1193182
#define PIT_CHANNEL_0      0x40
#define PIT_CONTROL        0x43
#define CALIBRATE_MS       2 /* what a busy host leaves to us at once */
#define CALIBRATIONS       20
#define MARKS              4
#define TSC_PER_MS_UNKNOWN 2000000
#define CALIBRATE_TRIES    1000

/* Interrupts only come from the APICs: the 8259s are masked. */
void apic_init(void) {
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    write32(LAPIC_SVR, 0x1ff);
    write32(LAPIC_TPR, 0);
}

uint32_t apic_id(void) {
    return read32(LAPIC_ID) >> 24;
}

void apic_send(uint32_t to, uint32_t command) {
    while (read32(LAPIC_ICR_LOW) & ICR_PENDING)
        pause();
    write32(LAPIC_ICR_HIGH, to << 24);
    write32(LAPIC_ICR_LOW, command);
}

void apic_timer(uint8_t vector, uint32_t count, bool periodic) {
    write32(LAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
    write32(LAPIC_LVT_TIMER, vector | (periodic ? LVT_PERIODIC : 0));
    write32(LAPIC_TIMER_COUNT, count);
}

/* Edge-triggered, active high, fixed, to the CPU that asks. */
void ioapic_route(uint32_t pin, uint8_t vector) {
    write32(IOAPIC, 0x11 + 2 * pin);
    write32(IOAPIC + 0x10, apic_id() << 24);
    write32(IOAPIC, 0x10 + 2 * pin);
    write32(IOAPIC + 0x10, vector);
}

void k_eoi(void) {
    write32(LAPIC_EOI, 0);
}

static inline uint64_t k_tsc(void) {
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return ((uint64_t)hi << 32) | lo;
}

static inline void k_outb(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "d"(port));
}

static inline uint8_t k_inb(uint16_t port) {
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "d"(port));
    return value;
}

static uint32_t k_pit_count(void) {
    uint32_t low;

    k_outb(PIT_CONTROL, 0x00); /* latch channel 0 */
    low = k_inb(PIT_CHANNEL_0);
    return low | (uint32_t)k_inb(PIT_CHANNEL_0) << 8;
}

/* A reading of the counter: somewhere between two readings of the TSC. */
struct mark {
    uint32_t count;
    uint64_t tsc, width;
};

/* The closest of some: the host may stop us in the middle of one. */
static struct mark k_mark(void) {
    struct mark best = {0, 0, UINT64_MAX};

    for (int i = 0; i < MARKS; i++) {
        uint64_t before = k_tsc();
        uint32_t count = k_pit_count();
        uint64_t width = k_tsc() - before;

        if (width < best.width)
            best = (struct mark){count, before + width / 2, width};
    }
    return best;
}

/* Cycles per millisecond while channel 0, free-running in mode 2, counts down by `ticks`; 0 when it does not move. */
static uint64_t k_time_pit(uint64_t ticks, uint64_t tries, uint64_t unused) {
    struct mark first, last;
    uint32_t passed;

    (void)unused;
    k_outb(PIT_CONTROL, 0x34);
    k_outb(PIT_CHANNEL_0, 0);
    k_outb(PIT_CHANNEL_0, 0);
    first = k_mark();
    do {
        passed = (first.count - k_pit_count()) & 0xffff;
        if (passed >= ticks) {
            last = k_mark();
            passed = (first.count - last.count) & 0xffff;
            return passed ? (last.tsc - first.tsc) * PIT_HZ / passed / 1000 : 0;
        }
    } while (passed || tries--);
    return 0;
}

/* The least of some: the host may stop us for whole turns of the counter, which nobody sees, but not all the time. */
uint64_t tsc_per_ms(void) {
    static uint64_t rate;
    uint64_t least = UINT64_MAX;

    for (int i = 0; !rate && i < CALIBRATIONS; i++) {
        uint64_t measured = at_cpl0(k_time_pit, PIT_HZ * CALIBRATE_MS / 1000, CALIBRATE_TRIES, 0);

        least = measured && measured < least ? measured : least;
    }
    if (!rate)
        rate = least < UINT64_MAX ? least : TSC_PER_MS_UNKNOWN;
    return rate;
}

void spin_us(uint64_t us) {
    uint64_t end = tsc() + us * tsc_per_ms() / 1000;

    while (tsc() < end)
        pause();
}
