/* slirp_guard.c: what of a guest's frames libslirp gets to see.
 *
 * Its stack assumes a guest with manners: a socket for each flow, an answer kept for a second where the guest has not said
 * (by ARP or NDP) who should get it. Here are the bounds. And its handling of urgent data reads outside its buffer
 * (CVE-2026-9539, in every version before 4.9.2): urgent data becomes ordinary data. Offsets are of the frame.
 */
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#include "slirp.h"

enum {
    ETHER_ARP = 0x0806,
    ETHER_IP = 0x0800,
    ETHER_IP6 = 0x86dd,
    IP = 14,              /* where an IP header begins */
    IP4_MIN = 20,         /* RFC 791, 3.1 */
    IP6_SIZE = 40,        /* RFC 8200, 3 */
    TCP_MIN = 20,         /* RFC 9293, 3.1 */
    ARP_SENDER = 14 + 14, /* the sender's IP address (RFC 826) */
    ARP_MIN = 14 + 28,
    TCP_SYN = 0x02,
    TCP_ACK = 0x10,
    TCP_URG = 0x20,
    ICMP6_SOLICIT = 135, /* RFC 4861: neighbours' */
    ICMP6_ADVERTISE = 136,
};

#define SECOND_NS 1000000000LL
#define PASS      (-1)

static uint32_t be16(const uint8_t *at) {
    return (uint32_t)at[0] << 8 | at[1];
}

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* One more in this period: whether that is within the limit. */
static bool spend(int64_t *since_ns, uint32_t *count, uint32_t limit, int64_t period_ns, int64_t now_ns) {
    if (now_ns - *since_ns >= period_ns) {
        *since_ns = now_ns;
        *count = 0;
    }
    return (*count)++ < limit;
}

static bool find(const uint8_t *table, const uint8_t *address, size_t size) {
    for (size_t i = 0; i < GUARD_NEIGHBOURS; i++) {
        if (memcmp(table + i * size, address, size) == 0) {
            return true;
        }
    }
    return false;
}

/* The sender said where it is. The library's tables are rings as well. */
static void meet(uint8_t *table, uint32_t *next, const uint8_t *address, size_t size) {
    if (!find(table, address, size)) {
        memcpy(table + (*next)++ % GUARD_NEIGHBOURS * size, address, size);
    }
}

static bool stranger_may(struct core_slirp_guard *g, const uint8_t *table, const uint8_t *address, size_t size,
                         int64_t now_ns) {
    return find(table, address, size) ||
           spend(&g->strangers_since_ns, &g->strangers, GUARD_STRANGERS, SECOND_NS, now_ns);
}

/* Take the urgent mark off a segment and keep its checksum right (RFC 1624, equation 3). */
static void calm(uint8_t *tcp) {
    uint32_t flags = be16(tcp + 12), urgent = be16(tcp + 18), sum = be16(tcp + 16);
    if (!(flags & TCP_URG) && urgent == 0) {
        return;
    }
    put16(tcp + 12, flags & ~(uint32_t)TCP_URG);
    put16(tcp + 18, 0);
    sum = (~sum & 0xffff) + (~flags & 0xffff) + (flags & ~(uint32_t)TCP_URG) + (~urgent & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    put16(tcp + 16, ~sum & 0xffff);
}

/* What is inside an IP packet: only what opens a flow costs a socket, but of UDP and ICMP that cannot be told. */
static int guard_payload(const struct core_slirp_guard *g, uint32_t protocol, uint8_t *data, uint32_t size,
                         int64_t now_ns) {
    bool full = g->sockets >= g->sockets_max || now_ns < g->crowded_until_ns;
    if (protocol != IPPROTO_TCP) {
        return full && protocol != IPPROTO_ICMPV6 ? CORE_DROP_QUEUE_FULL : GUARD_PASS;
    }
    if (size < TCP_MIN) {
        return CORE_DROP_TOO_SHORT;
    }
    calm(data);
    bool opens = (data[13] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    return full && opens ? CORE_DROP_QUEUE_FULL : GUARD_PASS;
}

static int guard_ip4(struct core_slirp_guard *g, uint8_t *frame, uint32_t size, int64_t now_ns) {
    uint8_t *ip = frame + IP;
    if (size < IP + IP4_MIN) {
        return CORE_DROP_TOO_SHORT;
    }
    uint32_t header = (uint32_t)(ip[0] & 15) * 4, total = be16(ip + 2), fragment = be16(ip + 6) & 0x3fff;
    if (ip[0] >> 4 != 4 || header < IP4_MIN || total < header || IP + total > size) {
        return CORE_DROP_BAD_HEADER;
    }
    if (!stranger_may(g, g->known4[0], ip + 12, 4, now_ns)) {
        return CORE_DROP_FILTERED;
    }
    if (fragment) { /* more to come, or an offset */
        return GUARD_FRAGMENT;
    }
    return guard_payload(g, ip[9], ip + header, total - header, now_ns);
}

static int guard_ip6(struct core_slirp_guard *g, uint8_t *frame, uint32_t size, int64_t now_ns) {
    uint8_t *ip = frame + IP;
    if (size < IP + IP6_SIZE) {
        return CORE_DROP_TOO_SHORT;
    }
    uint32_t payload = be16(ip + 4), next = ip[6];
    if (ip[0] >> 4 != 6 || IP + IP6_SIZE + payload > size) {
        return CORE_DROP_BAD_HEADER;
    }
    const uint8_t *inner = ip + IP6_SIZE;
    if (next == IPPROTO_ICMPV6 && payload > 0 && (inner[0] == ICMP6_SOLICIT || inner[0] == ICMP6_ADVERTISE)) {
        meet(g->known6[0], &g->next6, ip + 8, 16);
    }
    if (!stranger_may(g, g->known6[0], ip + 8, 16, now_ns)) {
        return CORE_DROP_FILTERED;
    }
    return guard_payload(g, next, ip + IP6_SIZE, payload, now_ns);
}

void core_slirp_guard_init(struct core_slirp_guard *g) {
    struct rlimit limit;
    bool known = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < INT_MAX;
    int most = known ? (int)limit.rlim_cur : INT_MAX;
    g->sockets_max = most / GUARD_SHARE < GUARD_SOCKETS ? most / GUARD_SHARE : GUARD_SOCKETS;
    g->high_fd = most - most / GUARD_SHARE;
}

void core_slirp_guard_opened(struct core_slirp_guard *g, int fd, int64_t now_ns) {
    g->sockets++;
    if (fd >= g->high_fd) { /* numbers are given out from below */
        g->crowded_until_ns = now_ns + SECOND_NS;
    }
}

int core_slirp_guard(struct core_slirp_guard *g, uint8_t *frame, uint32_t size, int64_t now_ns) {
    if (size < IP) {
        return CORE_DROP_TOO_SHORT;
    }
    if (size > GUARD_FRAME_MAX) {
        return CORE_DROP_TOO_LONG;
    }
    switch (be16(frame + 12)) {
    case ETHER_IP: return guard_ip4(g, frame, size, now_ns);
    case ETHER_IP6: return guard_ip6(g, frame, size, now_ns);
    case ETHER_ARP:
        if (size < ARP_MIN) {
            return CORE_DROP_TOO_SHORT;
        }
        meet(g->known4[0], &g->next4, frame + ARP_SENDER, 4);
        return GUARD_PASS;
    default: return CORE_DROP_FILTERED; /* LLDP and the like: nobody listens. NC-SI: not for guests. */
    }
}
