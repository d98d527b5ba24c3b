/* tap_write.c: frames to a TAP device, in the sender's context: one system call each, unless the host's readers take the
 * processor away in the middle of what is sent, as each frame wakes them: then a whole batch goes through an io_uring,
 * so that they find all of it. That costs a tenth more a frame, hence not always. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap_internal.h"
#include "uring.h"

enum {
    TAP_FLAT = 2048,  /* bytes: a frame that is cheaper to copy than to list, and any of the usual 1500 */
    TAP_RUN = 64,     /* frames of one batch through the ring */
    TAP_FEW = 16,     /* frames that are not worth asking how they went */
    TAP_OUSTED = 2,   /* times that the processor was taken away in one batch: not by chance */
    TAP_AGAIN = 1024, /* batches after which it is tried without the ring */
};

struct tap_ring {
    struct uring uring;
    struct iovec iov[TAP_RUN];
    int32_t results[TAP_RUN];
    uint8_t flat[TAP_RUN][CORE_NET_HDR_SIZE + TAP_FLAT];
};

/* Put it together in (flat), as the device wants it: its size. */
static size_t flatten(const struct tap *t, const struct core_frame *frame, uint8_t *flat) {
    uint32_t head = t->vnet ? CORE_NET_HDR_SIZE : 0;
    memcpy(flat, frame->iov[0].iov_base, head);
    return head + core_frame_copy(frame, 0, flat + head, frame->size);
}

/* ---- one by one ------------------------------------------------------------------------------------------------------ */

/* One system call. A usual frame is put together first: the kernel needs longer to take a list in than that takes. */
static ssize_t hand_over(const struct tap_queue *q, const struct core_frame *frame) {
    if (frame->size > TAP_FLAT) {
        uint32_t skip = q->tap->vnet ? 0 : 1;
        return syscall(SYS_writev, q->fd, frame->iov + skip, frame->count - skip);
    }
    uint8_t flat[CORE_NET_HDR_SIZE + TAP_FLAT];
    return syscall(SYS_write, q->fd, flat, flatten(q->tap, frame, flat));
}

static void lost(struct tap_queue *q, const struct core_frame *frame, int error) {
    if (error == EBADFD) {
        tap_lose(q->tap);
    }
    core_port_drop_in(&q->tap->port, CORE_DROP_HOST, frame->size);
}

/* False: the host takes nothing now. */
static bool write_one(struct tap_queue *q, const struct core_frame *frame) {
    ssize_t done = hand_over(q, frame);
    if (done < 0 && errno == EAGAIN) {
        return false;
    }
    if (done < 0) {
        lost(q, frame, errno);
    }
    return true;
}

static long ousted(void) {
    struct rusage usage = {0};
    (void)getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

/* How many of the first; and whether the ring is to be used from now on. */
static int one_by_one(struct tap_queue *q, const struct core_frame *frames, int count) {
    bool asks = count >= TAP_FEW && !q->no_ring;
    long before = asks ? ousted() : 0;
    int done = 0;
    while (done < count && write_one(q, &frames[done])) {
        done++;
    }
    if (asks && ousted() - before >= TAP_OUSTED) {
        q->ring_batches = TAP_AGAIN;
    }
    return done;
}

/* ---- a batch --------------------------------------------------------------------------------------------------------- */

void tap_ring_free(struct tap_queue *q) {
    if (q->ring) {
        uring_close(&q->ring->uring);
        free(q->ring);
        q->ring = NULL;
    }
}

static void give_up(struct tap_queue *q) {
    tap_ring_free(q);
    q->no_ring = true;
    q->ring_batches = 0;
}

static struct tap_ring *have_ring(struct tap_queue *q) {
    if (!q->ring) {
        q->ring = malloc(sizeof *q->ring);
        if (!q->ring || uring_open(&q->ring->uring, TAP_RUN) < 0) {
            free(q->ring);
            q->ring = NULL;
            give_up(q);
        }
    }
    return q->ring;
}

/* Write the first (count) that are prepared, and wait for them, which is no time: the device takes them at once. How many
 * went; the kernel did not want the others. */
static int push(struct tap_queue *q, int count) {
    struct tap_ring *ring = q->ring;
    for (int i = 0; i < count; i++) {
        (void)uring_put(&ring->uring, URING_WRITE, q->fd, &ring->iov[i], 1, UINT64_MAX, &ring->results[i]);
    }
    int pushed = uring_submit(&ring->uring, false);
    while (ring->uring.in_flight) {
        void *what;
        int32_t result;
        if (uring_take(&ring->uring, &what, &result)) {
            *(int32_t *)what = result;
        } else {
            (void)uring_submit(&ring->uring, true);
        }
    }
    return pushed < 0 ? 0 : pushed;
}

/* How many of the first were done with; 0: none of them is for the ring. */
static int all_at_once(struct tap_queue *q, const struct core_frame *frames, int count) {
    struct tap_ring *ring = have_ring(q);
    int n = 0;
    while (ring && n < count && n < TAP_RUN && frames[n].size <= TAP_FLAT) {
        ring->iov[n] = (struct iovec){.iov_base = ring->flat[n], .iov_len = flatten(q->tap, &frames[n], ring->flat[n])};
        n++;
    }
    int pushed = n ? push(q, n) : 0;
    bool refused = pushed < n;
    for (int i = 0; i < pushed; i++) {
        int error = -ring->results[i];
        refused |= error == EAGAIN || error == EOPNOTSUPP; /* an older kernel's ring does not wait for these devices */
        if ((error == EAGAIN || error == EOPNOTSUPP) ? !write_one(q, &frames[i]) : error > 0) {
            lost(q, &frames[i], error);
        }
    }
    if (refused) {
        give_up(q);
    }
    return pushed;
}

/* How many of the first were done with. Several senders may come at once: one has the ring. */
int tap_write(struct tap_queue *q, const struct core_frame *frames, int count) {
    if (count == 1 || atomic_exchange_explicit(&q->writing, true, memory_order_acquire)) {
        return write_one(q, frames) ? 1 : 0;
    }
    int done = 0;
    if (q->ring_batches) {
        q->ring_batches--;
        done = all_at_once(q, frames, count);
    }
    if (done == 0) {
        done = one_by_one(q, frames, count);
    }
    atomic_store_explicit(&q->writing, false, memory_order_release);
    return done;
}
