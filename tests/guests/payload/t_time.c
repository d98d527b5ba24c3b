/* t_time.c: timers, clocks and the interrupts they raise; the UART's receive interrupt. */
#include "tests.h"

#define VECTOR_TIMER 0x40
#define VECTOR_PIT   0x41
#define VECTOR_UART  0x42
#define PIT_HZ       1193182
#define RTC_WAIT_MS  20 /* an update takes 2 ms (MC146818A, table 5) */
#define PM_TIMER_HZ  3579545

static volatile uint64_t ticks;

static void on_tick(struct frame *frame) {
    (void)frame;
    ticks++;
    k_eoi();
}

/* timer n=N count=C: a periodic local APIC timer wakes hlt; cycles from tick to tick. */
int test_timer(void) {
    uint32_t n = (uint32_t)arg("n", 100);

    apic_init();
    irq_handler(VECTOR_TIMER, on_tick);
    apic_timer(VECTOR_TIMER, (uint32_t)arg("count", 1000000), true);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = tsc();

        halt_until(&ticks, i + 1);
        sample(i, tsc() - start);
    }
    apic_timer(VECTOR_TIMER, 0, false);
    samples_print("timer", n);
    return ticks < n ? fail("%lu ticks", ticks) : 0;
}

/* pit n=N hz=H: channel 0 in mode 2, through the I/O APIC (pin 2 on PCs, 0 where nothing is overridden). */
int test_pit(void) {
    uint32_t n = (uint32_t)arg("n", 20), divisor = PIT_HZ / (uint32_t)arg("hz", 1000);

    apic_init();
    irq_handler(VECTOR_PIT, on_tick);
    ioapic_route(2, VECTOR_PIT);
    ioapic_route(0, VECTOR_PIT);
    outb(0x43, 0x34);
    outb(0x40, (uint8_t)divisor);
    outb(0x40, (uint8_t)(divisor >> 8));
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = tsc();

        halt_until(&ticks, i + 1);
        sample(i, tsc() - start);
    }
    samples_print("pit", n);
    return 0;
}

/* pmtimer port=P ms=T: never goes back (24 bits, wrapping) and runs at its rate against the PIT's, within 5 %. */
int test_pmtimer(void) {
    uint16_t port = (uint16_t)arg("port", 0x608);
    uint32_t last = port_in(port, 4) & 0xffffff, now;
    uint64_t ms = arg("ms", 50), total = 0, start = tsc(), cycles, expected;

    while (tsc() - start < ms * tsc_per_ms()) {
        now = port_in(port, 4) & 0xffffff;
        if (((now - last) & 0xffffff) > 0x7fffff)
            return fail("went from 0x%x to 0x%x", last, now);
        total += (now - last) & 0xffffff;
        last = now;
    }
    cycles = tsc() - start;
    expected = PM_TIMER_HZ * cycles / tsc_per_ms() / 1000;
    print("{\"test\":\"pmtimer\",\"ticks\":%lu,\"expected\":%lu}\n", total, expected);
    if (total * 20 < expected * 19 || total * 20 > expected * 21)
        return fail("%lu ticks, expected %lu", total, expected);
    return 0;
}

static uint32_t cmos(uint8_t reg) {
    uint8_t value;

    outb(0x70, reg);
    value = inb(0x71);
    return (value >> 4) * 10u + (value & 15);
}

/* The MC146818's time, read outside an update (register A bit 7), in BCD and 24 hours as firmware leaves it. */
int test_rtc(void) {
    uint64_t limit = tsc() + RTC_WAIT_MS * tsc_per_ms();
    bool updating;

    do {
        outb(0x70, 10);
        updating = inb(0x71) & 0x80;
    } while (updating && tsc() < limit);
    print("{\"test\":\"rtc\",\"year\":%u,\"month\":%u,\"day\":%u,\"hour\":%u,\"minute\":%u,\"second\":%u}\n",
          cmos(0x32) * 100 + cmos(9), cmos(8), cmos(7), cmos(4), cmos(2), cmos(0));
    return updating ? fail("update in progress for ever") : 0;
}

static volatile uint8_t received[4096];
static volatile uint64_t received_len;

/* Level 0: empty the receiver, then EOI. */
static void on_uart(struct frame *frame) {
    uint8_t status, byte;

    (void)frame;
    for (;;) {
        __asm__ volatile("inb %w1, %0" : "=a"(status) : "d"(0x3fd));
        if (!(status & 1))
            break;
        __asm__ volatile("inb %w1, %0" : "=a"(byte) : "d"(0x3f8));
        received[received_len % sizeof(received)] = byte;
        received_len++;
    }
    /* reading IIR drops a stray cause */
    __asm__ volatile("inb %w1, %0" : "=a"(status) : "d"(0x3fa));
    k_eoi();
}

/* uartirq: sleep until received bytes interrupt; echo each line in brackets; `quit` ends. */
int test_uartirq(void) {
    char line[128];
    uint32_t len = 0;

    apic_init();
    irq_handler(VECTOR_UART, on_uart);
    ioapic_route(4, VECTOR_UART);
    outb(0x3fc, 0x0b); /* OUT2 lets the interrupt out */
    outb(0x3fa, 0x01); /* FIFO on, trigger at one byte */
    outb(0x3f9, 0x01);
    print("uartirq: ready\n");
    for (uint64_t seen = 0;; seen++) {
        char c;

        halt_until(&received_len, seen + 1);
        c = (char)received[seen % sizeof(received)];
        if (c != '\n' && c != '\r') {
            if (len < sizeof(line) - 1)
                line[len++] = c;
            continue;
        }
        line[len] = 0;
        if (same(line, len, "quit"))
            return 0;
        print("[%s]\n", line);
        len = 0;
    }
}
