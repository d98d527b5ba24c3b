/* link_queue.c: the frames of a lane that are on their way: a heap by time, and a list of those that are due. */
#include <stdlib.h>
#include <string.h>

#include "link.h"

enum { FIRST_ROOM = 64 };

void link_queue_init(struct link_queue *q) {
    memset(q, 0, sizeof *q);
    q->ripe_end = &q->ripe;
}

static bool before(const struct link_frame *a, const struct link_frame *b) {
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static bool grow(struct link_queue *q) {
    if (q->count < q->room) {
        return true;
    }
    uint32_t room = q->room ? 2 * q->room : FIRST_ROOM;
    struct link_frame **heap = realloc(q->heap, room * sizeof(struct link_frame *));
    if (!heap) {
        return false;
    }
    q->heap = heap;
    q->room = room;
    return true;
}

static void push(struct link_queue *q, struct link_frame *f) {
    uint32_t at = q->count++;
    while (at && before(f, q->heap[(at - 1) / 2])) {
        q->heap[at] = q->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    q->heap[at] = f;
}

static struct link_frame *pop(struct link_queue *q) {
    struct link_frame *first = q->heap[0], *last = q->heap[--q->count];
    uint32_t at = 0;
    for (uint32_t child = 1; child < q->count; child = 2 * at + 1) {
        child += child + 1 < q->count && before(q->heap[child + 1], q->heap[child]);
        if (!before(q->heap[child], last)) {
            break;
        }
        q->heap[at] = q->heap[child];
        at = child;
    }
    q->heap[at] = last;
    return first;
}

struct link_frame *link_queue_add(struct link_queue *q, const struct core_frame *frame, int64_t due_ns) {
    if (q->frames >= LINK_BACKLOG_FRAMES || q->bytes + frame->size > LINK_BACKLOG_BYTES || !grow(q)) {
        return NULL;
    }
    struct link_frame *f = malloc(sizeof *f + frame->size);
    if (!f) {
        return NULL;
    }
    *f = (struct link_frame){.due_ns = due_ns, .order = q->orders++, .hdr = *core_frame_hdr(frame)};
    f->size = core_frame_copy(frame, 0, f->data, frame->size);
    q->frames++;
    q->bytes += f->size;
    push(q, f);
    return f;
}

void link_queue_ripen(struct link_queue *q, int64_t now_ns) {
    while (q->count && q->heap[0]->due_ns <= now_ns) {
        struct link_frame *f = pop(q);
        f->next = NULL;
        *q->ripe_end = f;
        q->ripe_end = &f->next;
    }
}

int link_queue_take(struct link_queue *q, struct link_frame **frames, int max) {
    int count = 0;
    while (count < max && q->ripe) {
        struct link_frame *f = q->ripe;
        q->ripe = f->next;
        q->frames--;
        q->bytes -= f->size;
        frames[count++] = f;
    }
    if (!q->ripe) {
        q->ripe_end = &q->ripe;
    }
    return count;
}

void link_queue_give_back(struct link_queue *q, struct link_frame **frames, int count) {
    while (count-- > 0) {
        struct link_frame *f = frames[count];
        f->next = q->ripe;
        q->ripe_end = q->ripe ? q->ripe_end : &f->next;
        q->ripe = f;
        q->frames++;
        q->bytes += f->size;
    }
}

int64_t link_queue_next(const struct link_queue *q) {
    return q->ripe ? 0 : q->count ? q->heap[0]->due_ns : INT64_MAX;
}

uint64_t link_queue_clear(struct link_queue *q) {
    uint64_t count = q->frames;
    link_queue_ripen(q, INT64_MAX);
    while (q->ripe) {
        struct link_frame *f = q->ripe;
        q->ripe = f->next;
        free(f);
    }
    q->ripe_end = &q->ripe;
    q->frames = q->bytes = 0;
    return count;
}

void link_queue_free(struct link_queue *q) {
    link_queue_clear(q);
    free(q->heap);
    q->heap = NULL;
    q->room = 0;
}
