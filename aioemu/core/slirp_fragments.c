/* slirp_fragments.c: puts a guest's IPv4 fragments together before the library sees them: its own reassembly writes where
 * overlapping fragments tell it to (found by tests/netdev/test_user_hostile.py in 4.7.0) and keeps any number of them.
 * Here overlap ends the datagram, as RFC 5722 has it for IPv6, and there is room for a few datagrams at a time. */
#include <stdlib.h>
#include <string.h>

#include "slirp.h"

enum {
    IP = 14, /* where the IP header begins in a frame */
    IP_MAX = 65535,
    UNIT = 8, /* bytes that an offset counts */
    MORE = 0x2000,
};

struct core_slirp_datagram {
    int64_t since_ns; /* 0: nothing is here */
    uint8_t key[11];  /* source, destination, protocol, identification: RFC 791, 3.2 */
    uint8_t header[IP + 60];
    uint32_t header_size;           /* with the Ethernet header; 0: the first fragment has not come */
    uint32_t size, got;             /* bytes inside; size 0: the last fragment has not come */
    uint8_t map[IP_MAX / UNIT + 1]; /* which units are there */
    uint8_t data[IP_MAX + UNIT];
};

static void key_of(const uint8_t *ip, uint8_t *key) {
    memcpy(key, ip + 12, 8);
    key[8] = ip[9];
    memcpy(key + 9, ip + 4, 2);
}

static void let_go(struct core_slirp_datagram *d) {
    memset(d, 0, offsetof(struct core_slirp_datagram, data));
}

/* Where the datagram of (key) is kept, or may be: its own place, a free one, else the oldest's. */
static struct core_slirp_datagram *place_of(struct core_slirp_datagram *all, const uint8_t *key, int64_t now_ns) {
    struct core_slirp_datagram *best = &all[0];
    for (int i = 0; i < GUARD_DATAGRAMS; i++) {
        struct core_slirp_datagram *d = &all[i];
        if (now_ns - d->since_ns <= GUARD_DATAGRAM_NS && memcmp(d->key, key, sizeof d->key) == 0) {
            return d;
        }
        best = d->since_ns < best->since_ns ? d : best;
    }
    let_go(best);
    best->since_ns = now_ns;
    memcpy(best->key, key, sizeof best->key);
    return best;
}

/* Whether the units of a fragment are new; they are not any more. */
static bool claim(struct core_slirp_datagram *d, uint32_t at, uint32_t size) {
    for (uint32_t unit = at / UNIT; unit * UNIT < at + size; unit++) {
        if (d->map[unit]) {
            return false;
        }
        d->map[unit] = 1;
    }
    return true;
}

/* Whether the fragment fits what came before. */
static bool add(struct core_slirp_datagram *d, const uint8_t *frame, uint32_t header, uint32_t at, uint32_t size,
                bool more) {
    uint32_t end = at + size;
    if (size == 0 || (more && size % UNIT) || end + (header - IP) > IP_MAX || (d->size && (end > d->size || !more))) {
        return false;
    }
    if (!claim(d, at, size)) {
        return false;
    }
    memcpy(d->data + at, frame + header, size);
    d->got += size;
    if (!more) {
        d->size = end;
    }
    if (at == 0) {
        memcpy(d->header, frame, header);
        d->header_size = header;
    }
    return d->size == 0 || d->got <= d->size;
}

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* Make the header that of a whole packet, with its checksum (RFC 1071). */
static void finish_header(uint8_t *ip, uint32_t header, uint32_t total) {
    uint32_t sum = 0;
    put16(ip + 2, total);
    put16(ip + 6, 0);
    put16(ip + 10, 0);
    for (uint32_t i = 0; i < header; i += 2) {
        sum += (uint32_t)ip[i] << 8 | ip[i + 1];
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    put16(ip + 10, ~sum & 0xffff);
}

static struct slirp_frame *whole(const struct core_slirp_datagram *d) {
    struct slirp_frame *frame = malloc(sizeof *frame + d->header_size + d->size);
    if (frame) {
        frame->size = d->header_size + d->size;
        memcpy(frame->data, d->header, d->header_size);
        memcpy(frame->data + d->header_size, d->data, d->size);
        finish_header(frame->data + IP, d->header_size - IP, frame->size - IP);
    }
    return frame;
}

int core_slirp_reassemble(struct core_slirp_datagram **all, const uint8_t *frame, int64_t now_ns,
                          struct slirp_frame **packet) {
    const uint8_t *ip = frame + IP;
    uint8_t key[11];
    uint32_t header = IP + (uint32_t)(ip[0] & 15) * 4, end = IP + ((uint32_t)ip[2] << 8 | ip[3]);
    uint32_t fragment = (uint32_t)ip[6] << 8 | ip[7];
    if (!*all) {
        *all = calloc(GUARD_DATAGRAMS, sizeof **all);
        if (!*all) {
            return -1;
        }
    }
    key_of(ip, key);
    struct core_slirp_datagram *d = place_of(*all, key, now_ns);
    if (!add(d, frame, header, (fragment & 0x1fff) * UNIT, end - header, (fragment & MORE) != 0)) {
        let_go(d);
        return -1;
    }
    if (d->size && d->got == d->size && d->header_size) {
        *packet = whole(d);
        let_go(d);
    }
    return 0;
}
