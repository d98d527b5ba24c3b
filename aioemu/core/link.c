/* link.c: a link's two ends as ports, its configuration, and its end. */
#include "link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct link_end *other(struct link_end *end) {
    return &end->link->ends[1 - end->index];
}

/* ---- the ends -------------------------------------------------------------------------------------------------------- */

static int end_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    const struct link_end *end = (struct link_end *)port;
    return lane_deliver(&end->link->lanes[end->index], queue, frames, count);
}

static void end_ready(struct core_port *port, uint32_t queue) {
    const struct link_end *end = (struct link_end *)port;
    (void)queue;
    lane_ready(&end->link->lanes[1 - end->index]);
}

/* What one end sees of its peer is what the other end shows to its own. */
static void show_carrier(struct core_link *link) {
    for (int i = 0; i < 2; i++) {
        bool there = link->alive[1 - i] && core_port_carrier(&link->ends[1 - i].port);
        core_port_set_up(&link->ends[i].port, link->up && there);
    }
}

static void end_carrier(struct core_port *port, bool up) {
    (void)up;
    show_carrier(((struct link_end *)port)->link);
}

/* A frame that may be lost, doubled or damaged is what the wire would carry: one packet, complete. */
static bool wants_packets(const core_impair *c) {
    return c->loss > 0 || c->loss_every || c->burst_enter > 0 || c->duplicate > 0 || c->corrupt > 0 || c->reorder > 0 ||
           c->rate_bps;
}

static void show_takes(struct link_end *end) {
    struct lane *lane = &end->link->lanes[end->index];
    pthread_mutex_lock(&lane->lock);
    bool packets = wants_packets(&lane->impair.config);
    pthread_mutex_unlock(&lane->lock);
    core_port_set_takes(&end->port, packets ? 0 : core_port_peer_takes(&other(end)->port));
}

/* Before (config) is in force: have the sender give packets where that needs them. No other frame is on its way after. */
static void ask_for_packets(struct link_end *end, const core_impair *config) {
    struct core_port *sender = core_port_peer(&end->port);
    if (wants_packets(config)) {
        core_port_set_takes(&end->port, 0);
        if (sender) {
            passage_wait(&sender->users);
        }
    }
}

static void end_offloads(struct core_port *port, uint32_t takes) {
    (void)takes;
    show_takes(other((struct link_end *)port));
}

static void end_destroy(struct core_port *port) {
    (void)port; /* goes with its link */
}

static int end_drive(struct core_port *port, struct core_io *io) {
    struct core_link *link = ((struct link_end *)port)->link;
    struct core_io *before = link->io;
    if (io == before) {
        return 0;
    }
    lane_leave(&link->lanes[0]);
    lane_leave(&link->lanes[1]);
    core_io_sync(before); /* what was posted there, and what fires */
    for (int i = 0; i < 2; i++) {
        lane_detach(&link->lanes[i], before);
    }
    link->io = io;
    for (int i = 0; i < 2; i++) {
        lane_attach(&link->lanes[i]);
    }
    return 0;
}

static const struct core_port_ops end_ops = {.name = "link",
                                             .deliver = end_deliver,
                                             .ready = end_ready,
                                             .carrier = end_carrier,
                                             .offloads = end_offloads,
                                             .drive = end_drive,
                                             .destroy = end_destroy};

/* ---- life ------------------------------------------------------------------------------------------------------------ */

core_link *core_link_new(core_io *io) {
    struct core_link *link = calloc(1, sizeof *link);
    if (!link) {
        return NULL;
    }
    link->io = io;
    link->up = link->alive[0] = link->alive[1] = true;
    for (uint32_t i = 0; i < 2; i++) {
        core_port_init(&link->ends[i].port, &end_ops, CORE_TAKES_ALL);
        atomic_store(&link->ends[i].port.up, false);
        link->ends[i].link = link;
        link->ends[i].index = i;
        lane_init(&link->lanes[i], link, i);
        lane_update(&link->lanes[i]);
    }
    return link;
}

void core_link_free(core_link *link) {
    if (!link) {
        return;
    }
    core_port_part(&link->ends[0].port);
    core_port_part(&link->ends[1].port);
    lane_leave(&link->lanes[0]);
    lane_leave(&link->lanes[1]);
    core_io_sync(link->io);
    for (int i = 0; i < 2; i++) {
        lane_detach(&link->lanes[i], link->io);
        lane_free(&link->lanes[i]);
    }
    free(link);
}

core_port *core_link_end(core_link *link, uint32_t end) {
    return end < 2 ? &link->ends[end].port : NULL;
}

/* Put the link between (port) and its peer, unseen by both: its end 0 is at (port). When this returns nothing passes
 * beside it any more. -ENOTCONN: there is no peer. */
int core_link_insert(core_link *link, core_port *port) {
    struct core_port *near = &link->ends[0].port, *far = &link->ends[1].port, *peer = core_port_peer(port);
    if (!peer) {
        return -ENOTCONN;
    }
    if (core_port_peer(near) || core_port_peer(far)) {
        return -EBUSY;
    }
    atomic_store(&near->peer, port);
    atomic_store(&far->peer, peer);
    show_takes(&link->ends[0]);
    show_takes(&link->ends[1]);
    show_carrier(link);
    atomic_store(&port->peer, near);
    atomic_store(&peer->peer, far);
    passage_wait(&port->users);
    passage_wait(&peer->users);
    return 0;
}

/* ---- changing -------------------------------------------------------------------------------------------------------- */

static void set_up(struct lane *lane, bool up) {
    pthread_mutex_lock(&lane->lock);
    lane->link->up = up; /* under the locks of both lanes: each looks under its own */
    lane_update(lane);
    pthread_mutex_unlock(&lane->lock);
    lane_settle(lane);
}

/* What is on its way is lost. */
static void cut(struct lane *lane) {
    pthread_mutex_lock(&lane->lock);
    lane->counts.drops[CORE_LINK_DROP_CUT] += link_queue_clear(&lane->queue);
    lane->impair.last_due_ns = lane->impair.line_free_ns = 0;
    lane->stalled = lane->impatient = false;
    lane_update(lane);
    pthread_mutex_unlock(&lane->lock);
}

void core_link_set_up(core_link *link, int up) {
    set_up(&link->lanes[0], up);
    set_up(&link->lanes[1], up);
    show_carrier(link);
    for (int i = 0; i < 2 && !up; i++) {
        cut(&link->lanes[i]);
    }
}

/* What is at (end) is switched on, or off: the other end sees that as its carrier. */
void core_link_set_alive(core_link *link, uint32_t end, int alive) {
    if (end < 2) {
        link->alive[end] = alive;
        show_carrier(link);
    }
}

int core_link_is_up(core_link *link) {
    return link->up;
}

int core_link_impair(core_link *link, uint32_t direction, const core_impair *config) {
    if (direction > 1) {
        return -EINVAL;
    }
    struct lane *lane = &link->lanes[direction];
    ask_for_packets(&link->ends[direction], config);
    pthread_mutex_lock(&lane->lock);
    int rc = impair_set(&lane->impair, config, core_monotonic_ns());
    if (rc == 0) {
        lane->impaired = !impair_is_none(config);
        lane_update(lane);
    }
    pthread_mutex_unlock(&lane->lock);
    lane_settle(lane);
    show_takes(&link->ends[direction]);
    return rc;
}

/* ---- looking --------------------------------------------------------------------------------------------------------- */

void core_link_get_counts(core_link *link, uint32_t direction, core_link_counts *counts) {
    struct lane *lane = &link->lanes[direction & 1];
    pthread_mutex_lock(&lane->lock);
    uint64_t passed = atomic_load(&lane->passed), bytes = atomic_load(&lane->passed_bytes);
    *counts = lane->counts;
    counts->waiting = lane->queue.frames;
    counts->waiting_bytes = lane->queue.bytes;
    pthread_mutex_unlock(&lane->lock);
    counts->frames += passed;
    counts->bytes += bytes;
    counts->delivered += passed;
    counts->delivered_bytes += bytes;
}

int core_link_is_direct(core_link *link, uint32_t direction) {
    return direction < 2 && atomic_load(&link->lanes[direction].direct);
}

const char *core_link_drop_name(uint32_t why) {
    static const char *const names[CORE_LINK_DROP_COUNT] = {
        [CORE_LINK_DROP_LOSS] = "loss",     [CORE_LINK_DROP_BURST] = "burst", [CORE_LINK_DROP_EVERY] = "every",
        [CORE_LINK_DROP_OUTAGE] = "outage", [CORE_LINK_DROP_QUEUE] = "queue", [CORE_LINK_DROP_BACKLOG] = "backlog",
        [CORE_LINK_DROP_CUT] = "cut",
    };
    return why < CORE_LINK_DROP_COUNT ? names[why] : "";
}

/* ---- taps ------------------------------------------------------------------------------------------------------------ */

/* Record what passes (place: 0 where it gets in, 1 where it gets out) of a direction. -ENOSPC: too many captures. */
int core_link_tap(core_link *link, uint32_t direction, uint32_t place, core_capture *capture, uint32_t interface,
                  uint32_t sense) {
    if (direction > 1 || place >= TAP_PLACES) {
        return -EINVAL;
    }
    struct lane *lane = &link->lanes[direction];
    int rc = -ENOSPC;
    pthread_mutex_lock(&lane->lock);
    for (int i = 0; i < LINK_TAPS && rc < 0; i++) {
        struct core_tap *tap = &lane->taps[place][i];
        if (!tap->capture) {
            *tap = (struct core_tap){.capture = capture, .interface = interface, .direction = sense};
            lane->tap_count++;
            rc = 0;
        }
    }
    lane_update(lane);
    pthread_mutex_unlock(&lane->lock);
    lane_settle(lane);
    return rc;
}

/* Nothing of this link is recorded by (capture) any more. */
void core_link_untap(core_link *link, core_capture *capture) {
    for (int d = 0; d < 2; d++) {
        struct lane *lane = &link->lanes[d];
        pthread_mutex_lock(&lane->lock);
        for (int i = 0; i < TAP_PLACES * LINK_TAPS; i++) {
            struct core_tap *tap = &lane->taps[i / LINK_TAPS][i % LINK_TAPS];
            if (tap->capture == capture) {
                *tap = (struct core_tap){0};
                lane->tap_count--;
            }
        }
        lane_update(lane);
        pthread_mutex_unlock(&lane->lock);
    }
}
