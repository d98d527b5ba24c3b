/* blk_run.c: what becomes of a request: piece by piece through the extents, to the file at once where that cannot wait,
 * else to the kernel, a thread or Python; and what an error means by the policy of the device. */
#include <errno.h>
#include <string.h>

#include "blk.h"

void blk_start(struct blk_req *r) {
    switch (r->type) {
    case BLK_READ:
    case BLK_WRITE: blk_continue(r); break;
    case BLK_DISCARD: blk_ask(r, CORE_BLK_ASK_DISCARD, r->length); break;
    case BLK_WRITE_ZEROES: blk_ask(r, CORE_BLK_ASK_ZERO, r->length); break;
    default: r->flushing = true; blk_continue(r);
    }
}

void blk_resume(struct blk_req *r) {
    if (r->flushing || r->type == BLK_READ || r->type == BLK_WRITE) {
        blk_continue(r);
    } else {
        blk_start(r);
    }
}

static void flush(struct blk_req *r) {
    struct core_blk *b = r->blk;
    r->flushing = true;
    if (b->flush_fd == BLK_PYTHON_FLUSHES) {
        blk_ask(r, CORE_BLK_ASK_FLUSH, 0);
        return;
    }
    int64_t rc = blk_sync(r);
    if (rc != -EINPROGRESS) {
        blk_done(r, rc);
    }
}

/* The next piece of a transfer: how much was done, 0: it goes on elsewhere, -errno. */
static int64_t next_piece(struct blk_req *r) {
    bool is_write = r->type == BLK_WRITE;
    uint64_t at = r->offset + r->done, left = r->length - r->done;
    const struct blk_extent *e = blk_find(r->blk, at);
    if (!e) {
        blk_ask(r, CORE_BLK_ASK_EXTENT, left);
        return 0;
    }
    uint64_t size = e->end - at < left ? e->end - at : left;
    if (e->kind == CORE_BLK_DATA && (!is_write || e->writable)) {
        if (is_write) {
            blk_ahead_note(r->blk, e, at, size);
        }
        int64_t rc = blk_transfer(r, e, size);
        if (rc == -EINVAL && e->direct) { /* the driver's buffers are not as O_DIRECT wants them: copy */
            blk_ask(r, is_write ? CORE_BLK_ASK_WRITE : CORE_BLK_ASK_READ, size);
            return 0;
        }
        return rc == -EINPROGRESS ? 0 : rc == 0 ? -EIO : rc; /* nothing there: the file has become shorter */
    }
    if (e->kind == CORE_BLK_ANY) {
        blk_ask(r, is_write ? CORE_BLK_ASK_WRITE : CORE_BLK_ASK_READ, size);
        return 0;
    }
    if (is_write) {
        if (r->allocated) {
            return -EIO; /* it was asked for a place and has none */
        }
        r->allocated = true;
        blk_ask(r, CORE_BLK_ASK_EXTENT, left);
        return 0;
    }
    blk_zero(r, size);
    return (int64_t)size;
}

/* So many more bytes are done. */
void blk_advance(struct blk_req *r, uint64_t size) {
    r->done += size;
    r->allocated = r->allocated && size == 0;
}

void blk_continue(struct blk_req *r) {
    r->state = BLK_RUNNING;
    while (!r->flushing && r->done < r->length) {
        int64_t rc = next_piece(r);
        if (rc < 0) {
            blk_fail(r, (int)-rc);
        }
        if (rc <= 0) {
            return;
        }
        blk_advance(r, (uint64_t)rc);
    }
    if (r->flushing || (r->type == BLK_WRITE && atomic_load_explicit(&r->blk->writethrough, memory_order_relaxed))) {
        flush(r);
    } else {
        blk_finish(r, BLK_OK);
    }
}

/* A call that ran elsewhere did (result) bytes, or failed with -errno. */
void blk_done(struct blk_req *r, int64_t result) {
    struct core_blk *b = r->blk;
    r->state = BLK_RUNNING;
    if (r->flushing) {
        if (result < 0) {
            b->flush_failed = true; /* the host has forgotten what it could not write: a second try would lie */
            blk_fail(r, (int)-result);
        } else {
            blk_finish(r, BLK_OK);
        }
        return;
    }
    if (result == -EAGAIN || result == -EINTR) {
        result = 0; /* again */
    } else if (result == -EINVAL) {
        const struct blk_extent *e = blk_find(b, r->offset + r->done);
        if (e && e->direct) {
            blk_ask(r, r->type == BLK_WRITE ? CORE_BLK_ASK_WRITE : CORE_BLK_ASK_READ, r->asked_size);
            return;
        }
    } else if (result == 0) {
        result = r->type == BLK_WRITE ? -ENOSPC : -EIO; /* the end of a file that has become shorter */
    }
    if (result < 0) {
        blk_fail(r, (int)-result);
        return;
    }
    blk_advance(r, (uint64_t)result);
    blk_continue(r);
}

static uint8_t policy(const struct core_blk *b, bool is_write, int error) {
    uint8_t action = is_write ? b->on_write_error : b->on_read_error;
    if (action == CORE_BLK_ENOSPC) {
        return error == ENOSPC ? CORE_BLK_STOP : CORE_BLK_REPORT;
    }
    return action;
}

void blk_fail(struct blk_req *r, int error) {
    struct core_blk *b = r->blk;
    bool is_write = r->type != BLK_READ;
    uint8_t action = policy(b, is_write, error);
    b->counts.failed[is_write]++;
    blk_tell_error(b, r, error, action);
    if (action == CORE_BLK_STOP) {
        r->done = 0;
        r->flushing = r->type == BLK_FLUSH;
        r->state = BLK_HELD;
        blk_list_add(&b->waiting, r);
        b->held = true;
    } else {
        blk_finish(r, action == CORE_BLK_IGNORE ? BLK_OK : BLK_IOERR);
    }
}

static void count(struct core_blk *b, const struct blk_req *r) {
    uint32_t kind = r->type == BLK_READ ? 0 : r->type == BLK_WRITE ? 1 : r->type == BLK_FLUSH ? 2 : 3;
    b->unsettled += r->length;
    uint64_t end = r->offset + r->length;
    if ((kind == 1 || r->type == BLK_WRITE_ZEROES) && end > b->counts.highest) {
        b->counts.highest = end;
    }
    b->counts.last_ns = (uint64_t)b->now_ns;
    b->counts.ops[kind]++;
    b->counts.bytes[kind] += r->length;
    b->counts.ns[kind] += (uint64_t)b->now_ns - r->started_ns;
}

/* Tell the driver how it went, and give the chain back. */
void blk_finish(struct blk_req *r, uint8_t status) {
    struct core_blk *b = r->blk;
    core_machine *m = b->virtio->chip.machine;
    if (r->type == BLK_READ || r->type == BLK_GET_ID) {
        for (uint32_t i = 0; i < r->count; i++) {
            core_ram_written(m, r->gpas[i], r->iov[i].iov_len);
        }
    }
    if (r->type == BLK_DISCARD || r->type == BLK_WRITE_ZEROES) {
        blk_map_void(b, false);
    }
    *r->status = status;
    core_ram_written(m, r->status_gpa, 1);
    if (status == BLK_OK && r->type != BLK_GET_ID) {
        count(b, r);
    } else if (status != BLK_OK) {
        b->counts.refused++;
    }
    if (core_vq_push(&b->virtio->chip, r->queue, r->slot, r->epoch, r->writable) == 0) {
        b->queues[r->queue].unflushed = true;
    }
    blk_release(r);
}
