/* switch.c: frames into and out of a switch's ports; switch.h says how. Control thread: what is named core_switch_*. */
#include "switch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PORT_BYTES = 16 << 20, HEAD_BYTES = 14 };

#define RESERVED_FIRST 0x0180c2000000u /* to 0x0180c200000f: what a bridge keeps to itself (IEEE 802.1Q, 8.6.3) */

static void drop(struct switch_frame *f) {
    if (atomic_fetch_sub(&f->users, 1) == 1) {
        free(f);
    }
}

/* ---- in ---------------------------------------------------------------------------------------------------------------- */

static struct switch_frame *copy(const struct core_frame *frame) {
    struct switch_frame *f = malloc(sizeof *f + frame->size);
    if (f) {
        atomic_init(&f->users, 1);
        f->hdr = *core_frame_hdr(frame);
        f->size = core_frame_copy(frame, 0, f->data, frame->size);
    }
    return f;
}

/* With the lock. */
static void enqueue(struct core_switch *s, struct switch_port *to, struct switch_frame *f) {
    if (to->count == s->queue_frames || to->bytes + f->size > PORT_BYTES) {
        core_port_drop_out(&to->port, CORE_DROP_QUEUE_FULL, 1);
        return;
    }
    atomic_fetch_add(&f->users, 1);
    to->queue[(to->first + to->count++) % s->queue_frames] = f;
    to->bytes += f->size;
}

static void forward(struct core_switch *s, uint32_t from, struct switch_frame *f, int64_t now_ns) {
    uint64_t to = switch_mac(f->data);
    int known = -1;
    if (s->learns) {
        if (!s->passes_reserved && to >> 4 == RESERVED_FIRST >> 4) {
            core_port_drop_in(&s->ports[from]->port, CORE_DROP_FILTERED, f->size);
            return;
        }
        switch_learn(s, switch_mac(f->data + 6), from, now_ns);
        known = to >> 40 & 1 ? -1 : switch_find(s, to, now_ns);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        if (i != from && (known < 0 || (uint32_t)known == i) && s->ports[i]->plugged) {
            enqueue(s, s->ports[i], f);
        }
    }
}

static void run(void *arg);

/* With the lock. */
static void post(struct core_switch *s) {
    if (!s->posted && !s->closing) {
        s->posted = core_io_post(s->io, run, s) == 0;
    }
}

static int port_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    const struct switch_port *from = (struct switch_port *)port;
    struct core_switch *s = from->owner;
    int64_t now = core_monotonic_ns();
    (void)queue;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < count; i++) {
        struct switch_frame *f = copy(&frames[i]);
        if (!f || f->size < HEAD_BYTES) {
            core_port_drop_in(port, CORE_DROP_NO_ROOM, frames[i].size);
        } else {
            forward(s, from->index, f, now);
        }
        if (f) {
            drop(f);
        }
    }
    post(s);
    pthread_mutex_unlock(&s->lock);
    return count;
}

/* ---- out --------------------------------------------------------------------------------------------------------------- */

static void take_back(struct switch_port *p, struct switch_frame **frames, int count) {
    uint32_t room = p->owner->queue_frames;
    while (count-- > 0) {
        if (p->count == room) {
            core_port_drop_out(&p->port, CORE_DROP_QUEUE_FULL, 1);
            drop(frames[count]);
            continue;
        }
        p->first = (p->first + room - 1) % room;
        p->queue[p->first] = frames[count];
        p->count++;
        p->bytes += frames[count]->size;
    }
}

static int take(struct switch_port *p, struct switch_frame **batch, struct core_frame *frames, struct iovec (*iov)[2]) {
    int n = 0;
    for (; n < SWITCH_BATCH && p->count; n++) {
        struct switch_frame *f = p->queue[p->first];
        p->first = (p->first + 1) % p->owner->queue_frames;
        p->count--;
        p->bytes -= f->size;
        batch[n] = f;
        iov[n][0] = (struct iovec){.iov_base = &f->hdr, .iov_len = sizeof f->hdr};
        iov[n][1] = (struct iovec){.iov_base = f->data, .iov_len = f->size};
        frames[n] = (struct core_frame){.iov = iov[n], .count = 2, .size = f->size};
    }
    return n;
}

/* Send a batch of one port; with the lock, which is let go of meanwhile. Only the context sends. */
static void send_batch(struct switch_port *p) {
    struct switch_frame *batch[SWITCH_BATCH];
    struct core_frame frames[SWITCH_BATCH];
    struct iovec iov[SWITCH_BATCH][2];
    int count = take(p, batch, frames, iov);
    uint32_t calls = p->ready_calls;
    pthread_mutex_unlock(&p->owner->lock);
    int sent = core_port_send(&p->port, 0, frames, count);
    for (int i = 0; i < sent; i++) {
        drop(batch[i]);
    }
    pthread_mutex_lock(&p->owner->lock);
    take_back(p, batch + sent, count - sent);
    p->stalled = sent < count && calls == p->ready_calls;
}

static void run(void *arg) {
    struct core_switch *s = arg;
    pthread_mutex_lock(&s->lock);
    s->posted = false;
    bool more = true;
    for (int n = 0; n < SWITCH_RUN_BATCHES && more && !s->closing; n++) {
        more = false;
        for (uint32_t i = 0; i < s->count && !s->closing; i++) {
            struct switch_port *p = s->ports[i];
            if (p->count && !p->stalled) {
                send_batch(p);
                more |= p->count && !p->stalled;
            }
        }
    }
    if (more) {
        post(s);
    }
    pthread_mutex_unlock(&s->lock);
}

static void port_ready(struct core_port *port, uint32_t queue) {
    struct switch_port *p = (struct switch_port *)port;
    (void)queue;
    pthread_mutex_lock(&p->owner->lock);
    p->ready_calls++;
    p->stalled = false;
    if (p->count) {
        post(p->owner);
    }
    pthread_mutex_unlock(&p->owner->lock);
}

/* ---- carrier, life ----------------------------------------------------------------------------------------------------- */

static void empty(struct switch_port *p) {
    while (p->count) {
        drop(p->queue[p->first]);
        p->first = (p->first + 1) % p->owner->queue_frames;
        p->count--;
    }
    p->bytes = 0;
    p->stalled = false;
}

static void port_carrier(struct core_port *port, bool up) {
    struct switch_port *p = (struct switch_port *)port;
    pthread_mutex_lock(&p->owner->lock);
    p->plugged = up;
    if (!up) {
        switch_forget(p->owner, p->index);
        empty(p);
    }
    pthread_mutex_unlock(&p->owner->lock);
}

static void port_destroy(struct core_port *port) {
    (void)port; /* goes with its switch */
}

static const struct core_port_ops port_ops = {
    .name = "switch", .deliver = port_deliver, .ready = port_ready, .carrier = port_carrier, .destroy = port_destroy};

/* learns: a switch; else a hub, which sends everything everywhere. NULL: no memory, or a queue that cannot be. */
core_switch *core_switch_new(core_io *io, int learns, int passes_reserved, uint32_t queue_frames, int64_t age_ns) {
    struct core_switch *s = queue_frames == 0 || queue_frames > 1 << 16 ? NULL : calloc(1, sizeof *s);
    if (s) {
        s->io = io;
        s->learns = learns;
        s->passes_reserved = passes_reserved;
        s->queue_frames = queue_frames;
        s->age_ns = age_ns;
        pthread_mutex_init(&s->lock, NULL);
    }
    return s;
}

core_port *core_switch_add(core_switch *s) {
    struct switch_port *p = s->count < SWITCH_PORTS_MAX ? calloc(1, sizeof *p) : NULL;
    if (!p || !(p->queue = calloc(s->queue_frames, sizeof(struct switch_frame *)))) {
        free(p);
        return NULL;
    }
    core_port_init(&p->port, &port_ops, CORE_TAKES_ALL);
    p->owner = s;
    pthread_mutex_lock(&s->lock);
    p->index = s->count;
    s->ports[s->count++] = p;
    pthread_mutex_unlock(&s->lock);
    return &p->port;
}

void core_switch_free(core_switch *s) {
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < s->count; i++) {
        core_port_part(&s->ports[i]->port);
    }
    core_io_sync(s->io); /* run is over, and not posted any more */
    for (uint32_t i = 0; i < s->count; i++) {
        empty(s->ports[i]);
        free(s->ports[i]->queue);
        free(s->ports[i]);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}
