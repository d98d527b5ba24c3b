/* switch_table.c: which station is behind which port of a switch: a table of buckets, the oldest of a full one goes. */
#include "switch.h"

uint64_t switch_mac(const uint8_t *bytes) {
    uint64_t mac = 0;
    for (int i = 0; i < 6; i++) {
        mac = mac << 8 | bytes[i];
    }
    return mac;
}

static struct switch_station *bucket(struct core_switch *s, uint64_t mac) {
    return s->table[(mac * 0x9e3779b97f4a7c15u >> 32) % SWITCH_BUCKETS];
}

static bool is_fresh(const struct core_switch *s, const struct switch_station *station, int64_t now_ns) {
    return station->mac && now_ns - station->seen_ns < s->age_ns;
}

void switch_learn(struct core_switch *s, uint64_t mac, uint32_t port, int64_t now_ns) {
    struct switch_station *stations = bucket(s, mac), *place = stations;
    if (mac == 0 || mac >> 40 & 1) {
        return; /* no station: nobody sends from a group's address */
    }
    for (int i = 0; i < SWITCH_WAYS; i++) {
        if (stations[i].mac == mac) {
            place = &stations[i];
            break;
        }
        if (place->mac && (!stations[i].mac || stations[i].seen_ns < place->seen_ns)) {
            place = &stations[i];
        }
    }
    *place = (struct switch_station){.mac = mac, .port = port, .seen_ns = now_ns};
}

int switch_find(struct core_switch *s, uint64_t mac, int64_t now_ns) {
    const struct switch_station *stations = bucket(s, mac);
    for (int i = 0; i < SWITCH_WAYS; i++) {
        if (stations[i].mac == mac && is_fresh(s, &stations[i], now_ns)) {
            return (int)stations[i].port;
        }
    }
    return -1;
}

void switch_forget(struct core_switch *s, uint32_t port) {
    for (int i = 0; i < SWITCH_BUCKETS * SWITCH_WAYS; i++) {
        struct switch_station *station = &s->table[i / SWITCH_WAYS][i % SWITCH_WAYS];
        if (station->mac && station->port == port) {
            station->mac = 0;
        }
    }
}

/* The stations that are known now: how many, of which up to (max) are written. */
int core_switch_stations(core_switch *s, core_station *stations, int max) {
    int count = 0;
    int64_t now = core_monotonic_ns();
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < SWITCH_BUCKETS * SWITCH_WAYS; i++) {
        const struct switch_station *from = &s->table[i / SWITCH_WAYS][i % SWITCH_WAYS];
        if (is_fresh(s, from, now)) {
            if (count < max) {
                stations[count] = (core_station){.mac = from->mac, .port = from->port, .age_ns = now - from->seen_ns};
            }
            count++;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return count;
}
