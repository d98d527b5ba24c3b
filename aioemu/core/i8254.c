/* i8254.c: the programmable interval timer and port 61H (Intel 8254 data sheet; PC AT technical reference).
 *
 * Nothing counts: counts and outputs are computed from the machine's clock. A new count takes effect at once in every
 * mode (the chip finishes the running period in modes 2 and 3). Channel 0's rising edges go to line 0, no closer
 * together than TIMER_FLOOR_NS: those between are lost, as to a processor that is too slow. The guest is not trusted.
 */
#include "intc.h"

enum {
    HZ = 1193182,
    PORT_CONTROL = 3,
    ACCESS_LATCH = 0,
    ACCESS_LOW = 1,
    ACCESS_HIGH = 2,
    ACCESS_BOTH = 3,
};

static const int64_t SECOND_NS = 1000000000;

/* ---- counting --------------------------------------------------------------------------------------------------------- */

static bool counts(const struct i8254_channel *c) {
    bool needs_gate = c->mode != 1 && c->mode != 5;
    return c->armed && (c->gate || !needs_gate);
}

static uint64_t ticks(const struct i8254_channel *c, int64_t now_ns) {
    if (!counts(c) || now_ns < c->started_ns) {
        return c->base_ticks;
    }
    return c->base_ticks + (uint64_t)((unsigned __int128)(now_ns - c->started_ns) * HZ / SECOND_NS);
}

/* When the counter will have counted (target) ticks. */
static int64_t time_of(const struct i8254_channel *c, uint64_t target) {
    return c->started_ns + (int64_t)(((unsigned __int128)(target - c->base_ticks) * SECOND_NS + HZ - 1) / HZ);
}

bool i8254_out(const struct i8254_channel *c, int64_t now_ns) {
    uint64_t passed = ticks(c, now_ns);
    switch (c->mode) {
    case 0: return c->armed && passed >= c->reload;
    case 1: return !c->armed || passed >= c->reload;
    case 2: return !counts(c) || passed % c->reload != c->reload - 1;
    case 3: return !counts(c) || passed % c->reload < (c->reload + 1) / 2;
    default: return !c->armed || passed != c->reload;
    }
}

static uint16_t to_bcd(uint32_t value) {
    return (uint16_t)(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

static uint32_t from_bcd(uint32_t value) {
    return (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15);
}

static uint16_t count(const struct i8254_channel *c, int64_t now_ns) {
    uint64_t passed = ticks(c, now_ns);
    uint32_t modulus = c->bcd ? 10000 : 65536;
    uint32_t value;
    if (c->mode == 2) {
        value = (uint32_t)(c->reload - passed % c->reload);
    } else if (c->mode == 3) {
        value = (uint32_t)(c->reload - 2 * passed % c->reload);
    } else {
        value = (uint32_t)((c->reload + modulus - passed % modulus) % modulus);
    }
    return c->bcd ? to_bcd(value) : (uint16_t)value;
}

static void start(struct i8254_channel *c, int64_t now_ns) {
    c->armed = true;
    c->base_ticks = 0;
    c->started_ns = now_ns;
}

/* The gate stops (0, 4), stops and restarts (2, 3) or triggers (1, 5): table of the data sheet's "gate pin operations". */
void i8254_gate(struct i8254_channel *c, bool gate, int64_t now_ns) {
    bool rises = gate && !c->gate;
    c->base_ticks = ticks(c, now_ns);
    c->started_ns = now_ns;
    c->gate = gate;
    if (rises && c->loaded && c->mode != 0 && c->mode != 4) {
        start(c, now_ns);
    }
}

/* ---- channel 0's interrupt -------------------------------------------------------------------------------------------- */

static uint64_t edges(const struct i8254_channel *c, int64_t now_ns) {
    uint64_t passed = ticks(c, now_ns);
    switch (c->mode) {
    case 0: return passed >= c->reload;
    case 2:
    case 3: return passed / c->reload;
    case 4: return passed > c->reload;
    default: return 0;
    }
}

int64_t i8254_next_edge(const struct i8254 *pit, int64_t now_ns) {
    const struct i8254_channel *c = &pit->channel[0];
    if (!c->armed || c->mode == 1 || c->mode == 5) {
        return INTC_NEVER;
    }
    bool periodic = c->mode == 2 || c->mode == 3;
    if (!periodic && pit->edges) {
        return INTC_NEVER;
    }
    int64_t due = time_of(c, periodic ? (pit->edges + 1) * c->reload : c->reload + (c->mode == 4));
    int64_t floor = now_ns + TIMER_FLOOR_NS;
    return periodic && due < floor && pit->edges ? floor : due;
}

void i8254_poll(struct i8254 *pit, int64_t now_ns) {
    if (pit->next_ns == INTC_NEVER || now_ns < pit->next_ns) {
        return;
    }
    uint64_t seen = edges(&pit->channel[0], now_ns);
    if (seen > pit->edges) {
        pit->edges = seen;
        intc_line0(pit->intc, false);
        intc_line0(pit->intc, true);
    }
    pit->next_ns = i8254_next_edge(pit, now_ns);
}

/* Channel 0 was programmed anew. */
static void rewind(struct i8254 *pit, int64_t now_ns) {
    pit->edges = 0;
    intc_line0(pit->intc, false);
    pit->next_ns = i8254_next_edge(pit, now_ns);
    if (pit->next_ns != INTC_NEVER) {
        intc_arm(pit->intc, pit->next_ns);
    }
}

/* ---- ports -------------------------------------------------------------------------------------------------------------- */

static void latch_count(struct i8254_channel *c, int64_t now_ns) {
    if (!c->latched) {
        c->latch = count(c, now_ns);
        c->latched = c->access == ACCESS_BOTH ? 2 : 1;
    }
}

static void latch_status(struct i8254_channel *c, int64_t now_ns) {
    if (!c->status_latched) {
        bool null_count = !c->loaded;
        c->status = (uint8_t)(i8254_out(c, now_ns) << 7 | null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd);
        c->status_latched = true;
    }
}

static void read_back(struct i8254 *pit, uint8_t value, int64_t now_ns) {
    for (uint32_t i = 0; i < 3; i++) {
        if (!(value >> (i + 1) & 1)) {
            continue;
        }
        if (!(value & 0x20)) {
            latch_count(&pit->channel[i], now_ns);
        }
        if (!(value & 0x10)) {
            latch_status(&pit->channel[i], now_ns);
        }
    }
}

static void write_control(struct i8254 *pit, uint8_t value, int64_t now_ns) {
    uint32_t index = value >> 6;
    if (index == 3) {
        read_back(pit, value, now_ns);
        return;
    }
    struct i8254_channel *c = &pit->channel[index];
    if ((value >> 4 & 3) == ACCESS_LATCH) {
        latch_count(c, now_ns);
        return;
    }
    uint8_t mode = value >> 1 & 7;
    *c = (struct i8254_channel){
        .reload = 65536,
        .mode = mode > 5 ? mode - 4 : mode, /* bit 2 is "don't care" in modes 2 and 3 */
        .access = value >> 4 & 3,
        .bcd = value & 1,
        .gate = c->gate,
    };
    if (index == 0) {
        rewind(pit, now_ns);
    }
}

static void load_count(struct i8254_channel *c, uint32_t value, int64_t now_ns) {
    uint32_t counts_down = c->bcd ? from_bcd(value) : value;
    c->reload = counts_down ? counts_down : c->bcd ? 10000 : 65536;
    c->loaded = true;
    if (c->mode != 1 && c->mode != 5) {
        start(c, now_ns);
    }
}

static void write_count(struct i8254 *pit, uint32_t index, uint8_t value, int64_t now_ns) {
    struct i8254_channel *c = &pit->channel[index];
    if (c->access == ACCESS_BOTH && !c->second_write) {
        c->low = value;
        c->second_write = true;
        if (c->mode == 0) {
            c->armed = false; /* writing the first byte stops the counting */
        }
    } else {
        uint32_t full = c->access == ACCESS_LOW ? value : (uint32_t)value << 8;
        load_count(c, c->access == ACCESS_BOTH ? full | c->low : full, now_ns);
        c->second_write = false;
    }
    if (index == 0) {
        rewind(pit, now_ns);
    }
}

static uint8_t read_count(struct i8254_channel *c, int64_t now_ns) {
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->latched ? c->latch : count(c, now_ns);
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->second_read);
    if (c->access == ACCESS_BOTH) {
        c->second_read = !c->second_read;
    }
    if (c->latched) {
        c->latched--;
    }
    return (uint8_t)(high ? value >> 8 : value);
}

static int access_ports(struct core_chip *chip, struct core_part *part) {
    struct i8254 *pit = (struct i8254 *)chip;
    uint32_t index = part->offset & 3;
    part->size = 1;
    pthread_mutex_lock(&pit->intc->lock);
    int64_t now = intc_now(pit->intc);
    if (part->is_write && index == PORT_CONTROL) {
        write_control(pit, (uint8_t)part->value, now);
    } else if (part->is_write) {
        write_count(pit, index, (uint8_t)part->value, now);
    } else {
        part->value = index == PORT_CONTROL ? 0xff : read_count(&pit->channel[index], now);
    }
    pthread_mutex_unlock(&pit->intc->lock);
    return CORE_DONE;
}

/* ---- the chip ---------------------------------------------------------------------------------------------------- */

static void clear(struct i8254 *pit) {
    for (uint32_t i = 0; i < 3; i++) {
        pit->channel[i] = (struct i8254_channel){.reload = 65536, .mode = 3, .access = ACCESS_BOTH, .gate = i != 2};
    }
    pit->edges = 0;
    pit->next_ns = INTC_NEVER;
}

static void reset(struct core_chip *chip) {
    struct i8254 *pit = (struct i8254 *)chip;
    pthread_mutex_lock(&pit->intc->lock);
    clear(pit);
    intc_line0(pit->intc, false);
    pthread_mutex_unlock(&pit->intc->lock);
}

static void destroy(struct core_chip *chip) {
    (void)chip; /* freed with its controllers */
}

static const struct core_chip_ops ops = {
    .name = "i8254",
    .access = access_ports,
    .reset = reset,
    .destroy = destroy,
    .state_size = i8254_state_size,
    .save = i8254_save,
    .load = i8254_load,
};

void i8254_open(struct i8254 *pit, struct core_intc *intc) {
    core_chip_init(&pit->chip, &ops);
    pit->chip.machine = intc->machine;
    pit->intc = intc;
    clear(pit);
}
