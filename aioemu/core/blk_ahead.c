/* blk_ahead.c: a disk that is written from one end to the other gets its next places before it needs them, so that no
 * request waits for Python where images have to find them first. Advice: when nothing comes of it, requests ask. */
#include "blk.h"

enum {
    AHEAD_RUN = 512 * 1024,  /* bytes in a row that make a sequential writer */
    AHEAD_TIMES = 4,         /* so many times what was written so far is asked for, */
    AHEAD_MOST = 256 << 20,  /* at most: Python needs a millisecond for it */
    AHEAD_MARGIN = 32 << 20, /* asked for when no more than this is left, or as much as was written */
};

static bool has_place(const struct core_blk *b, uint64_t offset) {
    const struct blk_extent *e = blk_find(b, offset);
    return e && (e->kind == CORE_BLK_ANY || (e->kind == CORE_BLK_DATA && e->writable));
}

/* (size) bytes at (offset), inside (e), are written in place. */
void blk_ahead_note(struct core_blk *b, const struct blk_extent *e, uint64_t offset, uint64_t size) {
    struct blk_ahead *a = &b->ahead;
    if (offset != a->end) {
        a->start = offset;
    }
    a->end = offset + size;
    uint64_t run = a->end - a->start, left = e->end - a->end;
    if (a->state != BLK_AHEAD_IDLE || run < AHEAD_RUN || left > (run < AHEAD_MARGIN ? run : AHEAD_MARGIN) ||
        e->end >= b->size || e->end == a->wanted || has_place(b, e->end)) {
        return;
    }
    a->wanted = e->end;
    a->state = BLK_AHEAD_WANTED;
    blk_ring(b->ask_fd);
}

/* Python has nothing else to do: what it may look for. */
bool blk_ahead_ask(struct core_blk *b, core_blk_ask *ask) {
    struct blk_ahead *a = &b->ahead;
    if (a->state != BLK_AHEAD_WANTED) {
        return false;
    }
    if (!b->running || b->held || a->wanted >= b->size || has_place(b, a->wanted)) {
        a->state = BLK_AHEAD_IDLE;
        return false;
    }
    uint64_t size = AHEAD_TIMES * (a->end - a->start), left = b->size - a->wanted;
    size = size < AHEAD_MOST ? size : AHEAD_MOST;
    a->state = BLK_AHEAD_ASKED;
    *ask = (core_blk_ask){.id = CORE_BLK_AHEAD,
                          .kind = CORE_BLK_ASK_AHEAD,
                          .write = 1,
                          .offset = a->wanted,
                          .size = size < left ? size : left};
    return true;
}

void blk_ahead_answered(struct core_blk *b) {
    b->ahead.state = BLK_AHEAD_IDLE;
}
