/* netq_rx.c: frames into the driver's buffers, in the sender's context. One copy, straight from the sender's memory; the
 * driver sees a batch at once. Without buffers the sender waits; without a driver its frames are lost and counted. */
#include <string.h>

#include "netq.h"

/* Where the next byte of a frame goes. */
struct sink {
    struct net_rx *rx;
    uint32_t segment; /* of the chain */
    uint64_t offset;  /* in it */
};

static core_machine *machine_of(const struct net_rx *rx) {
    return rx->net->virtio->chip.machine;
}

/* Append to the chain, which has room. False: its memory was taken away. */
static bool append(struct sink *to, const uint8_t *from, uint64_t size) {
    const struct core_vchain *chain = &to->rx->chain;
    while (size && to->segment < chain->count) {
        const core_vseg *s = &chain->segments[to->segment];
        if (!s->writable || to->offset == s->size) {
            to->segment++;
            to->offset = 0;
            continue;
        }
        uint64_t run = 0, part = s->size - to->offset, gpa = s->gpa + to->offset;
        uint8_t *host = vq_bytes(machine_of(to->rx), gpa, &run, true);
        if (!host) {
            return false;
        }
        part = part < run ? part : run;
        part = part < size ? part : size;
        memcpy(host, from, part);
        core_ram_written(machine_of(to->rx), gpa, part);
        from += part;
        size -= part;
        to->offset += part;
    }
    return size == 0;
}

/* A frame on its way: what of it was copied. */
struct source {
    const struct core_frame *frame;
    uint32_t part, left; /* iovec; bytes of the whole frame */
    size_t offset;
};

static bool fill(struct sink *to, struct source *from, uint64_t room) {
    while (from->left && room && from->part < from->frame->count) {
        const struct iovec *v = &from->frame->iov[from->part];
        size_t size = v->iov_len - from->offset;
        size = size < room ? size : (size_t)room;
        if (!append(to, (const uint8_t *)v->iov_base + from->offset, size)) {
            return false;
        }
        room -= size;
        from->left -= (uint32_t)size;
        from->offset += size;
        if (from->offset == v->iov_len) {
            from->part++;
            from->offset = 0;
        }
    }
    return true;
}

/* What the driver is told of the frame. */
static struct core_net_hdr header_for(const struct net_rx *rx, const struct core_frame *frame) {
    struct core_net_hdr hdr = *core_frame_hdr(frame);
    if (!(core_port_takes(&rx->net->port) & CORE_TAKES_CSUM)) {
        hdr = (struct core_net_hdr){0}; /* a driver without GUEST_CSUM sees no flags (5.1.6.4.1) */
    }
    hdr.flags &= CORE_NET_HDR_F_NEEDS_CSUM | CORE_NET_HDR_F_DATA_VALID;
    hdr.num_buffers = 1;
    return hdr;
}

enum outcome { NO_BUFFERS, TAKEN, BROKEN, TOO_LONG, GONE };

static enum outcome next_buffer(struct net_rx *rx) {
    int rc = vq_waiting(rx->q);
    rc = rc <= 0 ? rc : vq_take(rx->q, &rx->chain);
    return rc < 0 ? BROKEN : rc ? TAKEN : NO_BUFFERS;
}

/* Guest address of byte (offset) of the chain's writable part, which has it. */
static uint64_t address_of(const struct core_vchain *chain, uint64_t offset) {
    uint32_t i = 0;
    for (; i + 1 < chain->count; i++) {
        uint64_t size = chain->segments[i].writable ? chain->segments[i].size : 0;
        if (offset < size) {
            break;
        }
        offset -= size;
    }
    return chain->segments[i].gpa + offset;
}

static void put_byte(const struct net_rx *rx, uint64_t gpa, uint8_t value) {
    uint64_t run = 0;
    uint8_t *host = vq_bytes(machine_of(rx), gpa, &run, true);
    if (host) {
        *host = value;
        core_ram_written(machine_of(rx), gpa, 1);
    }
}

/* Buffers filled with one frame. */
struct given {
    uint32_t count, max;
    uint64_t number_at[2]; /* where the driver reads how many there are: known once all are filled */
    struct {
        uint16_t id, descriptors;
        uint32_t written;
    } buffers[VIRTIO_MAX_SIZE];
};

/* Fill one more buffer. */
static enum outcome fill_one(struct net_rx *rx, struct source *from, struct given *given) {
    enum outcome rc = next_buffer(rx);
    if (rc != TAKEN) {
        return rc;
    }
    struct sink to = {.rx = rx};
    uint32_t before = from->left, head = 0;
    uint64_t room = rx->chain.writable;
    if (given->count == 0) {
        head = CORE_NET_HDR_SIZE;
        if (room < head || (given->max == 1 && room < head + from->left)) {
            return TOO_LONG;
        }
        const struct core_net_hdr hdr = header_for(rx, from->frame);
        if (!append(&to, (const uint8_t *)&hdr, sizeof hdr)) {
            return GONE;
        }
        given->number_at[0] = address_of(&rx->chain, offsetof(struct core_net_hdr, num_buffers));
        given->number_at[1] = address_of(&rx->chain, offsetof(struct core_net_hdr, num_buffers) + 1);
    }
    if (!fill(&to, from, room - head)) {
        return GONE;
    }
    given->buffers[given->count].id = rx->chain.id;
    given->buffers[given->count].descriptors = rx->chain.descriptors;
    given->buffers[given->count].written = head + before - from->left;
    given->count++;
    return TAKEN;
}

/* Ask to be told of buffers beyond those that there are, which are too few. True: more came meanwhile. */
static bool await_buffers(struct net_rx *rx) {
    atomic_store(&rx->starved, true); /* before asking: the answer may come at once, in another thread */
    if (!vq_listen(rx->q)) {
        return false;
    }
    atomic_store(&rx->starved, false);
    vq_ignore(rx->q);
    return true;
}

static enum outcome receive(struct net_rx *rx, const struct core_frame *frame, struct given *given) {
    struct source from = {.frame = frame, .part = 1, .left = frame->size};
    const struct core_vq_place before = vq_place(rx->q);
    enum outcome rc = TAKEN;
    given->count = 0;
    do {
        rc = given->count < given->max ? fill_one(rx, &from, given) : TOO_LONG;
    } while ((rc == TAKEN && from.left) || (rc == NO_BUFFERS && await_buffers(rx)));
    if (rc != TAKEN) {
        vq_return(rx->q, before);
        return rc;
    }
    if (given->count > 1) {
        put_byte(rx, given->number_at[0], (uint8_t)given->count);
        put_byte(rx, given->number_at[1], (uint8_t)(given->count >> 8));
    }
    for (uint32_t i = 0; i < given->count; i++) {
        vq_give(rx->q, given->buffers[i].id, given->buffers[i].descriptors, given->buffers[i].written);
    }
    return TAKEN;
}

/* With the queue open: how many of the first frames are done with. */
static int receive_all(struct net_rx *rx, const struct core_frame *frames, int count) {
    struct core_port *port = &rx->net->port;
    struct given given = {.max = virtio_has(rx->net->virtio, NET_F_MRG_RXBUF) ? rx->q->size : 1};
    int done = 0;
    while (done < count) {
        uint8_t head[18] = {0};
        core_frame_copy(&frames[done], 0, head, sizeof head);
        enum outcome rc = net_wants(rx->net, head) ? receive(rx, &frames[done], &given) : TAKEN;
        if (given.count == 0 && rc == TAKEN) {
            core_port_drop_in(port, CORE_DROP_FILTERED, frames[done].size);
        } else if (rc == NO_BUFFERS) {
            return done;
        } else if (rc != TAKEN) {
            enum core_drop why = rc == TOO_LONG ? CORE_DROP_TOO_LONG
                                 : rc == GONE   ? CORE_DROP_GUEST
                                                : CORE_DROP_NO_DRIVER;
            core_port_drop_in(port, why, frames[done].size);
        }
        given.count = 0;
        done++;
    }
    return done;
}

/* The machine stands still: the sender waits, unless it went on in this very moment. */
static bool is_held(struct net_rx *rx) {
    if (!atomic_load_explicit(&rx->net->held, memory_order_relaxed)) {
        return false;
    }
    atomic_store(&rx->starved, true);
    return atomic_load(&rx->net->held);
}

int net_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    struct core_net *net = (struct core_net *)port;
    struct net_rx *rx = &net->all[queue % atomic_load_explicit(&net->pairs, memory_order_relaxed)].rx;
    bool open = vq_open(rx->q);
    if (is_held(rx)) { /* looked at with the lock: whoever holds the card has it after everybody who did not see that */
        if (open) {
            vq_close(rx->q);
        }
        return 0;
    }
    if (!open) {
        for (int i = 0; i < count; i++) {
            core_port_drop_in(port, CORE_DROP_NO_DRIVER, frames[i].size);
        }
        return count;
    }
    vq_ignore(rx->q);
    pthread_rwlock_rdlock(&net->filter_lock);
    int done = receive_all(rx, frames, count);
    pthread_rwlock_unlock(&net->filter_lock);
    vq_close(rx->q);
    return done;
}
