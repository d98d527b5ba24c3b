/* netq.c: two guests that send and receive anything through their network cards, in rings of both kinds, joined to each
 * other, through a link, a switch, or to a program that sends them anything, under sanitizers.
 *
 *     netq RUNS [SEED]
 *
 * One run is one wire's life: set up well or badly, frames with headers that are mostly possible, buffers of any size,
 * filters, pauses, resets, impairments, saved states. What must not happen is what the sanitizers report; a frame that
 * is never given back is found too, where the other end takes everything. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netq_rings.h"

#define OFFERED (VIRTIO_F_VERSION_1 | VIRTIO_F_PACKED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT | NET_FEATURES)
#define NET_FEATURES                                                                                                   \
    (NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN | NET_F_GUEST_UFO |         \
     NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_ECN | NET_F_HOST_UFO | NET_F_MRG_RXBUF | NET_F_GUEST_USO4 |        \
     NET_F_GUEST_USO6 | NET_F_HOST_USO)

enum { TURN_NS = 1000 };

struct card {
    struct guest guest;
    struct rings rings;
    struct fuzz *fuzz;
    core_net *net;
};

struct fuzz {
    struct card cards[2];
    struct dice dice;
    core_io *io;
    core_port *box;
    core_link *link;
    core_switch *hub;
    core_port *hub_ports[2];
    uint64_t offered, sent, received, dropped, cut, broken, saved;
};

/* ---- the device's side: what Python does ----------------------------------------------------------------------------- */

static void set_filter(struct card *c) {
    struct dice *dice = &c->fuzz->dice;
    core_net_filter filter = {.promiscuous = below(dice, 2)};
    uint8_t *bytes = (uint8_t *)&filter;
    for (size_t i = 1; i < sizeof filter && !filter.promiscuous; i++) {
        bytes[i] = (uint8_t)draw(dice);
    }
    core_net_set_filter(c->net, &filter);
}

static void start(struct card *c) {
    struct dice *dice = &c->fuzz->dice;
    uint64_t features = core_virtio_features(c->guest.virtio);
    set_filter(c);
    core_net_set_pairs(c->net, (uint32_t)below(dice, 4));
    core_net_set_features(c->net, features & (rarely(dice) ? draw(dice) : UINT64_MAX));
    core_net_start(c->net, c->fuzz->io);
    for (uint32_t q = 0; q < QUEUES; q++) {
        core_virtio_kick_fd(c->guest.virtio, q, core_net_bell(c->net, q));
    }
}

static void stop(struct card *c) {
    for (uint32_t q = 0; q < QUEUES; q++) {
        core_virtio_kick_fd(c->guest.virtio, q, -1);
    }
    core_net_stop(c->net);
}

static void set_status(struct guest *g, uint32_t value) {
    struct card *c = (struct card *)g;
    bool ran = core_virtio_status(g->virtio) & VIRTIO_DRIVER_OK;
    if (value == 0) {
        stop(c);
        core_chip_reset(g->virtio);
        core_net_announce(c->net, 0);
        core_net_set_features(c->net, 0);
        core_net_refresh(c->net);
        return;
    }
    if (!ran && (core_virtio_set_status(g->virtio, value) & VIRTIO_DRIVER_OK)) {
        start(c);
    }
}

/* ---- the driver's side ----------------------------------------------------------------------------------------------- */

static void set_up(struct card *c) {
    struct dice *dice = &c->fuzz->dice;
    c->rings.packed = below(dice, 2);
    c->rings.wild = below(dice, 4) == 0;
    rings_clear(&c->guest, &c->rings);
    uint64_t features = VIRTIO_F_VERSION_1 | (c->rings.packed ? VIRTIO_F_PACKED : 0) |
                        (draw(dice) & (NET_FEATURES | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT)) |
                        (below(dice, 4) ? NET_F_CSUM | NET_F_GUEST_CSUM : 0);
    ask_features(&c->guest, features | (c->rings.wild && rarely(dice) ? draw(dice) : 0));
    for (uint32_t q = 0; q < QUEUES; q++) {
        put(&c->guest, REG_QUEUE, 4, q);
        put(&c->guest, REG_SIZE, 4, c->rings.wild && rarely(dice) ? draw(dice) : QUEUE);
        const uint64_t areas[] = {ring_of(q), ring_of(q) + DRIVER, ring_of(q) + DEVICE};
        for (uint32_t i = 0; i < 3; i++) {
            put(&c->guest, REG_DESC + 0x10 * i, 8, c->rings.wild && rarely(dice) ? draw(dice) % GUEST_RAM : areas[i]);
        }
        put(&c->guest, REG_READY, 4, !(c->rings.wild && rarely(dice)));
    }
    put(&c->guest, REG_STATUS, 4, 15);
}

static void offer(struct card *c, uint32_t q, uint64_t address, uint32_t size, bool writable) {
    rings_offer(&c->guest, &c->rings, &c->fuzz->dice, q, address, size, writable);
    c->fuzz->offered++;
}

static void send_some(struct card *c, uint32_t pair) {
    struct dice *dice = &c->fuzz->dice;
    for (uint64_t n = below(dice, 6); n; n--) {
        uint32_t size = a_length(dice);
        uint64_t address = BUFFERS + below(dice, GUEST_RAM - BUFFERS - LONGEST - 16);
        make_frame(dice, c->guest.ram + address, size);
        uint32_t given = rarely(dice) ? (uint32_t)below(dice, CORE_NET_HDR_SIZE) : CORE_NET_HDR_SIZE + size;
        offer(c, 2 * pair + 1, address, given, c->rings.wild && rarely(dice));
    }
    put(&c->guest, REG_NOTIFY, 4, c->rings.wild && rarely(dice) ? draw(dice) : 2 * pair + 1);
}

static void give_buffers(struct card *c, uint32_t pair) {
    struct dice *dice = &c->fuzz->dice;
    for (uint64_t n = below(dice, 12); n; n--) {
        uint32_t size = below(dice, 3) ? 1526 : (uint32_t)below(dice, 2) ? LONGEST : (uint32_t)below(dice, 200);
        offer(c, 2 * pair, BUFFERS + below(dice, GUEST_RAM - BUFFERS - LONGEST - 16), size, true);
    }
    put(&c->guest, REG_NOTIFY, 4, 2 * pair);
}

/* ---- what else happens ----------------------------------------------------------------------------------------------- */

static void impair(struct fuzz *f) {
    struct dice *dice = &f->dice;
    core_impair config = {.seed = draw(dice), .replay = (uint32_t)below(dice, 2), .queue_packets = 1};
    if (below(dice, 3)) {
        config = (core_impair){.seed = draw(dice),
                               .delay_ns = (int64_t)below(dice, 20000),
                               .jitter_ns = (int64_t)below(dice, 20000),
                               .jitter_kind = (uint32_t)below(dice, 4),
                               .loss_every = (uint32_t)below(dice, 5),
                               .loss = (double)below(dice, 3) / 4,
                               .burst_enter = (double)below(dice, 2) / 8,
                               .burst_leave = 0.5,
                               .burst_loss = 1,
                               .duplicate = (double)below(dice, 2) / 2,
                               .corrupt = (double)below(dice, 2) / 2,
                               .reorder = (double)below(dice, 2) / 4,
                               .reorder_ns = (int64_t)below(dice, 20000),
                               .rate_bps = rarely(dice) ? 1 + below(dice, 1u << 20) : below(dice, 2) << 40,
                               .queue_bytes = below(dice, 2) * 3000,
                               .queue_packets = 1 + (uint32_t)below(dice, 40),
                               .outage_up_ns = (int64_t)below(dice, 20000),
                               .outage_down_ns = (int64_t)below(dice, 2000)};
    }
    core_link_impair(f->link, (uint32_t)below(dice, 2), &config);
}

static void empty_box(struct fuzz *f, uint64_t most) {
    static uint8_t frame[CORE_FRAME_MAX];
    uint8_t header[CORE_NET_HDR_SIZE];
    while (f->box && most-- && core_box_take(f->box, header, frame, sizeof frame) > 0) {
        f->received++;
    }
}

static void send_from_box(struct fuzz *f) {
    static uint8_t bytes[CORE_NET_HDR_SIZE + LONGEST];
    uint32_t size = a_length(&f->dice);
    make_frame(&f->dice, bytes, size);
    core_box_send(f->box, bytes, bytes + CORE_NET_HDR_SIZE, size);
}

static void reload(struct card *c) {
    stop(c);
    c->fuzz->saved += save_and_load(&c->guest, &c->fuzz->dice, below(&c->fuzz->dice, 4));
    c->rings.wild = true;
    if (core_virtio_status(c->guest.virtio) & VIRTIO_DRIVER_OK) {
        start(c);
    }
}

static void event(struct fuzz *f, struct card *c) {
    struct dice *dice = &f->dice;
    switch (below(dice, 40)) {
    case 0: core_net_hold(c->net, 1); break;
    case 1:
    case 2: core_net_hold(c->net, 0); break;
    case 3: set_filter(c); break;
    case 4: core_net_set_pairs(c->net, (uint32_t)below(dice, 4)); break;
    case 5: core_net_set_features(c->net, draw(dice)); break;
    case 6: set_up(c); break;
    case 7: put(&c->guest, REG_STATUS, 4, 0); break;
    case 8: reload(c); break;
    case 9: core_port_set_up(core_net_port(c->net), (int)below(dice, 2)); break;
    case 10: put(&c->guest, c->rings.wild ? below(dice, 0x110) : REG_QUEUE, 4, draw(dice) >> below(dice, 64)); break;
    case 11: core_net_announce(c->net, (int)below(dice, 2)); break;
    default: break;
    }
    switch (f->link ? below(dice, 12) : 99) {
    case 0: core_link_set_up(f->link, (int)below(dice, 2)); break;
    case 1: core_link_set_alive(f->link, (uint32_t)below(dice, 2), (int)below(dice, 2)); break;
    case 2:
    case 3:
    case 4: impair(f); break;
    default: break;
    }
    if (f->box && below(dice, 2)) {
        send_from_box(f);
    }
    if (f->box && below(dice, 4) == 0) {
        empty_box(f, below(dice, 8));
    }
}

/* ---- wires ----------------------------------------------------------------------------------------------------------- */

static void join(struct fuzz *f, core_port *a, core_port *b) {
    if (below(&f->dice, 2)) {
        f->link = core_link_new(f->io);
        core_port_join(a, core_link_end(f->link, 0));
        core_port_join(b, core_link_end(f->link, 1));
    } else {
        core_port_join(a, b);
    }
}

/* Whether the first card's frames can never be made to wait for long. */
static bool lay_wires(struct fuzz *f) {
    struct dice *dice = &f->dice;
    core_port *a = core_net_port(f->cards[0].net), *b = core_net_port(f->cards[1].net);
    switch (below(dice, 4)) {
    case 0: {
        bool waits = below(dice, 2);
        f->box = core_box_new(1 + (uint32_t)below(dice, 64), (uint32_t)below(dice, CORE_TAKES_ALL + 1), waits);
        join(f, a, f->box);
        return !waits;
    }
    case 1:
        f->hub = core_switch_new(f->io, (int)below(dice, 2), (int)below(dice, 2), 1 + (uint32_t)below(dice, 32), 1000);
        f->hub_ports[0] = core_switch_add(f->hub);
        f->hub_ports[1] = core_switch_add(f->hub);
        join(f, a, f->hub_ports[0]);
        core_port_join(b, f->hub_ports[1]);
        return true;
    default: join(f, a, b); return false;
    }
}

static void take_wires(struct fuzz *f) {
    core_link_free(f->link);
    for (int i = 0; i < 2; i++) {
        core_port_part(core_net_port(f->cards[i].net));
        core_port_free(f->hub_ports[i]);
        f->hub_ports[i] = NULL;
    }
    core_port_free(f->box);
    core_switch_free(f->hub);
    f->link = NULL;
    f->box = NULL;
    f->hub = NULL;
}

/* ---- one life -------------------------------------------------------------------------------------------------------- */

static void settle(struct fuzz *f) {
    for (int i = 0; i < 2; i++) {
        core_net_hold(f->cards[i].net, 0);
        core_port_set_up(core_net_port(f->cards[i].net), 1);
    }
    for (int n = 0; n < 8; n++) {
        core_io_run(f->io, TURN_NS);
        empty_box(f, UINT64_MAX);
    }
}

static void count(struct fuzz *f) {
    for (int i = 0; i < 2; i++) {
        core_port_counts counts;
        core_port_stats(core_net_port(f->cards[i].net), &counts);
        f->sent += counts.out_frames;
        for (int why = 0; why < CORE_DROP_COUNT; why++) {
            f->dropped += counts.drop_out[why] + counts.drop_in[why];
        }
        f->broken += (core_virtio_status(f->cards[i].guest.virtio) & VIRTIO_NEEDS_RESET) != 0;
    }
}

static bool one_run(struct fuzz *f) {
    bool takes_all = lay_wires(f);
    set_up(&f->cards[0]);
    set_up(&f->cards[1]);
    for (uint64_t n = 2 + below(&f->dice, 16); n; n--) {
        struct card *c = &f->cards[below(&f->dice, 2)];
        give_buffers(c, (uint32_t)below(&f->dice, 2));
        send_some(&f->cards[below(&f->dice, 2)], (uint32_t)below(&f->dice, 2));
        event(f, c);
        if (below(&f->dice, 4)) {
            core_io_run(f->io, TURN_NS);
        }
    }
    settle(f);
    bool back = !takes_all || rings_are_back(&f->cards[0].guest, &f->cards[0].rings);
    for (int i = 0; i < 2; i++) {
        put(&f->cards[i].guest, REG_STATUS, 4, 0);
    }
    take_wires(f);
    return back;
}

static bool make_card(struct fuzz *f, struct card *c) {
    const uint16_t sizes[QUEUES] = {QUEUE, QUEUE, QUEUE, QUEUE};
    if (!guest_new(&c->guest, core_virtio_new(1, OFFERED, sizes, QUEUES, 24))) {
        return false;
    }
    c->fuzz = f;
    c->guest.set_status = set_status;
    c->net = core_net_new(c->guest.virtio, QUEUES / 2);
    return c->net != NULL;
}

int main(int argc, char **argv) {
    uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
    struct fuzz *f = calloc(1, sizeof *f);
    if (!f || !(f->io = core_io_new()) || !make_card(f, &f->cards[0]) || !make_card(f, &f->cards[1])) {
        return 2;
    }
    f->dice.state = argc > 2 ? 2 * strtoull(argv[2], NULL, 0) + 1 : 0x9e3779b97f4a7c15ull;
    bool back = true;
    uint64_t done = 0;
    for (; back && done < runs; done++) {
        back = one_run(f);
    }
    count(f);
    printf("%llu runs, %llu chains, %llu sent, %llu taken by the program, %llu dropped, %llu loaded%s\n",
           (unsigned long long)done, (unsigned long long)f->offered, (unsigned long long)f->sent,
           (unsigned long long)f->received, (unsigned long long)f->dropped, (unsigned long long)f->saved,
           back ? "" : ": a frame was never given back");
    bool ok = back && f->sent && f->received && f->dropped && f->saved;
    for (int i = 0; i < 2; i++) {
        core_port_free(core_net_port(f->cards[i].net));
        guest_free(&f->cards[i].guest);
    }
    core_io_free(f->io);
    free(f);
    return ok ? 0 : 3;
}
