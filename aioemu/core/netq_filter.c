/* netq_filter.c: which frames a network card hands to its driver: by destination address and VLAN (Virtio 1.2, 5.1.6.5). */
#include <string.h>

#include "netq.h"

enum { ETH_VLAN = 0x8100 };

static bool listed(const uint8_t *table, uint32_t count, const uint8_t *mac) {
    for (uint32_t i = 0; i < count && i < NET_MAC_ENTRIES; i++) {
        if (memcmp(table + 6 * (size_t)i, mac, 6) == 0) {
            return true;
        }
    }
    return false;
}

static bool by_address(const core_net_filter *f, const uint8_t *to) {
    static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    if (memcmp(to, broadcast, 6) == 0) {
        return !f->no_broadcast;
    }
    if (to[0] & 1) {
        return !f->no_multicast && (f->all_multicast || listed(f->multicast, f->multicast_count, to));
    }
    return !f->no_unicast && (f->all_unicast || memcmp(f->mac, to, 6) == 0 || listed(f->unicast, f->unicast_count, to));
}

static bool by_vlan(const core_net_filter *f, const uint8_t *head) {
    if (!f->vlan_filter || (head[12] << 8 | head[13]) != ETH_VLAN) {
        return true;
    }
    uint32_t id = (uint32_t)(head[14] << 8 | head[15]) & 0xfff;
    return f->vlans[id / 8] & 1u << id % 8;
}

bool net_wants(const struct core_net *net, const uint8_t *head) {
    const core_net_filter *f = &net->filter;
    return f->promiscuous || (by_vlan(f, head) && by_address(f, head));
}

void core_net_set_filter(core_net *net, const core_net_filter *filter) {
    pthread_rwlock_wrlock(&net->filter_lock);
    net->filter = *filter;
    pthread_rwlock_unlock(&net->filter_lock);
}
