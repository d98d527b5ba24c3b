/* blk_file.c: a request's bytes between guest memory and a file of the host: at once where that cannot wait for a disk,
 * else by io_uring or a thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "blk.h"

uint32_t blk_slice(struct blk_req *r, uint64_t size) {
    uint64_t skip = r->done;
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->count && size && n < BLK_IOV; i++) {
        uint64_t length = r->iov[i].iov_len;
        if (skip >= length) {
            skip -= length;
            continue;
        }
        length = length - skip < size ? length - skip : size;
        r->part[n++] = (struct iovec){.iov_base = (uint8_t *)r->iov[i].iov_base + skip, .iov_len = length};
        skip = 0;
        size -= length;
    }
    return n;
}

void blk_zero(struct blk_req *r, uint64_t size) {
    uint64_t skip = r->done;
    for (uint32_t i = 0; i < r->count && size; i++) {
        uint64_t length = r->iov[i].iov_len;
        if (skip >= length) {
            skip -= length;
            continue;
        }
        length = length - skip < size ? length - skip : size;
        memset((uint8_t *)r->iov[i].iov_base + skip, 0, length);
        skip = 0;
        size -= length;
    }
}

/* ---- io_uring -------------------------------------------------------------------------------------------------------- */

static bool reap(struct blk_uring *u) {
    void *what;
    int32_t result;
    bool any = false;
    while (uring_take(&u->ring, &what, &result)) {
        if (!any) {
            u->blk->now_ns = core_monotonic_ns();
        }
        any = true;
        u->blk->in_native--;
        blk_done(what, result);
    }
    if (any) {
        blk_settle(u->blk);
    }
    return any;
}

static void ring_ready(struct core_io_source *s, uint32_t events) {
    (void)events;
    reap((struct blk_uring *)s);
}

static bool ring_poll(struct core_io_source *s) {
    return reap((struct blk_uring *)s);
}

static bool ring_arm(struct core_io_source *s) {
    return uring_has(&((struct blk_uring *)s)->ring);
}

/* At its first use. False: the host has none, or no more of them; threads do it. */
static bool have_uring(struct core_blk *b) {
    struct blk_uring *u = &b->uring;
    if (b->has_uring || !b->use_uring) {
        return b->has_uring;
    }
    b->use_uring = false;
    if (uring_open(&u->ring, BLK_RING) < 0) {
        return false;
    }
    u->blk = b;
    u->source = (struct core_io_source){
        .fd = u->ring.fd, .events = EPOLLIN, .ready = ring_ready, .poll = ring_poll, .arm = ring_arm};
    if (core_io_add(b->io, &u->source) < 0) {
        uring_close(&u->ring);
        return false;
    }
    b->use_uring = b->has_uring = true;
    return true;
}

static bool put_into_uring(struct core_blk *b, struct blk_req *r) {
    static const enum uring_op ops[] = {
        [BLK_OP_READ] = URING_READ, [BLK_OP_WRITE] = URING_WRITE, [BLK_OP_SYNC] = URING_SYNC};
    struct uring *ring = &b->uring.ring;
    uint32_t most = core_io_max_batch(b->io);
    for (int tries = 0; tries < 2; tries++) {
        if (uring_put(ring, ops[r->op], r->op_fd, r->part, r->part_count, r->op_offset, r)) {
            if (most && ring->gathered >= most) {
                (void)uring_submit(ring, false);
            }
            return true;
        }
        (void)uring_submit(ring, false);
    }
    return false;
}

/* ---- elsewhere ------------------------------------------------------------------------------------------------------- */

static int64_t hand_over(struct blk_req *r) {
    struct core_blk *b = r->blk;
    r->state = BLK_NATIVE;
    if (have_uring(b) && put_into_uring(b, r)) {
        b->in_native++;
        return -EINPROGRESS;
    }
    if (!b->pool) {
        b->pool = blk_pool_new(b);
    }
    int rc = b->pool ? blk_pool_run(b->pool, r) : -ENOMEM;
    if (rc < 0) {
        r->state = BLK_RUNNING;
        return rc;
    }
    b->in_native++;
    return -EINPROGRESS;
}

void blk_submit(struct core_blk *b) {
    if (b->has_uring && b->uring.ring.gathered) {
        (void)uring_submit(&b->uring.ring, false); /* what it does not take now goes out next time */
    }
}

void blk_drain(struct core_blk *b) {
    while (b->in_native) {
        if (b->has_uring && (b->uring.ring.gathered || b->uring.ring.in_flight)) {
            (void)uring_submit(&b->uring.ring, true);
            reap(&b->uring);
        } else if (b->pool) {
            blk_pool_wait(b->pool);
        }
    }
}

/* ---- transfers ------------------------------------------------------------------------------------------------------- */

static ssize_t call(const struct blk_req *r, int flags) {
    const struct iovec *iov = r->part;
    int n = (int)r->part_count;
    ssize_t rc;
    do {
        rc = r->op == BLK_OP_READ ? preadv2(r->op_fd, iov, n, (off_t)r->op_offset, flags)
                                  : pwritev2(r->op_fd, iov, n, (off_t)r->op_offset, flags);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc;
}

int64_t blk_transfer(struct blk_req *r, const struct blk_extent *e, uint64_t size) {
    struct core_blk *b = r->blk;
    bool is_write = r->type == BLK_WRITE;
    r->op = is_write ? BLK_OP_WRITE : BLK_OP_READ;
    r->op_fd = e->fd;
    r->op_offset = e->host + (r->offset + r->done - e->start);
    r->part_count = blk_slice(r, size);
    r->asked_size = size;
    if (e->in_memory) {
        int64_t rc = blk_map_transfer(r, e->map);
        return rc ? rc : call(r, 0);
    }
    if (!e->direct && !b->no_nowait[is_write]) {
        ssize_t rc = call(r, RWF_NOWAIT);
        if (rc != -EAGAIN && rc != -EOPNOTSUPP) {
            return rc;
        }
        b->no_nowait[is_write] = rc == -EOPNOTSUPP;
    }
    return hand_over(r);
}

int64_t blk_sync(struct blk_req *r) {
    struct core_blk *b = r->blk;
    if (b->flush_failed) {
        return -EIO;
    }
    blk_map_date(b);
    if (b->nothing_to_flush) {
        return 0;
    }
    r->op = BLK_OP_SYNC;
    r->op_fd = b->flush_fd;
    r->part_count = 0;
    return hand_over(r);
}

void blk_file_close(struct core_blk *b) {
    blk_map_void(b, true);
    if (b->has_uring) {
        core_io_remove(&b->uring.source);
        uring_close(&b->uring.ring);
        b->has_uring = false;
    }
    if (b->pool) {
        blk_pool_free(b->pool);
        b->pool = NULL;
    }
}
