/* link_impair.c: decides on each frame of a direction by its number, not by time: the same seed loses, doubles and
 * corrupts the same frames however fast they come. Every decision has its own stream of random numbers, so changing one
 * value leaves the others' decisions as they were. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "link_impair.h"

enum purpose {
    FOR_LOSS = 1,
    FOR_BURST,
    FOR_BURST_LOSS,
    FOR_COPY,
    FOR_CORRUPT,
    FOR_BIT,
    FOR_LATE,
    FOR_DELAY,
    FOR_ANGLE
};

enum {
    NS_PER_S = 1000000000,
    JITTER_REACH = 20 /* a delay is at most so many jitters from the mean: a long tail, but not for ever */
};

/* A counter-based generator: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), twice. */
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t draw(const struct core_impair_state *s, enum purpose purpose) {
    return mix(s->config.seed ^ mix(s->index * 16 + (uint64_t)purpose));
}

/* In [0, 1). */
static double fraction(const struct core_impair_state *s, enum purpose purpose) {
    return (double)(draw(s, purpose) >> 11) * 0x1p-53;
}

static bool happens(const struct core_impair_state *s, enum purpose purpose, double share) {
    return share > 0 && fraction(s, purpose) < share;
}

bool impair_is_none(const core_impair *c) {
    return !c->delay_ns && !c->jitter_ns && !c->loss_every && !(c->loss > 0) && !(c->burst_enter > 0) &&
           !(c->duplicate > 0) && !(c->corrupt > 0) && !(c->reorder > 0) && !c->rate_bps && !c->outage_down_ns;
}

static bool is_share(double value) {
    return value >= 0 && value <= 1; /* also refuses NaN */
}

static bool is_valid(const core_impair *c) {
    return is_share(c->loss) && is_share(c->burst_enter) && is_share(c->burst_leave) && is_share(c->burst_loss) &&
           is_share(c->duplicate) && is_share(c->corrupt) && is_share(c->reorder) && c->delay_ns >= 0 &&
           c->jitter_ns >= 0 && c->reorder_ns >= 0 && c->outage_up_ns >= 0 && c->outage_down_ns >= 0 &&
           c->jitter_kind <= CORE_JITTER_PARETO && c->queue_packets >= 1 && c->queue_packets <= IMPAIR_QUEUE_MAX;
}

int impair_set(struct core_impair_state *s, const core_impair *config, int64_t now_ns) {
    if (!is_valid(config)) {
        return -EINVAL;
    }
    if (!s->slots || config->queue_packets != s->config.queue_packets) {
        struct impair_slot *slots = calloc(config->queue_packets, sizeof *slots);
        if (!slots) {
            return -ENOMEM;
        }
        uint32_t keep = s->count < config->queue_packets ? s->count : config->queue_packets;
        s->waiting_bytes = 0;
        for (uint32_t i = 0; i < keep; i++) {
            slots[i] = s->slots[(s->head + i) % s->config.queue_packets];
            s->waiting_bytes += slots[i].size;
        }
        free(s->slots);
        s->slots = slots;
        s->head = 0;
        s->count = keep;
    }
    if (config->outage_down_ns != s->config.outage_down_ns || config->outage_up_ns != s->config.outage_up_ns) {
        s->start_ns = now_ns;
    }
    if (config->delay_ns != s->config.delay_ns || config->jitter_ns != s->config.jitter_ns) {
        s->last_due_ns = 0; /* what comes from now on does not wait for what was delayed before */
    }
    s->config = *config;
    if (config->replay) {
        s->index = 0;
        s->burst = false;
    }
    return 0;
}

void impair_free(struct core_impair_state *s) {
    free(s->slots);
    s->slots = NULL;
    s->count = 0;
}

static bool in_outage(const struct core_impair_state *s, int64_t now_ns) {
    const core_impair *c = &s->config;
    return c->outage_down_ns && (now_ns - s->start_ns) % (c->outage_up_ns + c->outage_down_ns) >= c->outage_up_ns;
}

/* The Gilbert-Elliott chain takes one step a frame, lost or not. */
static void step_burst(struct core_impair_state *s) {
    double share = s->burst ? s->config.burst_leave : s->config.burst_enter;
    if (s->config.burst_enter <= 0) {
        s->burst = false;
    } else if (happens(s, FOR_BURST, share)) {
        s->burst = !s->burst;
    }
}

static int lost(struct core_impair_state *s, int64_t now_ns) {
    const core_impair *c = &s->config;
    step_burst(s);
    if (in_outage(s, now_ns)) {
        return CORE_LINK_DROP_OUTAGE;
    }
    if (c->loss_every && (s->index + 1) % c->loss_every == 0) {
        return CORE_LINK_DROP_EVERY;
    }
    if (s->burst && happens(s, FOR_BURST_LOSS, c->burst_loss)) {
        return CORE_LINK_DROP_BURST;
    }
    return happens(s, FOR_LOSS, c->loss) ? CORE_LINK_DROP_LOSS : -1;
}

/* How far a frame's delay is from the mean. */
static int64_t jitter(const struct core_impair_state *s) {
    const core_impair *c = &s->config;
    double u = fraction(s, FOR_DELAY), x = 0;
    switch (c->jitter_kind) {
    case CORE_JITTER_UNIFORM: x = 2 * u - 1; break;
    case CORE_JITTER_NORMAL: x = sqrt(-2 * log(1 - u)) * cos(2 * M_PI * fraction(s, FOR_ANGLE)); break;
    default:
        x = (pow(1 - u, -1.0 / 3) - 1.5) / sqrt(0.75);
        break; /* shape 3, moved and scaled to mean 0, deviation 1 */
    }
    x = x > JITTER_REACH ? JITTER_REACH : x;
    return (int64_t)(x * (double)c->jitter_ns);
}

static void let_leave(struct core_impair_state *s, int64_t now_ns) {
    while (s->count && s->slots[s->head].leaves_ns <= now_ns) {
        s->waiting_bytes -= s->slots[s->head].size;
        s->head = (s->head + 1) % s->config.queue_packets;
        s->count--;
    }
}

/* When the frame has left the rate-limited line; -1: its queue is full. */
static int64_t leave_line(struct core_impair_state *s, int64_t now_ns, uint32_t size) {
    const core_impair *c = &s->config;
    if (!c->rate_bps) {
        return now_ns;
    }
    let_leave(s, now_ns);
    if (s->count >= c->queue_packets || (c->queue_bytes && s->waiting_bytes + size > c->queue_bytes)) {
        return -1;
    }
    int64_t begin = s->line_free_ns > now_ns && s->count ? s->line_free_ns : now_ns;
    s->line_free_ns = begin + (int64_t)((__uint128_t)size * 8 * NS_PER_S / c->rate_bps);
    s->slots[(s->head + s->count++) % c->queue_packets] = (struct impair_slot){s->line_free_ns, size};
    s->waiting_bytes += size;
    return s->line_free_ns;
}

/* In order after the frames before it, unless it is chosen to be late. */
static int64_t arrival(struct core_impair_state *s, int64_t left_ns, bool late) {
    const core_impair *c = &s->config;
    int64_t delay = c->delay_ns + (c->jitter_ns ? jitter(s) : 0);
    int64_t due = left_ns + (delay > 0 ? delay : 0);
    due = due > s->last_due_ns ? due : s->last_due_ns;
    if (late) {
        return due + c->reorder_ns;
    }
    s->last_due_ns = due;
    return due;
}

void impair_judge(struct core_impair_state *s, int64_t now_ns, uint32_t size, struct impair_verdict *v) {
    const core_impair *c = &s->config;
    *v = (struct impair_verdict){.drop = lost(s, now_ns)};
    if (v->drop < 0) {
        int64_t left_ns = leave_line(s, now_ns, size);
        v->late = happens(s, FOR_LATE, c->reorder);
        v->drop = left_ns < 0 ? CORE_LINK_DROP_QUEUE : -1;
        v->due_ns = v->drop < 0 ? arrival(s, left_ns, v->late) : 0;
        v->duplicate = happens(s, FOR_COPY, c->duplicate);
        v->corrupt = happens(s, FOR_CORRUPT, c->corrupt);
        v->corrupt_at = v->corrupt ? draw(s, FOR_BIT) : 0;
    }
    s->index++;
}

int core_impair_try(const core_impair *config, uint32_t count, uint32_t size, int64_t gap_ns, int8_t *drops,
                    int64_t *delays_ns) {
    struct core_impair_state s = {0};
    int rc = impair_set(&s, config, 0);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        struct impair_verdict v;
        int64_t now = (int64_t)i * gap_ns;
        impair_judge(&s, now, size, &v);
        drops[i] = (int8_t)v.drop;
        delays_ns[i] = v.drop < 0 ? v.due_ns - now : 0;
    }
    impair_free(&s);
    return rc;
}
