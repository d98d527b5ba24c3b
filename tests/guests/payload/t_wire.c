/*
 * t_wire.c: a network card at work. `wire op=send n= size=`, `wire op=count`, `wire op=echo`, `wire op=ping n= size=` are for
 * two guests on one wire: the first speaks until the second answers, the second ends when it is told to.
 * `wire op=status n= port=` writes the link's status to a port each time that it has changed.
 */
#include "net.h"
#include "tests.h"

/* In the frame's type: experimental ones (IEEE 802). */
enum { T_DATA = 0xb5, T_HELLO = 0xb6, T_READY = 0xb7, T_END = 0xb8, T_BYE = 0xb9 };

#define BATCH     32
#define NUMBER_AT 14    /* of a frame's bytes: behind the type */
#define PATIENCE  10000 /* ms: a busy host stops a guest for a second and more */
#define RETRY     2     /* ms */

/* What is asked and what is answered carry the same number: a late answer is not taken for that of the next question. */
static bool send_numbered(uint8_t type, uint32_t size, uint32_t number) {
    struct net_frame *f = net_room();

    if (!f)
        return false;
    for (uint32_t i = 0; i < NET_HEAD; i++)
        f->bytes[i] = i < 6 ? 0xff : 2;
    f->bytes[12] = 0x88;
    f->bytes[13] = type;
    for (uint32_t i = 0; i < 4; i++)
        f->bytes[NUMBER_AT + i] = (uint8_t)(number >> 8 * i);
    net_queue(size < 60 ? 60 : size);
    return true;
}

static bool send_one(uint8_t type, uint32_t size) {
    return send_numbered(type, size, 0);
}

static uint8_t type_of(const struct net_frame *f) {
    return f->bytes[12] == 0x88 ? f->bytes[13] : 0;
}

static uint32_t number_of(const struct net_frame *f) {
    const uint8_t *at = f->bytes + NUMBER_AT;

    return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t deadline_ms(uint64_t ms) {
    return tsc() + ms * tsc_per_ms();
}

/* Wait for a frame of a type with a number; others are dropped. */
static bool wait_for(uint8_t type, uint32_t number, uint64_t until) {
    uint32_t size;
    const struct net_frame *f;

    while (tsc() < until) {
        if (!(f = net_poll(&size)))
            continue;
        bool found = type_of(f) == type && number_of(f) == number;

        net_done();
        if (found)
            return true;
    }
    return false;
}

/* Say something until it is answered; who has ended does not answer any more, and takes the link's carrier along. */
static bool call(uint8_t say, uint8_t hear) {
    for (uint64_t end = deadline_ms(PATIENCE); tsc() < end && (say != T_END || net_status() & 1);) {
        if (send_one(say, 60))
            net_kick();
        if (wait_for(hear, 0, deadline_ms(RETRY)))
            return true;
    }
    return false;
}

static void answer(uint8_t type) {
    if (send_one(type, 60))
        net_kick();
}

static int do_send(void) {
    uint64_t n = arg("n", 100000), size = arg("size", 64), start, stop;

    if (!call(T_HELLO, T_READY))
        return fail("nobody answers");
    start = tsc();
    for (uint64_t sent = 0; sent < n;) {
        uint32_t batch = 0;

        while (batch < BATCH && sent < n && send_one(T_DATA, (uint32_t)size)) {
            batch++;
            sent++;
        }
        if (batch)
            net_kick();
    }
    while (!net_all_sent())
        pause();
    stop = tsc();
    print("{\"test\":\"wire-send\",\"frames\":%lu,\"cycles\":%lu,\"tsc_per_ms\":%lu}\n", n, stop - start, tsc_per_ms());
    (void)call(T_END, T_BYE);
    return 0;
}

static int do_count(void) {
    uint64_t frames = 0, first = 0, last = 0, end = deadline_ms(PATIENCE);
    uint32_t size;
    const struct net_frame *f;

    for (;;) {
        if (!(f = net_poll(&size))) {
            if (tsc() > end)
                return fail("nothing comes");
            continue;
        }
        uint8_t type = type_of(f);

        net_done();
        if (type == T_DATA) {
            last = tsc();
            first = first ? first : last;
            frames++;
        }
        end = deadline_ms(PATIENCE);
        if (type == T_HELLO)
            answer(T_READY);
        if (type == T_END)
            break;
    }
    answer(T_BYE);
    print("{\"test\":\"wire-count\",\"frames\":%lu,\"cycles\":%lu,\"tsc_per_ms\":%lu}\n", frames, last - first,
          tsc_per_ms());
    return 0;
}

static int do_echo(void) {
    uint64_t end = deadline_ms(PATIENCE);
    uint32_t size;
    const struct net_frame *f;

    for (;;) {
        if (!(f = net_poll(&size))) {
            if (tsc() > end)
                return fail("nothing comes");
            continue;
        }
        uint8_t type = type_of(f);
        uint32_t number = number_of(f);

        net_done();
        end = deadline_ms(PATIENCE);
        if (type == T_DATA && send_numbered(T_DATA, size, number))
            net_kick();
        if (type == T_HELLO)
            answer(T_READY);
        if (type == T_END)
            break;
    }
    answer(T_BYE);
    return 0;
}

static int do_ping(void) {
    uint64_t n = arg("n", 10000), size = arg("size", 64), start;
    uint32_t lost = 0;

    if (!call(T_HELLO, T_READY))
        return fail("nobody answers");
    for (uint32_t i = 0; i < n; i++) {
        start = tsc();
        if (!send_numbered(T_DATA, (uint32_t)size, i + 1))
            return fail("no room to send");
        net_kick();
        if (!wait_for(T_DATA, i + 1, deadline_ms(PATIENCE)))
            lost++;
        sample(i, tsc() - start);
    }
    samples_print("wire-ping", (uint32_t)n);
    (void)call(T_END, T_BYE);
    return lost > n / 100 ? fail("%u of %lu were lost", lost, n) : 0;
}

static int do_status(void) {
    uint64_t n = arg("n", 2), port = arg("port", 0x510), end = deadline_ms(PATIENCE);
    uint32_t was = net_status() & 1;

    port_out((uint16_t)port, 1, was);
    for (uint64_t i = 0; i < n;) {
        uint32_t now = net_status() & 1;

        if (now != was) {
            port_out((uint16_t)port, 1, now);
            was = now;
            i++;
        } else if (tsc() > end) {
            return fail("the link did not change");
        }
    }
    return 0;
}

int test_wire(void) {
    if (net_open())
        return 1;
    (void)tsc_per_ms(); /* measured now, not in a measurement */
    if (arg_is("op", "send"))
        return do_send();
    if (arg_is("op", "count"))
        return do_count();
    if (arg_is("op", "echo"))
        return do_echo();
    if (arg_is("op", "ping"))
        return do_ping();
    return arg_is("op", "status") ? do_status() : fail("wire op=send, count, echo, ping or status");
}
