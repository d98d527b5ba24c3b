/* netq_tx.c: the driver's frames to the peer, in the card's io context: a batch is taken, sent from where it lies in
 * guest memory, and given back. What the peer does not take stays in the ring. */
#include <string.h>

#include "netq.h"

/* Copy the frame's header out of the chain's readable part, which is long enough; where the frame begins. */
static void split_off(const struct net_tx *tx, struct core_net_hdr *hdr, uint32_t *segment, uint64_t *offset) {
    const struct core_vchain *chain = &tx->chain;
    uint32_t done = 0;
    *segment = 0;
    *offset = 0;
    memset(hdr, 0, sizeof *hdr);
    while (done < sizeof *hdr && *segment < chain->count) {
        const core_vseg *s = &chain->segments[*segment];
        if (*offset == s->size) {
            (*segment)++;
            *offset = 0;
            continue;
        }
        uint64_t run = 0, part = s->size - *offset;
        const uint8_t *host = vq_bytes(tx->net->virtio->chip.machine, s->gpa + *offset, &run, false);
        if (!host) {
            return;
        }
        part = part < run ? part : run;
        part = part < sizeof *hdr - done ? part : sizeof *hdr - done;
        virtio_take((uint8_t *)hdr + done, host, (uint32_t)part);
        done += (uint32_t)part;
        *offset += part;
    }
}

/* Only what was negotiated passes (5.1.6.2); the rest is cleared or makes the header one that cannot be. */
static bool tidy(const struct core_virtio *v, struct core_net_hdr *hdr) {
    static const struct {
        uint8_t type;
        uint64_t feature;
    } kinds[] = {{CORE_GSO_TCPV4, NET_F_HOST_TSO4},
                 {CORE_GSO_TCPV6, NET_F_HOST_TSO6},
                 {CORE_GSO_UDP, NET_F_HOST_UFO},
                 {CORE_GSO_UDP_L4, NET_F_HOST_USO}};
    hdr->num_buffers = 0;
    hdr->flags = virtio_has(v, NET_F_CSUM) ? hdr->flags & CORE_NET_HDR_F_NEEDS_CSUM : 0;
    if (hdr->gso_type == CORE_GSO_NONE) {
        hdr->gso_size = hdr->hdr_len = 0;
        return true;
    }
    uint8_t type = hdr->gso_type & (uint8_t)~CORE_GSO_ECN;
    if (!hdr->flags || ((hdr->gso_type & CORE_GSO_ECN) && !virtio_has(v, NET_F_HOST_ECN))) {
        return false;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].type == type) {
            return virtio_has(v, kinds[i].feature);
        }
    }
    return false;
}

/* The rest of the chain's readable part as iovecs; how many, or -1: more than may be, or no memory any more. */
static int list(const struct net_tx *tx, uint32_t segment, uint64_t offset, struct iovec *iov, uint32_t room) {
    uint32_t count = 0;
    for (; segment < tx->chain.count; segment++, offset = 0) {
        const core_vseg *s = &tx->chain.segments[segment];
        for (uint64_t run = 0; !s->writable && offset < s->size; offset += run) {
            uint8_t *host = vq_bytes(tx->net->virtio->chip.machine, s->gpa + offset, &run, false);
            if (!host || count == room) {
                return -1;
            }
            run = run < s->size - offset ? run : s->size - offset;
            iov[count++] = (struct iovec){.iov_base = host, .iov_len = run};
        }
    }
    return (int)count;
}

/* Make a frame of the chain that was taken; what is the matter with it, or -1. */
static int prepare(struct net_tx *tx, uint32_t n, struct iovec *iov, uint32_t *used) {
    struct core_net_hdr *hdr = &tx->headers[n];
    uint32_t segment = 0;
    uint64_t offset = 0;
    if (tx->chain.readable < sizeof *hdr) {
        return CORE_DROP_TOO_SHORT;
    }
    if (tx->chain.readable > sizeof *hdr + CORE_FRAME_MAX) {
        return CORE_DROP_TOO_LONG;
    }
    split_off(tx, hdr, &segment, &offset);
    if (!tidy(tx->net->virtio, hdr)) {
        return CORE_DROP_BAD_HEADER;
    }
    iov[0] = (struct iovec){.iov_base = hdr, .iov_len = sizeof *hdr};
    int parts = list(tx, segment, offset, iov + 1, CORE_FRAME_PARTS - 1);
    if (parts < 0) {
        return CORE_DROP_GUEST;
    }
    *used = (uint32_t)parts + 1;
    tx->frames[n] =
        (struct core_frame){.iov = iov, .count = *used, .size = (uint32_t)(tx->chain.readable - sizeof *hdr)};
    return -1;
}

/* Take frames out of the ring: how many. One that cannot be sent is given back at once, unless others wait before it. */
static int gather(struct net_tx *tx, uint32_t *lost) {
    uint32_t parts = 0;
    int n = 0;
    while (n < NET_BATCH && *lost < NET_BATCH && parts + CORE_FRAME_PARTS <= NET_IOVECS && vq_waiting(tx->q) > 0) {
        const struct core_vq_place before = vq_place(tx->q);
        if (vq_take(tx->q, &tx->chain) < 0) {
            break;
        }
        uint32_t used = 0;
        int fault = prepare(tx, (uint32_t)n, tx->iovecs + parts, &used);
        if (fault >= 0 && n > 0) {
            vq_return(tx->q, before);
            break;
        }
        if (fault >= 0) {
            core_port_drop_out(&tx->net->port, (enum core_drop)fault, 1);
            vq_give(tx->q, tx->chain.id, tx->chain.descriptors, 0);
            (*lost)++;
            continue;
        }
        tx->taken[n++] = (struct net_taken){.id = tx->chain.id, .descriptors = tx->chain.descriptors, .before = before};
        parts += used;
    }
    return n;
}

/* One batch: how many chains were done with. */
static int batch(struct net_tx *tx) {
    if (!vq_open(tx->q)) {
        return 0;
    }
    uint32_t lost = 0;
    int count = 0, sent = 0;
    if (!atomic_load_explicit(&tx->net->held, memory_order_relaxed) && vq_waiting(tx->q) > 0) {
        vq_ignore(tx->q);
        count = gather(tx, &lost);
        sent = count ? core_port_send(&tx->net->port, tx->index, tx->frames, count) : 0;
    }
    for (int i = 0; i < sent; i++) {
        vq_give(tx->q, tx->taken[i].id, tx->taken[i].descriptors, 0);
    }
    if (sent < count) {
        vq_return(tx->q, tx->taken[sent].before);
        atomic_store(&tx->blocked, true);
    }
    vq_close(tx->q);
    return sent + (int)lost;
}

bool net_transmit(struct net_tx *tx) {
    int done = 0, more = 1;
    while (done < NET_BUDGET && more && !atomic_load_explicit(&tx->blocked, memory_order_relaxed)) {
        more = batch(tx);
        done += more;
    }
    return done > 0;
}
