/* blk_ask.c: what the request engine cannot answer itself goes to the block graph in Python, and comes back by number. A
 * number that is no longer meant (the device was reset) is refused, so an answer may come as late as it likes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "blk.h"

void blk_ring(int fd) {
    uint64_t one = 1;
    (void)!write(fd, &one, sizeof one);
}

/* Whether the file system of (fd) has no disk behind it. */
bool blk_in_memory(int fd) {
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 &&
           (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC);
}

void blk_ask(struct blk_req *r, uint8_t kind, uint64_t size) {
    struct core_blk *b = r->blk;
    r->state = BLK_ASKING;
    r->ask = kind;
    r->asked_size = size;
    if (!b->asking.first) {
        blk_ring(b->ask_fd);
    }
    blk_list_add(&b->asking, r);
}

void blk_tell_error(struct core_blk *b, const struct blk_req *r, int error, uint8_t action) {
    if (b->error_count < BLK_ERRORS) {
        b->errors[b->error_count++] =
            (struct blk_error){.offset = r->offset, .error = error, .is_write = r->type != BLK_READ, .action = action};
    } else if (action == CORE_BLK_STOP) {
        b->errors[BLK_ERRORS - 1].action = action;
    }
    blk_ring(b->ask_fd);
}

static bool next_error(struct core_blk *b, core_blk_ask *ask) {
    if (!b->error_count) {
        return false;
    }
    struct blk_error e = b->errors[0];
    memmove(b->errors, b->errors + 1, --b->error_count * sizeof e);
    *ask = (core_blk_ask){
        .kind = CORE_BLK_ASK_ERROR, .write = e.is_write, .action = e.action, .error = e.error, .offset = e.offset};
    return true;
}

static void describe(struct blk_req *r, core_blk_ask *ask) {
    uint64_t size = r->asked_size;
    if (r->ask == CORE_BLK_ASK_READ || r->ask == CORE_BLK_ASK_WRITE) {
        size = size < BLK_ASK_PIECE ? size : BLK_ASK_PIECE;
    }
    r->asked_size = size;
    *ask = (core_blk_ask){.id = (uint64_t)r->generation << 32 | r->index,
                          .kind = r->ask,
                          .write = r->type == BLK_WRITE && r->allocated,
                          .unmap = r->unmap,
                          .offset = r->offset + r->done,
                          .size = size};
}

/* A request that asked for an extent which another one's answer has brought meanwhile. */
static bool is_known(const struct blk_req *r) {
    const struct blk_extent *e = r->ask == CORE_BLK_ASK_EXTENT ? blk_find(r->blk, r->offset + r->done) : NULL;
    return e && (!r->allocated || e->kind == CORE_BLK_ANY || (e->kind == CORE_BLK_DATA && e->writable));
}

/* Go on with it, or when the machine goes on. */
static void go_on(struct blk_req *r) {
    struct core_blk *b = r->blk;
    if (b->held) {
        r->state = BLK_HELD;
        blk_list_add(&b->waiting, r);
    } else {
        blk_resume(r);
    }
}

/* What Python is to do next: 1 and *ask, or 0. */
int core_blk_next_ask(core_blk *b, core_blk_ask *ask) {
    core_io_enter(b->io);
    int found = next_error(b, ask);
    struct blk_req *r;
    while (!found && (r = blk_list_take(&b->asking))) {
        if (is_known(r)) {
            go_on(r);
            continue;
        }
        r->state = BLK_ASKED;
        describe(r, ask);
        found = 1;
    }
    found = found || blk_ahead_ask(b, ask);
    blk_settle(b);
    core_io_leave(b->io);
    return found;
}

static struct blk_req *asked(struct core_blk *b, uint64_t id) {
    uint32_t index = (uint32_t)id;
    struct blk_req *r = index < b->req_count ? &b->reqs[index] : NULL;
    return r && r->state == BLK_ASKED && r->generation == id >> 32 ? r : NULL;
}

/* Take on what the graph said of a range. (voids) is what core_blk_voids was before the graph was asked: -EAGAIN when
 * something was voided meanwhile. */
int core_blk_extent(core_blk *b, uint32_t voids, uint32_t kind, uint64_t start, uint64_t length, int fd, uint64_t host,
                    int writable) {
    if (length == 0 || start + length < start || kind > CORE_BLK_ANY || (kind == CORE_BLK_DATA && fd < 0)) {
        return -EINVAL;
    }
    struct blk_extent e = {.start = start, .end = start + length, .kind = (uint8_t)kind, .fd = -1, .map = -1};
    int flags = 0;
    if (kind == CORE_BLK_DATA) {
        flags = fcntl(fd, F_GETFL);
        if (flags < 0) {
            return -errno;
        }
        e.fd = fd;
        e.host = host;
        e.writable = writable != 0;
        e.direct = flags & O_DIRECT;
        e.in_memory = blk_in_memory(fd);
    }
    core_io_enter(b->io);
    if (e.in_memory && !e.direct) {
        e.map = (int8_t)blk_map_of(b, fd, flags);
    }
    int rc = b->voids == voids ? blk_remember(b, &e) : -EAGAIN;
    core_io_leave(b->io);
    return rc;
}

uint32_t core_blk_voids(core_blk *b) {
    core_io_enter(b->io);
    uint32_t voids = b->voids;
    core_io_leave(b->io);
    return voids;
}

/* What was told of [start, +length) is so no longer: when this returns nothing uses it any more. */
void core_blk_void(core_blk *b, uint64_t start, uint64_t length) {
    core_io_enter(b->io);
    b->voids++;
    blk_drain(b); /* while what it is about is known: how an error is to be understood is written there */
    blk_forget(b, start, length > UINT64_MAX - start ? UINT64_MAX : start + length);
    blk_map_void(b, b->extent_count == 0);
    blk_settle(b);
    core_io_leave(b->io);
}

/* The bytes that a CORE_BLK_ASK_WRITE is about; -ESTALE. */
int core_blk_ask_data(core_blk *b, uint64_t id, uint8_t *data, uint64_t size) {
    core_io_enter(b->io);
    struct blk_req *r = asked(b, id);
    int rc = r && size <= r->asked_size ? 0 : -ESTALE;
    uint32_t count = rc == 0 ? blk_slice(r, size) : 0;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(data, r->part[i].iov_base, r->part[i].iov_len);
        data += r->part[i].iov_len;
    }
    core_io_leave(b->io);
    return rc;
}

static void copy_in(struct blk_req *r, const uint8_t *data, uint64_t size) {
    uint32_t count = blk_slice(r, size);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(r->part[i].iov_base, data, r->part[i].iov_len);
        data += r->part[i].iov_len;
    }
}

/* What Python has changed may have another place now. */
static void forget_changed(const struct blk_req *r) {
    struct core_blk *b = r->blk;
    const struct blk_extent *e = r->ask == CORE_BLK_ASK_WRITE ? blk_find(b, r->offset + r->done) : NULL;
    bool passes = e && e->kind == CORE_BLK_ANY; /* and goes on passing through Python */
    bool writes = r->ask == CORE_BLK_ASK_WRITE || r->ask == CORE_BLK_ASK_DISCARD || r->ask == CORE_BLK_ASK_ZERO;
    if (writes && !passes) {
        b->voids++;
        blk_forget(b, r->offset + r->done, r->offset + r->done + r->asked_size);
    }
}

/* Whether all that was asked for is done now: else the request goes on to its next piece. */
static bool is_all(struct blk_req *r) {
    switch (r->ask) {
    case CORE_BLK_ASK_READ:
    case CORE_BLK_ASK_WRITE: blk_advance(r, r->asked_size); return false;
    case CORE_BLK_ASK_EXTENT: return false;
    case CORE_BLK_ASK_FLUSH: return true;
    default: return !atomic_load(&r->blk->writethrough) || (r->flushing = true, false);
    }
}

/* Python has done it, or failed with (error), an errno; (data) is what was read. -ESTALE: nobody waits any more. */
int core_blk_answer(core_blk *b, uint64_t id, int error, const uint8_t *data, uint64_t size) {
    core_io_enter(b->io);
    b->now_ns = core_monotonic_ns();
    if (id == CORE_BLK_AHEAD) {
        blk_ahead_answered(b);
        core_io_leave(b->io);
        return 0;
    }
    struct blk_req *r = asked(b, id);
    int rc = r ? 0 : -ESTALE;
    if (r && r->ask == CORE_BLK_ASK_READ && !error && size != r->asked_size) {
        error = EIO;
    }
    if (r && b->held) {
        go_on(r); /* the guest stands still: nothing changes under its hands, no error either; asked for again */
    } else if (r && error) {
        r->state = BLK_RUNNING;
        blk_fail(r, error);
    } else if (r) {
        if (r->ask == CORE_BLK_ASK_READ) {
            copy_in(r, data, size);
        }
        r->state = BLK_RUNNING;
        forget_changed(r);
        if (is_all(r)) {
            blk_finish(r, BLK_OK);
        } else {
            go_on(r);
        }
    }
    blk_settle(b);
    core_io_leave(b->io);
    return rc;
}
