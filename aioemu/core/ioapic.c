/* ioapic.c: I/O APIC (Intel 82093AA): 24 lines to interrupt messages.
 *
 * Lines are logical, asserted or not: the polarity bit is kept but changes nothing, as the boards' tables say what the
 * guest should write there. Messages take no time, so delivery status always reads idle. The guest is not trusted.
 */
#include <errno.h>
#include <string.h>

#include "intc.h"

enum {
    REG_SELECT = 0x00,
    REG_WINDOW = 0x10,
    WINDOW_ID = 0x00,
    WINDOW_VERSION = 0x01,
    WINDOW_ARBITRATION = 0x02,
    WINDOW_TABLE = 0x10,

    VERSION = 0x11 | (IOAPIC_PINS - 1) << 16,
    STATE_VERSION = 1,
};

static const uint64_t LOGICAL = 1ull << 11;
static const uint64_t REMOTE_IRR = 1ull << 14;
static const uint64_t LEVEL = 1ull << 15;
static const uint64_t MASKED = 1ull << 16;
static const uint64_t WRITABLE = 0xff0000000001afffull;
static const uint64_t DEFINED = 0xff0000000001efffull; /* and remote IRR */

/* Send the message of (pin)'s entry. True when a processor took it. */
static bool send(struct ioapic *ioapic, uint32_t pin) {
    uint64_t entry = ioapic->entry[pin];
    struct intc_message message = {
        .vector = entry & 0xff,
        .mode = entry >> 8 & 7,
        .logical = entry & LOGICAL,
        .level = entry & LEVEL,
        .destination = (uint8_t)(entry >> 56),
    };
    return intc_deliver(ioapic->intc, &message) > 0;
}

/* A level-triggered line asks until a processor has taken it, and then not before EOI. */
static void serve_level(struct ioapic *ioapic, uint32_t pin) {
    uint64_t entry = ioapic->entry[pin];
    bool asks = ioapic->levels >> pin & 1;
    if (asks && (entry & LEVEL) && !(entry & (MASKED | REMOTE_IRR)) && send(ioapic, pin)) {
        ioapic->entry[pin] |= REMOTE_IRR;
    }
}

void ioapic_line(struct ioapic *ioapic, uint32_t pin, bool level) {
    bool before = ioapic->levels >> pin & 1;
    ioapic->levels = (ioapic->levels & ~(1u << pin)) | (uint32_t)level << pin;
    uint64_t entry = ioapic->entry[pin];
    if (entry & LEVEL) {
        serve_level(ioapic, pin);
    } else if (level && !before && !(entry & MASKED)) {
        send(ioapic, pin);
    }
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector) {
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = ioapic->entry[pin];
        if ((entry & 0xff) != vector || !(entry & REMOTE_IRR)) {
            continue;
        }
        ioapic->entry[pin] = entry & ~REMOTE_IRR;
        if (ioapic->intc->finished) {
            ioapic->intc->finished(ioapic->intc->opaque, pin == IOAPIC_TIMER_PIN ? 0 : pin);
        }
        serve_level(ioapic, pin);
    }
}

static uint32_t read_window(const struct ioapic *ioapic) {
    uint32_t pin = (ioapic->select - WINDOW_TABLE) / 2;
    switch (ioapic->select) {
    case WINDOW_ID:
    case WINDOW_ARBITRATION: return ioapic->id << 24;
    case WINDOW_VERSION: return VERSION;
    default:
        if (ioapic->select < WINDOW_TABLE || pin >= IOAPIC_PINS) {
            return 0;
        }
        return (uint32_t)(ioapic->entry[pin] >> (ioapic->select & 1 ? 32 : 0));
    }
}

static void write_window(struct ioapic *ioapic, uint32_t value) {
    uint32_t pin = (ioapic->select - WINDOW_TABLE) / 2;
    if (ioapic->select == WINDOW_ID) {
        ioapic->id = value >> 24 & 0xf;
        return;
    }
    if (ioapic->select < WINDOW_TABLE || pin >= IOAPIC_PINS) {
        return;
    }
    uint64_t entry = ioapic->entry[pin];
    uint64_t half = ioapic->select & 1 ? (uint64_t)value << 32 | (uint32_t)entry : (entry >> 32 << 32) | value;
    uint64_t irr = half & LEVEL ? entry & REMOTE_IRR : 0; /* an edge-triggered entry has none */
    ioapic->entry[pin] = (half & WRITABLE) | irr;
    serve_level(ioapic, pin);
    intc_pic_changed(ioapic->intc);
}

/* Registers are 32 bits at offsets 0 and 16; a narrower access sees or changes the low bytes. */
static int access_registers(struct core_chip *chip, struct core_part *part) {
    struct ioapic *ioapic = (struct ioapic *)chip;
    if (part->size > 4) {
        part->size = 4;
    }
    pthread_mutex_lock(&ioapic->intc->lock);
    uint32_t value = 0;
    if (part->is_write && part->offset == REG_SELECT) {
        ioapic->select = part->value & 0xff;
    } else if (part->is_write && part->offset == REG_WINDOW) {
        write_window(ioapic, (uint32_t)part->value);
    } else if (part->offset == REG_SELECT) {
        value = ioapic->select;
    } else if (part->offset == REG_WINDOW) {
        value = read_window(ioapic);
    }
    if (!part->is_write) {
        part->value = value;
    }
    pthread_mutex_unlock(&ioapic->intc->lock);
    return CORE_DONE;
}

/* The lines keep what their devices drive. */
static void reset(struct core_chip *chip) {
    struct ioapic *ioapic = (struct ioapic *)chip;
    pthread_mutex_lock(&ioapic->intc->lock);
    ioapic->select = ioapic->id = 0;
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        ioapic->entry[pin] = MASKED;
    }
    pthread_mutex_unlock(&ioapic->intc->lock);
}

static void destroy(struct core_chip *chip) {
    (void)chip; /* freed with its controllers */
}

/* Little endian, no padding. */
struct ioapic_state {
    uint32_t version, select, id, levels;
    uint64_t entry[IOAPIC_PINS];
};

static int state_size(struct core_chip *chip) {
    (void)chip;
    return (int)sizeof(struct ioapic_state);
}

static int save(struct core_chip *chip, uint8_t *state) {
    struct ioapic *ioapic = (struct ioapic *)chip;
    pthread_mutex_lock(&ioapic->intc->lock);
    struct ioapic_state s = {
        .version = STATE_VERSION, .select = ioapic->select, .id = ioapic->id, .levels = ioapic->levels};
    memcpy(s.entry, ioapic->entry, sizeof s.entry);
    pthread_mutex_unlock(&ioapic->intc->lock);
    memcpy(state, &s, sizeof s);
    return 0;
}

/* The levels of the lines come back too: devices that are loaded later drive only changes. */
static int load(struct core_chip *chip, const uint8_t *state) {
    struct ioapic *ioapic = (struct ioapic *)chip;
    struct ioapic_state s;
    memcpy(&s, state, sizeof s);
    if (s.version != STATE_VERSION || s.select > 0xff || s.id > 0xf || s.levels >> IOAPIC_PINS) {
        return -EINVAL;
    }
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((s.entry[pin] & ~DEFINED) || ((s.entry[pin] & REMOTE_IRR) && !(s.entry[pin] & LEVEL))) {
            return -EINVAL;
        }
    }
    pthread_mutex_lock(&ioapic->intc->lock);
    ioapic->select = s.select;
    ioapic->id = s.id;
    ioapic->levels = s.levels;
    memcpy(ioapic->entry, s.entry, sizeof s.entry);
    pthread_mutex_unlock(&ioapic->intc->lock);
    return 0;
}

static const struct core_chip_ops ops = {
    .name = "ioapic",
    .access = access_registers,
    .reset = reset,
    .destroy = destroy,
    .state_size = state_size,
    .save = save,
    .load = load,
};

void ioapic_open(struct ioapic *ioapic, struct core_intc *intc) {
    core_chip_init(&ioapic->chip, &ops);
    ioapic->chip.machine = intc->machine;
    ioapic->intc = intc;
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        ioapic->entry[pin] = MASKED;
    }
}
