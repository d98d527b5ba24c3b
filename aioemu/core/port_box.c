/* port_box.c: a port whose owner is a program: what is delivered waits in a bounded box, an eventfd says so, and that the
 * peer takes again. A full box drops, or makes the peer wait. Any thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "port.h"

enum { BOX_MAX_FRAMES = 1 << 16 }; /* 4 GiB of the largest: more is no queue, it is a leak */

struct item {
    struct item *next;
    struct core_net_hdr hdr;
    uint32_t size;
    uint8_t data[];
};

struct box {
    struct core_port port;
    pthread_mutex_t lock;
    struct item *first, **last; /* last: where the next one is linked */
    uint32_t room, count;
    bool waits, starved; /* the peer waits for room */
    int fd;
};

static bool put(struct box *b, const struct core_frame *frame) {
    struct item *item = malloc(sizeof *item + frame->size);
    if (!item) {
        return false;
    }
    item->hdr = *core_frame_hdr(frame);
    item->size = core_frame_copy(frame, 0, item->data, frame->size);
    item->next = NULL;
    *b->last = item;
    b->last = &item->next;
    b->count++;
    return true;
}

static int box_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    struct box *b = (struct box *)port;
    (void)queue;
    pthread_mutex_lock(&b->lock);
    bool was_empty = b->count == 0;
    int taken = 0;
    for (; taken < count; taken++) {
        if (b->count == b->room && b->waits) {
            b->starved = true;
            break;
        }
        if (b->count == b->room || !put(b, &frames[taken])) {
            core_port_drop_in(port, CORE_DROP_QUEUE_FULL, frames[taken].size);
        }
    }
    bool ring = was_empty && b->count;
    pthread_mutex_unlock(&b->lock);
    if (ring) {
        (void)!write(b->fd, &(uint64_t){1}, sizeof(uint64_t));
    }
    return taken;
}

/* The program may send what the peer did not take. */
static void box_ready(struct core_port *port, uint32_t queue) {
    (void)queue;
    (void)!write(((struct box *)port)->fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void box_destroy(struct core_port *port) {
    struct box *b = (struct box *)port;
    for (struct item *item = b->first, *next; item; item = next) {
        next = item->next;
        free(item);
    }
    close(b->fd);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static const struct core_port_ops box_ops = {
    .name = "box", .deliver = box_deliver, .ready = box_ready, .destroy = box_destroy};

/* A box for up to (frames); NULL when there is no memory or no descriptor for it. */
core_port *core_box_new(uint32_t frames, uint32_t takes, int waits) {
    struct box *b = frames == 0 || frames > BOX_MAX_FRAMES ? NULL : calloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    core_port_init(&b->port, &box_ops, takes);
    b->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (b->fd < 0) {
        free(b);
        return NULL;
    }
    b->last = &b->first;
    b->room = frames;
    b->waits = waits;
    pthread_mutex_init(&b->lock, NULL);
    return &b->port;
}

/* Readable while frames wait, and when the peer takes again; it is drained by taking the last one, or none. */
int core_box_fd(core_port *box) {
    return ((struct box *)box)->fd;
}

uint32_t core_box_waiting(core_port *box) {
    struct box *b = (struct box *)box;
    pthread_mutex_lock(&b->lock);
    uint32_t count = b->count;
    pthread_mutex_unlock(&b->lock);
    return count;
}

/* The oldest frame and its header (12 bytes, or NULL): its size, 0 none waits, -EMSGSIZE it is larger than (room). */
int core_box_take(core_port *box, uint8_t *header, uint8_t *frame, uint32_t room) {
    struct box *b = (struct box *)box;
    bool tell = false;
    pthread_mutex_lock(&b->lock);
    struct item *item = b->first;
    if (item && item->size > room) {
        pthread_mutex_unlock(&b->lock);
        return -EMSGSIZE;
    }
    if (item) {
        b->first = item->next;
        b->last = b->first ? b->last : &b->first;
        b->count--;
        tell = b->starved && b->count <= b->room / 2;
        b->starved = b->starved && !tell;
    }
    if (b->count == 0) {
        uint64_t rung;
        (void)!read(b->fd, &rung, sizeof rung);
    }
    pthread_mutex_unlock(&b->lock);
    if (tell) {
        core_port_ready(box, CORE_PORT_ALL_QUEUES);
    }
    if (!item) {
        return 0;
    }
    int size = (int)item->size;
    if (header) {
        memcpy(header, &item->hdr, sizeof item->hdr);
    }
    memcpy(frame, item->data, item->size);
    free(item);
    return size;
}

/* Send one frame with its header (NULL: nothing special): 1, or 0 when the peer takes none now. */
int core_box_send(core_port *box, const uint8_t *header, const uint8_t *frame, uint32_t size) {
    struct core_net_hdr hdr = {0};
    if (header) {
        memcpy(&hdr, header, sizeof hdr);
    }
    const struct iovec iov[2] = {{.iov_base = &hdr, .iov_len = sizeof hdr},
                                 {.iov_base = (void *)frame, .iov_len = size}};
    const struct core_frame one = {.iov = iov, .count = 2, .size = size};
    return core_port_send(box, 0, &one, 1);
}
