/* blk.c: the request engine of virtio-blk: its life, its queues as sources of an io context, and its requests' memory. */
#include "blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { TURN = 4 * BLK_BATCH }; /* requests of one queue before another one has its turn */

/* ---- requests -------------------------------------------------------------------------------------------------------- */

void blk_list_add(struct blk_list *l, struct blk_req *r) {
    r->next = NULL;
    if (!l->first) {
        l->first = r;
    } else {
        *l->end = r;
    }
    l->end = &r->next;
}

struct blk_req *blk_list_take(struct blk_list *l) {
    struct blk_req *r = l->first;
    if (r) {
        l->first = r->next;
    }
    return r;
}

/* An unused one; there are as many as the rings have places. */
struct blk_req *blk_take(struct core_blk *b) {
    struct blk_req *r = b->free;
    if (r) {
        b->free = r->next;
        return r;
    }
    if (b->req_count == b->req_room) {
        return NULL;
    }
    r = &b->reqs[b->req_count];
    r->blk = b;
    r->index = b->req_count++;
    return r;
}

void blk_release(struct blk_req *r) {
    r->state = BLK_FREE;
    r->generation++;
    r->next = r->blk->free;
    r->blk->free = r;
}

/* ---- queues ---------------------------------------------------------------------------------------------------------- */

void blk_settle(struct core_blk *b) {
    blk_submit(b);
    b->unsettled = 0;
    for (uint32_t i = 0; i < b->queue_count; i++) {
        if (b->queues[i].unflushed) {
            b->queues[i].unflushed = false;
            core_vq_flush(&b->virtio->chip, i);
        }
    }
}

static bool serve(struct blk_queue *q, const core_vchain_info *info) {
    struct core_blk *b = q->blk;
    struct blk_req *r = blk_take(b);
    uint8_t status = BLK_IOERR;
    if (!r) {
        virtio_break(b->virtio, "out of memory");
        return false;
    }
    r->queue = q->index;
    r->started_ns = (uint64_t)b->now_ns;
    int rc = blk_parse(r, info, &b->virtio->queues[q->index].chains[info->slot], &status);
    if (rc < 0) {
        blk_release(r);
        virtio_break(b->virtio, "a request without room for its header or its status");
        return false;
    }
    if (rc > 0) {
        blk_finish(r, status);
    } else {
        r->state = BLK_RUNNING;
        blk_admit(r);
    }
    return true;
}

/* Take what the driver has put there. Whether there was something. */
static bool serve_queue(struct blk_queue *q) {
    struct core_blk *b = q->blk;
    core_vchain_info info;
    uint32_t n = 0;
    while (b->running && !b->held && n < TURN && core_vq_pop(&b->virtio->chip, q->index, &info) == 1) {
        if (n++ % BLK_BATCH == 0) {
            b->now_ns = core_monotonic_ns();
        }
        if (!serve(q, &info)) {
            break;
        }
        if (n % BLK_BATCH == 0 || b->unsettled >= BLK_BATCH_BYTES) {
            blk_settle(b);
        }
    }
    if (n) {
        blk_settle(b);
    }
    return n > 0;
}

static void queue_ready(struct core_io_source *s, uint32_t events) {
    uint64_t count;
    (void)events;
    (void)!read(s->fd, &count, sizeof count);
    serve_queue((struct blk_queue *)s);
}

static bool queue_poll(struct core_io_source *s) {
    return serve_queue((struct blk_queue *)s);
}

static bool queue_arm(struct core_io_source *s) {
    struct blk_queue *q = (struct blk_queue *)s;
    struct core_vq *vq = &q->blk->virtio->queues[q->index];
    if (!q->blk->running || q->blk->held || !vq_open(vq)) {
        return false;
    }
    bool more = (vq_listen(vq) && vq->free_count) || vq->redo_next < vq->redo_count;
    vq_close(vq);
    return more;
}

/* ---- the driver begins and ends -------------------------------------------------------------------------------------- */

/* The driver drives the device: serve its queues. 0 or -errno. */
int core_blk_start(core_blk *b) {
    int rc = 0;
    core_io_enter(b->io);
    b->running = true;
    for (uint32_t i = 0; i < b->queue_count && rc == 0; i++) {
        struct blk_queue *q = &b->queues[i];
        if (core_virtio_ready(&b->virtio->chip, i) && !q->listening) {
            b->virtio->queues[i].polled = true;
            rc = core_io_add(b->io, &q->source);
            q->listening = rc == 0;
        }
    }
    core_io_leave(b->io);
    return rc;
}

/* Forget every request; when it returns no guest memory is touched any more. The queues may be reset then. */
void core_blk_stop(core_blk *b) {
    core_io_enter(b->io);
    b->running = false;
    for (uint32_t i = 0; i < b->queue_count; i++) {
        core_io_remove(&b->queues[i].source);
        b->queues[i].listening = b->queues[i].unflushed = false;
    }
    blk_drain(b);
    b->asking = b->waiting = (struct blk_list){0};
    blk_limited_forget(b);
    for (uint32_t i = 0; i < b->req_count; i++) {
        if (b->reqs[i].state != BLK_FREE) {
            blk_release(&b->reqs[i]);
        }
    }
    core_io_leave(b->io);
}

static void forget_of_queue(struct blk_list *list, uint32_t queue) {
    struct blk_list all = *list;
    struct blk_req *r;
    *list = (struct blk_list){0};
    while ((r = blk_list_take(&all))) {
        if (r->queue != queue) {
            blk_list_add(list, r);
        }
    }
}

/* The driver takes one queue back, or (reset) resets it: forget its requests. When it returns none of them touches guest
 * memory any more; the others go on, and so does this one when it is enabled again. */
void core_blk_queue_off(core_blk *b, uint32_t queue, int reset) {
    core_io_enter(b->io);
    b->now_ns = core_monotonic_ns();
    blk_drain(b);
    struct blk_list *lists[] = {&b->asking, &b->waiting, &b->limited[0], &b->limited[1]};
    for (uint32_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        forget_of_queue(lists[i], queue);
    }
    for (uint32_t i = 0; i < b->req_count; i++) {
        if (b->reqs[i].state != BLK_FREE && b->reqs[i].queue == queue) {
            blk_release(&b->reqs[i]);
        }
    }
    (void)core_virtio_queue_off(&b->virtio->chip, queue, reset);
    blk_limited_idle(b);
    blk_limited_go(b);
    blk_settle(b);
    core_io_leave(b->io);
}

/* The machine stands still from now on: what is with the kernel comes back first, the rest waits. Or it goes on: what
 * failed while its policy was to stop is tried again. */
void core_blk_hold(core_blk *b, int on) {
    core_io_enter(b->io);
    b->held = on != 0;
    b->now_ns = core_monotonic_ns();
    if (on) {
        blk_drain(b);
    } else {
        struct blk_list again = b->waiting;
        struct blk_req *r;
        b->waiting = (struct blk_list){0};
        while ((r = blk_list_take(&again))) {
            blk_resume(r);
        }
        blk_limited_go(b);
        for (uint32_t i = 0; i < b->queue_count; i++) {
            if (b->queues[i].listening) {
                serve_queue(&b->queues[i]);
                blk_ring(b->queues[i].source.fd); /* and again in its own context, which then asks for notifications */
            }
        }
    }
    blk_settle(b);
    core_io_leave(b->io);
}

/* ---- what the disk is ------------------------------------------------------------------------------------------------ */

/* Take on all of it; requests in flight keep what they were given. */
void core_blk_set_disk(core_blk *b, const core_blk_disk *disk) {
    core_io_enter(b->io);
    b->size = disk->size;
    b->block_size = disk->block_size;
    b->read_only = disk->read_only;
    b->max_discard = disk->max_discard;
    b->max_zeroes = disk->max_zeroes;
    b->flush_fd = disk->flush_fd;
    b->nothing_to_flush = disk->flush_fd == BLK_NO_FLUSH || (disk->flush_fd >= 0 && blk_in_memory(disk->flush_fd));
    b->on_read_error = disk->on_read_error;
    b->on_write_error = disk->on_write_error;
    b->use_uring = disk->use_uring;
    memcpy(b->serial, disk->serial, BLK_ID);
    core_io_leave(b->io);
}

/* Whether each write is flushed before it is done. */
void core_blk_set_writethrough(core_blk *b, int on) {
    atomic_store(&b->writethrough, on != 0);
}

void core_blk_stats(core_blk *b, core_blk_counts *counts) {
    core_io_enter(b->io);
    *counts = b->counts;
    core_io_leave(b->io);
}

/* What rings when core_blk_next_ask has something. */
int core_blk_ask_fd(core_blk *b) {
    return b->ask_fd;
}

/* The eventfd that the driver's notifications of a queue go to, or -1. */
int core_blk_bell_fd(core_blk *b, uint32_t queue) {
    return queue < b->queue_count ? b->queues[queue].source.fd : -1;
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

void core_blk_free(core_blk *b) {
    if (!b) {
        return;
    }
    core_blk_stop(b);
    core_blk_set_limits(b, NULL, 0);
    blk_file_close(b);
    for (uint32_t i = 0; i < b->req_count; i++) {
        free(b->reqs[i].iov);
        free(b->reqs[i].part);
        free(b->reqs[i].gpas);
    }
    for (uint32_t i = 0; i < b->queue_count; i++) {
        core_virtio_kick_fd(&b->virtio->chip, i, -1);
        if (b->queues[i].source.fd >= 0) {
            close(b->queues[i].source.fd);
        }
    }
    if (b->ask_fd >= 0) {
        close(b->ask_fd);
    }
    free(b->reqs);
    free(b->queues);
    free(b->extents);
    free(b);
}

static bool init_queues(struct core_blk *b) {
    for (uint32_t i = 0; i < b->queue_count; i++) {
        struct blk_queue *q = &b->queues[i];
        q->blk = b;
        q->index = i;
        q->source = (struct core_io_source){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                            .events = EPOLLIN,
                                            .ready = queue_ready,
                                            .poll = queue_poll,
                                            .arm = queue_arm};
        if (q->source.fd < 0) {
            b->queue_count = i;
            return false;
        }
    }
    return true;
}

/* The engine behind a virtio device, served in (io). NULL: no more memory or descriptors. Both must outlive it. */
core_blk *core_blk_new(core_chip *virtio, core_io *io) {
    struct core_blk *b = calloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    b->io = io;
    b->virtio = (struct core_virtio *)virtio;
    b->flush_fd = BLK_PYTHON_FLUSHES;
    b->touched_fd = -1;
    b->block_size = BLK_SECTOR;
    b->ask_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    b->queue_count = b->virtio->queue_count;
    for (uint32_t i = 0; i < b->queue_count; i++) {
        b->req_room += b->virtio->queues[i].max;
    }
    b->reqs = calloc(b->req_room + 1, sizeof *b->reqs);
    b->queues = calloc(b->queue_count + 1, sizeof *b->queues);
    if (!b->queues) {
        b->queue_count = 0;
    }
    if (b->ask_fd < 0 || !b->reqs || !b->queues || !init_queues(b)) {
        core_blk_free(b);
        return NULL;
    }
    return b;
}
