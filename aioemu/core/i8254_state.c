/* i8254_state.c: save and load of the timer. Times are kept as distances from now; a loaded state is not trusted. */
#include <errno.h>
#include <string.h>

#include "intc.h"

enum { STATE_VERSION = 1 };

/* Little endian, no padding. */
struct channel_state {
    uint64_t base_ticks;
    int64_t passed_ns; /* since started_ns */
    uint32_t reload;
    uint16_t latch;
    uint8_t mode, access, bcd, low, latched, status;
    uint8_t flags[8]; /* second_write, second_read, status_latched, gate, armed, loaded */
};

struct i8254_state {
    uint32_t version, unused;
    uint64_t edges;
    struct channel_state channel[3];
};

int i8254_state_size(struct core_chip *chip) {
    (void)chip;
    return (int)sizeof(struct i8254_state);
}

static void save_channel(const struct i8254_channel *c, struct channel_state *s, int64_t now) {
    *s = (struct channel_state){
        .base_ticks = c->base_ticks,
        .passed_ns = now - c->started_ns,
        .reload = c->reload,
        .latch = c->latch,
        .mode = c->mode,
        .access = c->access,
        .bcd = c->bcd,
        .low = c->low,
        .latched = c->latched,
        .status = c->status,
        .flags = {c->second_write, c->second_read, c->status_latched, c->gate, c->armed, c->loaded},
    };
}

int i8254_save(struct core_chip *chip, uint8_t *state) {
    struct i8254 *pit = (struct i8254 *)chip;
    struct i8254_state s = {.version = STATE_VERSION};
    pthread_mutex_lock(&pit->intc->lock);
    int64_t now = intc_now(pit->intc);
    s.edges = pit->edges;
    for (int i = 0; i < 3; i++) {
        save_channel(&pit->channel[i], &s.channel[i], now);
    }
    pthread_mutex_unlock(&pit->intc->lock);
    memcpy(state, &s, sizeof s);
    return 0;
}

static bool is_possible(const struct channel_state *s) {
    for (size_t i = 0; i < sizeof s->flags; i++) {
        if (s->flags[i] > (i < 6)) {
            return false;
        }
    }
    return s->reload >= 1 && s->reload <= 65536 && s->mode <= 5 && s->access >= 1 && s->access <= 3 && s->bcd <= 1 &&
           s->latched <= 2 && s->passed_ns >= 0 && s->passed_ns < 1ll << 60 && s->base_ticks < 1ull << 50;
}

static void load_channel(struct i8254_channel *c, const struct channel_state *s, int64_t now) {
    *c = (struct i8254_channel){
        .base_ticks = s->base_ticks,
        .started_ns = now - s->passed_ns,
        .reload = s->reload,
        .latch = s->latch,
        .mode = s->mode,
        .access = s->access,
        .bcd = s->bcd,
        .low = s->low,
        .latched = s->latched,
        .status = s->status,
        .second_write = s->flags[0],
        .second_read = s->flags[1],
        .status_latched = s->flags[2],
        .gate = s->flags[3],
        .armed = s->flags[4],
        .loaded = s->flags[5],
    };
}

int i8254_load(struct core_chip *chip, const uint8_t *state) {
    struct i8254 *pit = (struct i8254 *)chip;
    struct i8254_state s;
    memcpy(&s, state, sizeof s);
    if (s.version != STATE_VERSION || s.unused || s.edges > 1ull << 50 || !is_possible(&s.channel[0]) ||
        !is_possible(&s.channel[1]) || !is_possible(&s.channel[2])) {
        return -EINVAL;
    }
    pthread_mutex_lock(&pit->intc->lock);
    int64_t now = intc_now(pit->intc);
    for (int i = 0; i < 3; i++) {
        load_channel(&pit->channel[i], &s.channel[i], now);
    }
    pit->edges = s.edges;
    pit->next_ns = i8254_next_edge(pit, now);
    if (pit->next_ns != INTC_NEVER) {
        intc_arm(pit->intc, pit->next_ns);
    }
    pthread_mutex_unlock(&pit->intc->lock);
    return 0;
}
