/* offload.c: checksums and segmentation in software (TCP: RFC 9293, UDP: RFC 768, IPv4 fragments: RFC 791). The frame is
 * a guest's: it is copied once, and every offset that it names is checked against its size. */
#include "offload.h"

#include <stdlib.h>
#include <string.h>

enum {
    ETH_SIZE = 14,
    VLAN_SIZE = 4,
    IPV4_LEAST = 20,
    IPV6_SIZE = 40,
    TCP_LEAST = 20,
    UDP_SIZE = 8,
    HEADERS_MOST = 256,   /* Ethernet, two tags, IPv4 or IPv6 with options, TCP with options */
    SEGMENTS_MOST = 1024, /* of one frame: a segment carries 64 bytes at least, or there are few */
    AT_ONCE = 16,
    TCP = 6,
    UDP = 17,
    TCP_FIN = 0x01,
    TCP_PSH = 0x08,
    TCP_CWR = 0x80,
    MORE_FRAGMENTS = 0x2000,
};

/* A frame, taken apart. */
struct parts {
    uint8_t *data;
    uint32_t size;
    uint32_t l3, l4, payload; /* where they begin */
    uint16_t step;            /* bytes of payload in each segment */
    bool is_v6;
    uint8_t protocol;
};

struct segment {
    struct core_net_hdr hdr; /* says nothing */
    uint8_t headers[HEADERS_MOST];
    struct iovec iov[3];
};

static uint16_t get16(const uint8_t *at) {
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* ---- checksums (RFC 1071) -------------------------------------------------------------------------------------------- */

static uint64_t sum(const uint8_t *at, uint32_t size, uint64_t total) {
    for (; size >= 4; at += 4, size -= 4) {
        uint32_t word;
        memcpy(&word, at, sizeof word);
        total += word;
    }
    uint8_t rest[4] = {0};
    memcpy(rest, at, size);
    uint32_t word;
    memcpy(&word, rest, sizeof word);
    return total + word;
}

/* The sum as it is written into a header. Bytes lie in memory order, so the host's order does not matter. */
static void store_sum(uint8_t *at, uint64_t total, bool never_zero) {
    while (total >> 16) {
        total = (total & 0xffff) + (total >> 16);
    }
    uint16_t folded = (uint16_t)~total;
    if (folded == 0 && never_zero) {
        folded = 0xffff; /* for UDP zero means: no checksum */
    }
    memcpy(at, &folded, sizeof folded);
}

/* The addresses, the protocol and the size of what follows the IP header. */
static uint64_t pseudo_sum(const struct parts *p, const uint8_t *ip, uint32_t size) {
    uint8_t tail[8] = {0};
    put32(tail, size);
    tail[7] = p->protocol;
    uint64_t total = p->is_v6 ? sum(ip + 8, 32, 0) : sum(ip + 12, 8, 0);
    return sum(tail, sizeof tail, total);
}

/* ---- taking apart ---------------------------------------------------------------------------------------------------- */

static bool find_ip(struct parts *p) {
    uint32_t at = 12;
    for (int tags = 0;
         tags < 2 && at + 2 <= p->size && (get16(p->data + at) == 0x8100 || get16(p->data + at) == 0x88a8); tags++) {
        at += VLAN_SIZE;
    }
    if (at + 2 + IPV4_LEAST > p->size) {
        return false;
    }
    uint16_t type = get16(p->data + at);
    p->l3 = at + 2;
    p->is_v6 = type == 0x86dd;
    uint32_t least = p->is_v6 ? IPV6_SIZE : (p->data[p->l3] & 0xfu) * 4;
    return (type == 0x0800 || p->is_v6) && p->data[p->l3] >> 4 == (p->is_v6 ? 6 : 4) && least >= IPV4_LEAST &&
           p->l4 >= p->l3 + least && p->l4 <= p->size;
}

/* Where the payload begins, and whether the kind of segmentation fits what the frame is. */
static bool find_payload(struct parts *p, uint8_t type) {
    if (type == CORE_GSO_TCPV4 || type == CORE_GSO_TCPV6) {
        if (p->is_v6 != (type == CORE_GSO_TCPV6) || p->l4 + TCP_LEAST > p->size) {
            return false;
        }
        uint32_t header = (p->data[p->l4 + 12] >> 4) * 4u;
        p->protocol = TCP;
        p->payload = p->l4 + header;
        return header >= TCP_LEAST && p->payload <= p->size && p->payload <= HEADERS_MOST;
    }
    p->protocol = UDP;
    p->payload = p->l4 + UDP_SIZE;
    return p->payload <= p->size && p->payload <= HEADERS_MOST && (type == CORE_GSO_UDP_L4 || !p->is_v6);
}

/* ---- one segment ----------------------------------------------------------------------------------------------------- */

static void finish_ip(const struct parts *p, uint8_t *headers, uint32_t size, uint32_t number, uint32_t flags) {
    uint8_t *ip = headers + p->l3;
    if (p->is_v6) {
        put16(ip + 4, size - p->l3 - IPV6_SIZE);
        return;
    }
    uint32_t header = p->l4 - p->l3;
    put16(ip + 2, size - p->l3);
    put16(ip + 4, get16(ip + 4) + (flags ? 0 : number)); /* fragments are of one packet */
    if (flags) {
        put16(ip + 6, flags & 0xffff);
    }
    put16(ip + 10, 0);
    store_sum(ip + 10, sum(ip, header, 0), false);
}

/* TCP or UDP with its own header: (from, size) of the payload. */
static void make_segment(const struct parts *p, struct segment *s, uint32_t number, uint32_t from, uint32_t size) {
    uint8_t *headers = s->headers, *l4 = headers + p->l4;
    bool last = p->payload + from + size == p->size;
    memcpy(headers, p->data, p->payload);
    finish_ip(p, headers, p->payload + size, number, 0);
    if (p->protocol == TCP) {
        put32(l4 + 4, get32(l4 + 4) + from);
        l4[13] &= (uint8_t)~((last ? 0 : TCP_FIN | TCP_PSH) | (number ? TCP_CWR : 0));
    } else {
        put16(l4 + 4, UDP_SIZE + size);
    }
    uint8_t *sum_at = l4 + (p->protocol == TCP ? 16 : 6);
    uint32_t l4_size = p->payload - p->l4 + size;
    put16(sum_at, 0);
    uint64_t total = pseudo_sum(p, headers + p->l3, l4_size);
    total = sum(l4, p->payload - p->l4, total); /* a multiple of four bytes: the payload's words stay aligned to it */
    total = sum(p->data + p->payload + from, size, total);
    store_sum(sum_at, total, p->protocol == UDP);
    s->iov[1] = (struct iovec){.iov_base = headers, .iov_len = p->payload};
    s->iov[2] = (struct iovec){.iov_base = p->data + p->payload + from, .iov_len = size};
}

/* A fragment of an IPv4 packet; UDP's header is payload here. */
static void make_fragment(const struct parts *p, struct segment *s, uint32_t from, uint32_t size) {
    bool last = p->l4 + from + size == p->size;
    memcpy(s->headers, p->data, p->l4);
    uint32_t flags = (last ? 0 : MORE_FRAGMENTS) | from / 8;
    finish_ip(p, s->headers, p->l4 + size, 0, 0x10000 | flags);
    s->iov[1] = (struct iovec){.iov_base = s->headers, .iov_len = p->l4};
    s->iov[2] = (struct iovec){.iov_base = p->data + p->l4 + from, .iov_len = size};
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

/* Send it in pieces; what the peer does not take once it took the first piece is lost. */
static int send_pieces(const struct parts *p, bool fragments, struct core_port *port, struct core_port *peer,
                       uint32_t queue, struct segment *pieces) {
    uint32_t total = p->size - (fragments ? p->l4 : p->payload), number = 0;
    struct core_frame frames[AT_ONCE];
    uint32_t from = 0;
    do {
        int count = 0;
        for (; count < AT_ONCE && (from < total || number == 0); count++, number++) {
            uint32_t size = total - from < p->step ? total - from : p->step;
            struct segment *s = &pieces[count];
            if (fragments) {
                make_fragment(p, s, from, size);
            } else {
                make_segment(p, s, number, from, size);
            }
            s->iov[0] = (struct iovec){.iov_base = &s->hdr, .iov_len = sizeof s->hdr};
            uint32_t bytes = (uint32_t)(s->iov[1].iov_len + size);
            frames[count] = (struct core_frame){.iov = s->iov, .count = 3, .size = bytes};
            from += size;
        }
        int taken = port_deliver(port, peer, queue, frames, count);
        if (taken == 0 && number == (uint32_t)count) {
            return 0;
        }
        if (taken < count) {
            uint32_t left = (uint32_t)(count - taken) + (total - from + p->step - 1) / p->step;
            core_port_drop_out(port, CORE_DROP_QUEUE_FULL, left);
            return 1;
        }
    } while (from < total);
    return 1;
}

static int segment(struct parts *p, const struct core_net_hdr *hdr, struct core_port *port, struct core_port *peer,
                   uint32_t queue) {
    uint8_t type = hdr->gso_type & (uint8_t)~CORE_GSO_ECN;
    p->l4 = hdr->csum_start;
    if (!(hdr->flags & CORE_NET_HDR_F_NEEDS_CSUM) || !find_ip(p) || !find_payload(p, type)) {
        return -1 - CORE_DROP_NO_OFFLOAD;
    }
    bool fragments = type == CORE_GSO_UDP;
    p->step = fragments ? hdr->gso_size & (uint16_t)~7u : hdr->gso_size;
    if (p->step == 0 || (p->size - p->l4) / p->step > SEGMENTS_MOST) {
        return -1 - CORE_DROP_BAD_HEADER;
    }
    if (fragments) { /* one checksum over all of them */
        put16(p->data + p->l4 + 6, 0);
        uint64_t total = pseudo_sum(p, p->data + p->l3, p->size - p->l4);
        store_sum(p->data + p->l4 + 6, sum(p->data + p->l4, p->size - p->l4, total), true);
    }
    struct segment *pieces = calloc(AT_ONCE, sizeof *pieces);
    if (!pieces) {
        return -1 - CORE_DROP_NO_OFFLOAD;
    }
    int rc = send_pieces(p, fragments, port, peer, queue, pieces);
    free(pieces);
    return rc;
}

/* The sender left the pseudo header's sum in the field: the rest is added, and the complement stored. */
static int complete(struct parts *p, const struct core_net_hdr *hdr, struct core_port *port, struct core_port *peer,
                    uint32_t queue) {
    uint32_t start = hdr->csum_start, at = start + hdr->csum_offset;
    store_sum(p->data + at, sum(p->data + start, p->size - start, 0), hdr->csum_offset == 6);
    struct core_net_hdr plain = {0};
    const struct iovec iov[2] = {{.iov_base = &plain, .iov_len = sizeof plain},
                                 {.iov_base = p->data, .iov_len = p->size}};
    const struct core_frame done = {.iov = iov, .count = 2, .size = p->size};
    return port_deliver(port, peer, queue, &done, 1);
}

int offload_send(struct core_port *port, struct core_port *peer, uint32_t queue, const struct core_frame *frame) {
    const struct core_net_hdr hdr = *core_frame_hdr(frame);
    struct parts p = {.data = malloc(frame->size), .size = frame->size};
    if (!p.data) {
        return -1 - CORE_DROP_NO_OFFLOAD;
    }
    p.size = core_frame_copy(frame, 0, p.data, frame->size);
    int rc =
        hdr.gso_type == CORE_GSO_NONE ? complete(&p, &hdr, port, peer, queue) : segment(&p, &hdr, port, peer, queue);
    free(p.data);
    return rc;
}
