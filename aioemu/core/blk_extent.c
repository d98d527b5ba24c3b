/* blk_extent.c: which range of a disk is where in which file: what the block graph told, sorted, until it says that it is
 * no longer so. Forgetting is always allowed: it is asked for again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blk.h"

/* The first one that ends behind (offset). */
static uint32_t place_of(const struct core_blk *b, uint64_t offset) {
    uint32_t low = 0, high = b->extent_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (b->extents[middle].end > offset) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

const struct blk_extent *blk_find(const struct core_blk *b, uint64_t offset) {
    uint32_t i = b->extent_count == 1 ? 0 : place_of(b, offset);
    if (i >= b->extent_count) {
        return NULL;
    }
    const struct blk_extent *e = &b->extents[i];
    return offset >= e->start && offset < e->end ? e : NULL;
}

static void drop(struct core_blk *b, uint32_t from, uint32_t to) {
    if (from == to) {
        return;
    }
    memmove(b->extents + from, b->extents + to, (b->extent_count - to) * sizeof *b->extents);
    b->extent_count -= to - from;
}

static int make_room(struct core_blk *b) {
    if (b->extent_count < b->extent_room) {
        return 0;
    }
    uint32_t room = b->extent_room ? 2 * b->extent_room : 16;
    struct blk_extent *more = realloc(b->extents, room * sizeof *more);
    if (!more) {
        return -ENOMEM;
    }
    b->extents = more;
    b->extent_room = room;
    return 0;
}

static int insert(struct core_blk *b, uint32_t at, const struct blk_extent *e) {
    if (make_room(b) < 0) {
        return -ENOMEM;
    }
    memmove(b->extents + at + 1, b->extents + at, (b->extent_count - at) * sizeof *e);
    b->extents[at] = *e;
    b->extent_count++;
    return 0;
}

/* Forget what was told of [start, end); of what reaches out of it the rest is kept, if there is memory for it. */
void blk_forget(struct core_blk *b, uint64_t start, uint64_t end) {
    uint32_t at = place_of(b, start);
    if (at < b->extent_count && b->extents[at].start < start) {
        struct blk_extent rest = b->extents[at];
        b->extents[at++].end = start;
        if (rest.end > end) {
            rest.host += end - rest.start;
            rest.start = end;
            (void)insert(b, at, &rest);
            return;
        }
    }
    uint32_t to = at;
    while (to < b->extent_count && b->extents[to].end <= end) {
        to++;
    }
    if (to < b->extent_count && b->extents[to].start < end) {
        b->extents[to].host += end - b->extents[to].start;
        b->extents[to].start = end;
    }
    drop(b, at, to);
}

static bool continues(const struct blk_extent *a, const struct blk_extent *b) {
    return a->end == b->start && a->kind == b->kind && a->fd == b->fd && a->direct == b->direct &&
           a->writable == b->writable && (a->kind != CORE_BLK_DATA || a->host + (a->end - a->start) == b->host);
}

/* Remember one instead of whatever was known of its range. */
int blk_remember(struct core_blk *b, const struct blk_extent *e) {
    if (b->extent_count >= BLK_EXTENTS) {
        b->extent_count = 0; /* a disk in small pieces, read all over: begin again */
    }
    blk_forget(b, e->start, e->end);
    uint32_t at = place_of(b, e->start);
    if (at > 0 && continues(&b->extents[at - 1], e)) {
        b->extents[at - 1].end = e->end;
        at--;
    } else {
        int rc = insert(b, at, e);
        if (rc < 0) {
            return rc;
        }
    }
    if (at + 1 < b->extent_count && continues(&b->extents[at], &b->extents[at + 1])) {
        b->extents[at].end = b->extents[at + 1].end;
        drop(b, at + 1, at + 2);
    }
    return 0;
}
