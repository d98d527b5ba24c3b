/* link_lane.c: one direction of a link: how frames get in, wait, and get out. Who sends which when is decided under the
 * lane's lock; nothing is sent with it held. One thread at a time empties the queue: the context, or a sender whose frames
 * are due at once. */
#include <stdlib.h>
#include <string.h>

#include "link.h"

enum {
    PATIENCE_NS = 200 * 1000 * 1000, /* a receiver that takes nothing for so long is given up until it takes again */
    GIVEN_UP_FRAMES = 256,           /* kept for one that was given up */
    RUN_BATCHES = 32,                /* then the context's other business has its turn */
};

static struct link_end *from(struct lane *lane) {
    return &lane->link->ends[lane->index];
}
static struct link_end *to(struct lane *lane) {
    return &lane->link->ends[1 - lane->index];
}

/* ---- the way past everything ------------------------------------------------------------------------------------- */

void lane_update(struct lane *lane) {
    const struct link_queue *q = &lane->queue;
    /* what a changed delay left behind does not hold back what comes now */
    bool behind = q->ripe || (q->count && lane->impair.last_due_ns);
    bool direct =
        lane->link->up && !lane->impaired && !lane->tap_count && !lane->stalled && !lane->impatient && !behind;
    atomic_store(&lane->direct, direct);
}

void lane_settle(struct lane *lane) {
    if (!atomic_load(&lane->direct)) {
        passage_wait(&lane->users);
    }
}

/* Set a timer in the context, which is the caller's own; not while the lane is moved away from it. */
static void set_in_context(struct lane *lane, struct core_io_timer *timer, int64_t due_ns) {
    pthread_mutex_lock(&lane->lock);
    struct core_io *io = lane->moving ? NULL : lane->link->io;
    pthread_mutex_unlock(&lane->lock);
    if (io && due_ns != INT64_MAX) {
        core_io_timer_set(io, timer, due_ns);
    }
}

/* Look after the receiver some time from now, unless that is going to happen anyhow. */
static void watch_patience(void *arg) {
    struct lane *lane = arg;
    set_in_context(lane, &lane->patience, core_monotonic_ns() + PATIENCE_NS);
}

/* With the lock. */
static void watch(struct lane *lane) {
    if (!lane->moving && !atomic_exchange(&lane->watched, true)) {
        atomic_store(&lane->watched, core_io_post(lane->link->io, watch_patience, lane) == 0);
    }
}

static void told_to_wait(struct lane *lane) {
    if (atomic_exchange(&lane->waiting, true)) {
        return;
    }
    atomic_store(&lane->waiting_since_ns, core_monotonic_ns());
    if (!atomic_load(&lane->watched)) {
        pthread_mutex_lock(&lane->lock);
        watch(lane);
        pthread_mutex_unlock(&lane->lock);
    }
}

static void lose_patience(struct core_io_timer *timer) {
    struct lane *lane = (struct lane *)((char *)timer - offsetof(struct lane, patience));
    int64_t now = core_monotonic_ns(), end = atomic_load(&lane->waiting_since_ns) + PATIENCE_NS;
    if (!atomic_load(&lane->waiting)) {
        atomic_store(&lane->watched, false);
        return;
    }
    if (end > now) {
        set_in_context(lane, &lane->patience, end);
        return;
    }
    atomic_store(&lane->watched, false);
    pthread_mutex_lock(&lane->lock);
    lane->impatient = true;
    lane_update(lane);
    pthread_mutex_unlock(&lane->lock);
    core_port_ready(&from(lane)->port, CORE_PORT_ALL_QUEUES);
}

static int pass_on(struct lane *lane, uint32_t queue, const struct core_frame *frames, int count) {
    int taken = core_port_send(&to(lane)->port, queue, frames, count);
    uint64_t bytes = 0;
    for (int i = 0; i < taken; i++) {
        bytes += frames[i].size;
    }
    atomic_fetch_add_explicit(&lane->passed, (uint64_t)taken, memory_order_relaxed);
    atomic_fetch_add_explicit(&lane->passed_bytes, bytes, memory_order_relaxed);
    return taken;
}

/* ---- getting in ------------------------------------------------------------------------------------------------------ */

static void record(struct lane *lane, int place, const struct core_frame *frame, const struct capture_note *note) {
    for (uint32_t i = 0; lane->tap_count && i < LINK_TAPS; i++) {
        if (lane->taps[place][i].capture) {
            capture_record(&lane->taps[place][i], frame, note);
        }
    }
}

static void lose(struct lane *lane, const struct core_frame *frame, enum core_link_drop why) {
    bool full = why == CORE_LINK_DROP_BACKLOG;
    lane->counts.drops[why]++;
    core_port_drop_in(&from(lane)->port, full ? CORE_DROP_QUEUE_FULL : CORE_DROP_IMPAIRED, frame->size);
}

static bool has_room(const struct lane *lane) {
    return !lane->impatient || lane->queue.frames < GIVEN_UP_FRAMES;
}

/* One bit is wrong, and what vouched for the frame does not any more. */
static void damage(struct link_frame *f, uint64_t at) {
    if (f->size) {
        uint64_t bit = at % ((uint64_t)f->size * 8);
        f->data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    f->hdr.flags &= (uint8_t)~CORE_NET_HDR_F_DATA_VALID;
}

static void keep(struct lane *lane, const struct core_frame *frame, const struct impair_verdict *v, bool seen) {
    struct link_frame *f = has_room(lane) ? link_queue_add(&lane->queue, frame, v->due_ns) : NULL;
    if (!f) {
        lose(lane, frame, CORE_LINK_DROP_BACKLOG);
        return;
    }
    f->seen = seen;
    lane->counts.reordered += v->late;
    if (v->corrupt) {
        damage(f, v->corrupt_at);
        lane->counts.corrupted++;
    }
    if (v->duplicate && link_queue_add(&lane->queue, frame, v->due_ns)) {
        lane->counts.duplicated++;
    }
}

static void take(struct lane *lane, const struct core_frame *frame, int64_t now_ns) {
    int64_t after = lane->impair.last_due_ns; /* of what a rate held back before */
    struct impair_verdict v = {.drop = -1, .due_ns = after > now_ns ? after : now_ns};
    if (lane->impaired) {
        impair_judge(&lane->impair, now_ns, frame->size, &v);
    }
    if (lane->tap_count) {
        const struct capture_note note = {v.drop, v.due_ns - now_ns, v.duplicate, v.corrupt, v.late};
        record(lane, TAP_ENTRY, frame, &note);
    }
    if (v.drop >= 0) {
        lose(lane, frame, (enum core_link_drop)v.drop);
    } else {
        keep(lane, frame, &v, false);
    }
}

/* With the lock. */
static void count_offered(struct lane *lane, const struct core_frame *frames, int count) {
    lane->counts.frames += (uint64_t)count;
    for (int i = 0; i < count; i++) {
        lane->counts.bytes += frames[i].size;
    }
}

static void set_timer(void *arg) {
    struct lane *lane = arg;
    pthread_mutex_lock(&lane->lock);
    int64_t due = lane->armed_ns;
    pthread_mutex_unlock(&lane->lock);
    set_in_context(lane, &lane->timer, due);
}

/* With the lock: have the context look at (due_ns). */
static void arm(struct lane *lane, int64_t due_ns) {
    if (due_ns < lane->armed_ns && !lane->moving) {
        lane->armed_ns = due_ns;
        (void)core_io_post(lane->link->io, set_timer, lane);
    }
}

/* ---- getting out ----------------------------------------------------------------------------------------------------- */

/* What is due, up to a batch, and recorded. With the lock. */
static int take_due(struct lane *lane, struct link_frame **batch, struct core_frame *frames, struct iovec (*iov)[2]) {
    int count = lane->stalled ? 0 : link_queue_take(&lane->queue, batch, LINK_BATCH);
    for (int i = 0; i < count; i++) {
        struct link_frame *f = batch[i];
        iov[i][0] = (struct iovec){.iov_base = &f->hdr, .iov_len = sizeof f->hdr};
        iov[i][1] = (struct iovec){.iov_base = f->data, .iov_len = f->size};
        frames[i] = (struct core_frame){.iov = iov[i], .count = 2, .size = f->size};
        if (!f->seen) {
            record(lane, TAP_EXIT, &frames[i], NULL);
            f->seen = true;
        }
    }
    return count;
}

/* Whether what is sent arrives anywhere: the receiver is there, and who sent it was not switched off meanwhile. */
static bool arrives(struct lane *lane) {
    return core_port_is_up(&to(lane)->port) && core_port_carrier(&to(lane)->port);
}

static void count_out(struct lane *lane, uint32_t size, bool arrived) {
    lane->counts.drops[CORE_LINK_DROP_CUT] += !arrived;
    lane->counts.delivered += arrived;
    lane->counts.delivered_bytes += arrived ? size : 0;
}

/* With the lock: (sent) of the batch are gone, the others wait for the receiver unless it called meanwhile. */
static void settle_batch(struct lane *lane, struct link_frame **batch, int count, int sent, uint32_t calls) {
    link_queue_give_back(&lane->queue, batch + sent, count - sent);
    lane->stalled = sent < count && calls == lane->ready_calls;
    if (sent == count) {
        lane->impatient = false;
    }
}

/* Send what is due; false: there is more. With the lock, which is let go of while it sends. */
static bool send_due(struct lane *lane) {
    struct link_frame *batch[LINK_BATCH];
    struct core_frame frames[LINK_BATCH];
    struct iovec iov[LINK_BATCH][2];
    for (int n = 0; n < RUN_BATCHES; n++) {
        link_queue_ripen(&lane->queue, core_monotonic_ns());
        int count = take_due(lane, batch, frames, iov);
        if (count == 0) {
            return true;
        }
        uint32_t calls = lane->ready_calls;
        bool arrived = arrives(lane);
        pthread_mutex_unlock(&lane->lock);
        int sent = core_port_send(&to(lane)->port, 0, frames, count);
        pthread_mutex_lock(&lane->lock);
        for (int i = 0; i < sent; i++) {
            count_out(lane, batch[i]->size, arrived);
            free(batch[i]);
        }
        settle_batch(lane, batch, count, sent, calls);
    }
    return false;
}

/* With the lock. Another thread that empties the queue already sees what was added. */
static void run(struct lane *lane) {
    if (lane->running) {
        return;
    }
    lane->running = true;
    bool done = send_due(lane);
    lane->running = false;
    lane_update(lane);
    int64_t next = lane->stalled ? INT64_MAX : link_queue_next(&lane->queue);
    arm(lane, done || next == INT64_MAX ? next : 0);
}

static void fire(struct core_io_timer *timer) {
    struct lane *lane = (struct lane *)((char *)timer - offsetof(struct lane, timer));
    pthread_mutex_lock(&lane->lock);
    lane->armed_ns = INT64_MAX;
    run(lane);
    pthread_mutex_unlock(&lane->lock);
}

void lane_ready(struct lane *lane) {
    atomic_store(&lane->waiting, false);
    pthread_mutex_lock(&lane->lock);
    lane->ready_calls++;
    lane->stalled = lane->impatient = false;
    lane_update(lane);
    if (lane->queue.frames) {
        arm(lane, link_queue_next(&lane->queue));
    }
    pthread_mutex_unlock(&lane->lock);
    core_port_ready(&from(lane)->port, CORE_PORT_ALL_QUEUES);
}

/* ---- both ways in ---------------------------------------------------------------------------------------------------- */

/* Only recorded, not delayed: send at once, and keep what is not taken. With the lock, which is let go of meanwhile. */
static void pass_recorded(struct lane *lane, uint32_t queue, const struct core_frame *frames, int count) {
    const struct capture_note note = {.drop = -1};
    for (int i = 0; i < count; i++) {
        record(lane, TAP_ENTRY, &frames[i], &note);
        record(lane, TAP_EXIT, &frames[i], NULL);
    }
    uint32_t calls = lane->ready_calls;
    bool arrived = arrives(lane);
    pthread_mutex_unlock(&lane->lock);
    int sent = core_port_send(&to(lane)->port, queue, frames, count);
    pthread_mutex_lock(&lane->lock);
    const struct impair_verdict now = {.drop = -1, .due_ns = core_monotonic_ns()};
    for (int i = 0; i < count; i++) {
        if (i < sent) {
            count_out(lane, frames[i].size, arrived);
        } else {
            keep(lane, &frames[i], &now, true);
        }
    }
    if (sent < count) {
        lane->stalled = calls == lane->ready_calls;
        arm(lane, lane->stalled ? INT64_MAX : 0);
    }
}

static int take_all(struct lane *lane, uint32_t queue, const struct core_frame *frames, int count) {
    pthread_mutex_lock(&lane->lock);
    count_offered(lane, frames, count);
    if (!lane->link->up) {
        for (int i = 0; i < count; i++) {
            lose(lane, &frames[i], CORE_LINK_DROP_CUT);
        }
    } else if (!lane->impaired && !lane->stalled && !lane->impatient && lane->queue.frames == 0) {
        pass_recorded(lane, queue, frames, count);
    } else {
        int64_t now = core_monotonic_ns();
        for (int i = 0; i < count; i++) {
            take(lane, &frames[i], now);
        }
        int64_t next = lane->stalled ? INT64_MAX : link_queue_next(&lane->queue);
        if (next <= now) {
            run(lane);
        } else {
            arm(lane, next);
        }
    }
    pthread_mutex_unlock(&lane->lock);
    return count;
}

int lane_deliver(struct lane *lane, uint32_t queue, const struct core_frame *frames, int count) {
    if (!atomic_load_explicit(&lane->direct, memory_order_relaxed)) {
        return take_all(lane, queue, frames, count);
    }
    _Atomic uint32_t *inside = passage_enter(&lane->users);
    bool direct = atomic_load(&lane->direct);
    int taken = direct ? pass_on(lane, queue, frames, count) : 0;
    if (direct && taken < count) {
        told_to_wait(lane);
    }
    passage_leave(inside);
    return direct ? taken : take_all(lane, queue, frames, count);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

void lane_init(struct lane *lane, struct core_link *link, uint32_t index) {
    pthread_mutex_init(&lane->lock, NULL);
    lane->link = link;
    lane->index = index;
    lane->armed_ns = INT64_MAX;
    lane->timer.fire = fire;
    lane->patience.fire = lose_patience;
    link_queue_init(&lane->queue);
}

void lane_leave(struct lane *lane) {
    pthread_mutex_lock(&lane->lock);
    lane->moving = true;
    pthread_mutex_unlock(&lane->lock);
}

void lane_detach(struct lane *lane, struct core_io *io) {
    core_io_timer_clear(io, &lane->timer);
    core_io_timer_clear(io, &lane->patience);
}

void lane_attach(struct lane *lane) {
    pthread_mutex_lock(&lane->lock);
    lane->moving = false;
    lane->armed_ns = INT64_MAX;
    arm(lane, lane->stalled ? INT64_MAX : link_queue_next(&lane->queue));
    atomic_store(&lane->watched, false);
    if (atomic_load(&lane->waiting)) {
        watch(lane);
    }
    pthread_mutex_unlock(&lane->lock);
}

void lane_free(struct lane *lane) {
    link_queue_free(&lane->queue);
    impair_free(&lane->impair);
    pthread_mutex_destroy(&lane->lock);
}
