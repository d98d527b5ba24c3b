/* blk_throttle.c: requests that wait for the limits of their disk, in the order they came, reads and writes apart. */
#include <errno.h>

#include "blk.h"

static bool is_limited(const struct blk_req *r) {
    return r->type == BLK_READ || r->type == BLK_WRITE || r->type == BLK_WRITE_ZEROES;
}

/* Ask the groups that have not let it through yet. */
static bool may_go(struct blk_req *r, bool is_write) {
    struct core_blk *b = r->blk;
    while (r->passed < b->limit_count) {
        if (core_throttle_take(b->limits[r->passed], is_write, r->length, b->now_ns)) {
            return false;
        }
        r->passed++;
    }
    return true;
}

/* Start a request, or keep it until it may go. */
void blk_admit(struct blk_req *r) {
    struct core_blk *b = r->blk;
    if (b->limit_count && is_limited(r)) {
        bool is_write = r->type != BLK_READ;
        r->passed = 0;
        if (b->limited[is_write].first || !may_go(r, is_write)) {
            r->state = BLK_LIMITED;
            blk_list_add(&b->limited[is_write], r);
            return;
        }
    }
    blk_start(r);
}

/* Those that wait may go, or some of them. */
static void try_again(void *arg, bool is_write) {
    struct core_blk *b = arg;
    struct blk_list *list = &b->limited[is_write];
    b->now_ns = core_monotonic_ns();
    while (b->running && !b->held && list->first && may_go(list->first, is_write)) {
        struct blk_req *r = blk_list_take(list);
        r->state = BLK_RUNNING;
        blk_start(r);
    }
    blk_settle(b);
}

void blk_limited_go(struct core_blk *b) {
    if (b->limited[0].first) {
        try_again(b, false);
    }
    if (b->limited[1].first) {
        try_again(b, true);
    }
}

/* Nothing waits any more: the turns go to others. */
void blk_limited_forget(struct core_blk *b) {
    b->limited[0] = b->limited[1] = (struct blk_list){0};
    for (uint32_t i = 0; i < b->limit_count; i++) {
        core_throttle_give_up(b->limits[i], false);
        core_throttle_give_up(b->limits[i], true);
    }
}

void blk_limited_idle(struct core_blk *b) {
    for (int is_write = 0; is_write < 2; is_write++) {
        for (uint32_t i = 0; !b->limited[is_write].first && i < b->limit_count; i++) {
            core_throttle_give_up(b->limits[i], is_write);
        }
    }
}

/* From now on these groups (at most BLK_LIMITS) limit the disk. Control thread, outside of the context. -ENOMEM. */
int core_blk_set_limits(core_blk *b, core_throttle *const *groups, uint32_t count) {
    core_throttle_member *before[BLK_LIMITS];
    int rc = count > BLK_LIMITS ? -E2BIG : 0;
    core_io_enter(b->io);
    uint32_t before_count = b->limit_count;
    for (uint32_t i = 0; i < before_count; i++) {
        before[i] = b->limits[i];
    }
    b->limit_count = 0;
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        core_throttle_member *m = core_throttle_join(groups[i], b->io, try_again, b);
        if (m) {
            b->limits[b->limit_count++] = m;
        } else {
            rc = -ENOMEM;
        }
    }
    for (int is_write = 0; is_write < 2; is_write++) {
        for (struct blk_req *r = b->limited[is_write].first; r; r = r->next) {
            r->passed = 0;
        }
    }
    core_io_leave(b->io);
    for (uint32_t i = 0; i < before_count; i++) {
        core_throttle_leave(before[i]);
    }
    core_io_enter(b->io);
    blk_limited_go(b);
    core_io_leave(b->io);
    return rc;
}
