/* netq_frames.c: frames for the fuzz programs: headers that offloads look at, and what is wrong with them. */
#include <string.h>

#include "netq_rings.h"

uint32_t a_length(struct dice *dice) {
    switch (below(dice, 12)) {
    case 0: return (uint32_t)below(dice, 20);
    case 1: return LONGEST - (uint32_t)below(dice, 64);
    case 2:
    case 3: return (uint32_t)below(dice, LONGEST);
    case 4:
    case 5: return 1514 + 4 * (uint32_t)below(dice, 3);
    default: return 14 + (uint32_t)below(dice, 300);
    }
}

void make_frame(struct dice *dice, uint8_t *at, uint32_t size) {
    static const uint8_t kinds[] = {CORE_GSO_NONE, CORE_GSO_TCPV4, CORE_GSO_TCPV6, CORE_GSO_UDP, CORE_GSO_UDP_L4};
    uint8_t kind = kinds[below(dice, 5)], *frame = at + CORE_NET_HDR_SIZE;
    bool v6 = kind == CORE_GSO_TCPV6 || (kind != CORE_GSO_TCPV4 && below(dice, 2));
    bool tcp = kind == CORE_GSO_TCPV4 || kind == CORE_GSO_TCPV6;
    uint32_t l3 = 14 + 4 * (uint32_t)below(dice, 3), l4 = l3 + (v6 ? 40 : 20 + 4 * (uint32_t)below(dice, 2));
    struct core_net_hdr hdr = {.flags = (uint8_t)(kind || below(dice, 2)),
                               .gso_type = kind | (tcp && rarely(dice) ? CORE_GSO_ECN : 0),
                               .hdr_len = (uint16_t)(l4 + 20),
                               .gso_size = (uint16_t)(kind ? 1 + below(dice, 2000) : 0),
                               .csum_start = (uint16_t)l4,
                               .csum_offset = tcp ? 16 : 6};
    memcpy(at, &hdr, sizeof hdr);
    if (size >= l4 + 20) {
        for (uint32_t tag = 12; tag < l3 - 2; tag += 4) {
            memcpy(frame + tag, tag > 12 || below(dice, 2) ? "\x81\x00" : "\x88\xa8", 2);
        }
        memcpy(frame + l3 - 2, v6 ? "\x86\xdd" : "\x08\x00", 2);
        frame[l3] = v6 ? 0x60 : (uint8_t)(0x40 | (l4 - l3) / 4);
        frame[l3 + (v6 ? 6 : 9)] = tcp ? 6 : 17;
        frame[l4 + 12] = (uint8_t)(below(dice, 16) << 4);
    }
    for (uint64_t n = below(dice, 2) ? below(dice, 8) : 0; n; n--) { /* and now it does not any more */
        at[below(dice, below(dice, 2) ? 12 : 12 + (size < 80 ? size : 80))] = (uint8_t)draw(dice);
    }
}
