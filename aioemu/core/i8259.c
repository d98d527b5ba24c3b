/* i8259.c: the pair of interrupt controllers of the PC (Intel 8259A data sheet; edge/level control as in EISA).
 *
 * Initialisation words, all operation words, rotation, special mask, special fully nested, polling, automatic EOI,
 * spurious IRQ7. Not modelled: MCS-80 vectors and buffered mode, which no PC has. The guest is not trusted.
 */
#include <errno.h>
#include <string.h>

#include "intc.h"

enum { LINES = 8, CASCADE = 2, STATE_VERSION = 1, ELCR_PRIMARY = 0xf8, ELCR_SECONDARY = 0xde };

/* ---- priorities ---------------------------------------------------------------------------------------------------- */

/* The line of highest priority in (mask), as a distance from the highest there is: 0..7, or 8 for none. */
static uint32_t rank(const struct i8259 *pic, uint8_t mask) {
    for (uint32_t distance = 0; distance < LINES; distance++) {
        if (mask >> ((pic->lowest + 1 + distance) % LINES) & 1) {
            return distance;
        }
    }
    return LINES;
}

static uint32_t line_at(const struct i8259 *pic, uint32_t distance) {
    return (pic->lowest + 1 + distance) % LINES;
}

/* The line that may interrupt now, or -1: not masked, and above everything in service. */
static int candidate(const struct i8259 *pic) {
    uint8_t in_service = pic->special_mask ? pic->isr & (uint8_t)~pic->imr : pic->isr;
    if (pic->special_nested && !pic->secondary) {
        in_service &= (uint8_t)~(1u << CASCADE); /* the secondary may interrupt itself */
    }
    uint32_t wants = rank(pic, pic->irr & (uint8_t)~pic->imr);
    if (pic->special_mask && wants < LINES && (pic->isr >> line_at(pic, wants) & 1)) {
        return -1;
    }
    uint32_t serving = pic->special_mask ? LINES : rank(pic, in_service);
    return wants < serving ? (int)line_at(pic, wants) : -1;
}

bool i8259_output(const struct i8259 *pic) {
    return candidate(pic) >= 0;
}

/* The secondary's INTR is the primary's line 2; the primary's is the processors' business. */
static void update(struct i8259 *pic) {
    if (pic->secondary) {
        i8259_line(&pic->intc->pic[0], CASCADE, i8259_output(pic));
    } else {
        intc_pic_changed(pic->intc);
    }
}

static bool by_level(const struct i8259 *pic, uint32_t line) {
    bool is_cascade = !pic->secondary && line == CASCADE;
    return pic->level_mode || (pic->elcr >> line & 1) || is_cascade;
}

void i8259_line(struct i8259 *pic, uint32_t line, bool level) {
    uint8_t bit = (uint8_t)(1u << line);
    bool rising = level && !(pic->lines & bit);
    pic->lines = (uint8_t)(level ? pic->lines | bit : pic->lines & ~bit);
    if (by_level(pic, line)) {
        pic->irr = (uint8_t)(level ? pic->irr | bit : pic->irr & ~bit);
    } else if (rising) {
        pic->irr |= bit;
    } else if (!level) {
        pic->irr &= (uint8_t)~bit; /* the input must stay high until INTA */
    }
    update(pic);
}

/* ---- INTA and EOI ---------------------------------------------------------------------------------------------------- */

static void rotate_to(struct i8259 *pic, uint32_t line) {
    pic->lowest = (uint8_t)line;
}

/* The line's interrupt is over: an eventfd that drives it may let go. */
static void finish(struct i8259 *pic, uint32_t line) {
    if (pic->intc->finished) {
        pic->intc->finished(pic->intc->opaque, line + (pic->secondary ? LINES : 0));
    }
}

/* INTA of one controller: the line, 7 when the request went away (spurious). */
static uint32_t take(struct i8259 *pic) {
    int line = candidate(pic);
    if (line < 0) {
        return 7;
    }
    uint8_t bit = (uint8_t)(1u << line);
    if (!by_level(pic, (uint32_t)line)) {
        pic->irr &= (uint8_t)~bit;
    }
    if (!pic->auto_eoi) {
        pic->isr |= bit;
    } else {
        if (pic->rotate_in_aeoi) {
            rotate_to(pic, (uint32_t)line);
        }
        finish(pic, (uint32_t)line);
    }
    return (uint32_t)line;
}

uint8_t i8259_acknowledge(struct core_intc *intc) {
    struct i8259 *primary = &intc->pic[0], *secondary = &intc->pic[1];
    uint32_t line = take(primary);
    uint8_t vector = (uint8_t)(primary->vector_base + line);
    if (line == CASCADE) {
        vector = (uint8_t)(secondary->vector_base + take(secondary));
        update(secondary);
    }
    update(primary);
    return vector;
}

/* OCW2 (figure 8): R, SL, EOI and a line. */
static void end_of_interrupt(struct i8259 *pic, uint8_t value) {
    bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    uint32_t line = value & 7;
    if (!eoi) {
        if (specific && rotate) {
            rotate_to(pic, line); /* set priority */
        } else if (!specific) {
            pic->rotate_in_aeoi = rotate;
        }
        update(pic);
        return;
    }
    if (!specific) {
        uint32_t distance = rank(pic, pic->special_mask ? pic->isr & (uint8_t)~pic->imr : pic->isr);
        if (distance == LINES) {
            return;
        }
        line = line_at(pic, distance);
    }
    bool was_serving = pic->isr >> line & 1;
    pic->isr &= (uint8_t)~(1u << line);
    if (rotate) {
        rotate_to(pic, line);
    }
    if (was_serving) {
        finish(pic, line);
    }
    update(pic);
}

/* ---- command words ---------------------------------------------------------------------------------------------------- */

static void write_icw1(struct i8259 *pic, uint8_t value) {
    pic->irr = pic->isr = pic->imr = 0;
    pic->lowest = 7;
    pic->special_mask = pic->read_isr = pic->poll = pic->auto_eoi = pic->special_nested = pic->rotate_in_aeoi = false;
    pic->icw4_follows = value & 1;
    pic->single = value & 2;
    pic->level_mode = value & 8;
    pic->expect = 2;
    for (uint32_t line = 0; line < LINES; line++) {
        if (by_level(pic, line) && (pic->lines >> line & 1)) {
            pic->irr |= (uint8_t)(1u << line); /* the edge detectors are cleared, the levels are not */
        }
    }
    update(pic);
}

static void write_ocw3(struct i8259 *pic, uint8_t value) {
    if (value & 0x40) {
        pic->special_mask = value & 0x20;
    }
    pic->poll = value & 4;
    if (!pic->poll && (value & 2)) {
        pic->read_isr = value & 1;
    }
    update(pic);
}

static void write_data(struct i8259 *pic, uint8_t value) {
    switch (pic->expect) {
    case 2:
        pic->vector_base = value & 0xf8;
        pic->expect = !pic->single ? 3 : pic->icw4_follows ? 4 : 0;
        break;
    case 3:
        pic->icw3 = value;
        pic->expect = pic->icw4_follows ? 4 : 0;
        break;
    case 4:
        pic->auto_eoi = value & 2;
        pic->special_nested = value & 0x10;
        pic->expect = 0;
        break;
    default: pic->imr = value; break;
    }
    update(pic);
}

/* Polling is an INTA whose vector is read: bit 7 = there was one. */
static uint8_t poll(struct i8259 *pic) {
    pic->poll = false;
    bool asked = candidate(pic) >= 0;
    uint8_t line = (uint8_t)take(pic);
    update(pic);
    return asked ? 0x80 | line : 0;
}

static uint8_t read_port(struct i8259 *pic, bool data) {
    if (pic->poll) {
        return poll(pic);
    }
    return data ? pic->imr : pic->read_isr ? pic->isr : pic->irr;
}

static void write_port(struct i8259 *pic, bool data, uint8_t value) {
    if (data) {
        write_data(pic, value);
    } else if (value & 0x10) {
        write_icw1(pic, value);
    } else if (value & 8) {
        write_ocw3(pic, value);
    } else {
        end_of_interrupt(pic, value);
    }
}

/* ---- the chips ---------------------------------------------------------------------------------------------------------- */

static int access_ports(struct core_chip *chip, struct core_part *part) {
    struct i8259 *pic = (struct i8259 *)chip;
    part->size = 1;
    pthread_mutex_lock(&pic->intc->lock);
    if (part->is_write) {
        write_port(pic, part->offset & 1, (uint8_t)part->value);
    } else {
        part->value = read_port(pic, part->offset & 1);
    }
    pthread_mutex_unlock(&pic->intc->lock);
    return CORE_DONE;
}

static void clear(struct i8259 *pic) {
    struct core_chip chip = pic->chip;
    uint8_t lines = pic->lines;
    *pic = (struct i8259){.intc = pic->intc, .secondary = pic->secondary, .lines = lines, .imr = 0xff, .lowest = 7};
    pic->chip = chip;
}

static void reset(struct core_chip *chip) {
    struct i8259 *pic = (struct i8259 *)chip;
    pthread_mutex_lock(&pic->intc->lock);
    clear(pic);
    update(pic);
    pthread_mutex_unlock(&pic->intc->lock);
}

static void destroy(struct core_chip *chip) {
    (void)chip; /* freed with its controllers */
}

/* Every field is a byte. */
struct i8259_state {
    uint8_t version, irr, imr, isr, lines, elcr, vector_base, icw3, lowest, expect;
    uint8_t flags[9];
};

static int state_size(struct core_chip *chip) {
    (void)chip;
    return (int)sizeof(struct i8259_state);
}

static int save(struct core_chip *chip, uint8_t *state) {
    struct i8259 *p = (struct i8259 *)chip;
    pthread_mutex_lock(&p->intc->lock);
    struct i8259_state s = {
        STATE_VERSION,
        p->irr,
        p->imr,
        p->isr,
        p->lines,
        p->elcr,
        p->vector_base,
        p->icw3,
        p->lowest,
        p->expect,
        {p->icw4_follows, p->single, p->level_mode, p->auto_eoi, p->rotate_in_aeoi, p->special_nested, p->special_mask,
         p->read_isr, p->poll},
    };
    pthread_mutex_unlock(&p->intc->lock);
    memcpy(state, &s, sizeof s);
    return 0;
}

static bool is_possible(const struct i8259 *pic, const struct i8259_state *s) {
    for (size_t i = 0; i < sizeof s->flags; i++) {
        if (s->flags[i] > 1) {
            return false;
        }
    }
    uint8_t elcr = pic->secondary ? ELCR_SECONDARY : ELCR_PRIMARY;
    return s->version == STATE_VERSION && !(s->elcr & ~elcr) && !(s->vector_base & 7) && s->lowest < LINES &&
           (s->expect == 0 || (s->expect >= 2 && s->expect <= 4));
}

static int load(struct core_chip *chip, const uint8_t *state) {
    struct i8259 *p = (struct i8259 *)chip;
    struct i8259_state s;
    memcpy(&s, state, sizeof s);
    if (!is_possible(p, &s)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&p->intc->lock);
    p->irr = s.irr, p->imr = s.imr, p->isr = s.isr, p->lines = s.lines, p->elcr = s.elcr;
    p->vector_base = s.vector_base, p->icw3 = s.icw3, p->lowest = s.lowest, p->expect = s.expect;
    p->icw4_follows = s.flags[0], p->single = s.flags[1], p->level_mode = s.flags[2], p->auto_eoi = s.flags[3];
    p->rotate_in_aeoi = s.flags[4], p->special_nested = s.flags[5], p->special_mask = s.flags[6];
    p->read_isr = s.flags[7], p->poll = s.flags[8];
    intc_pic_changed(p->intc);
    pthread_mutex_unlock(&p->intc->lock);
    return 0;
}

static const struct core_chip_ops ops = {
    .name = "i8259",
    .access = access_ports,
    .reset = reset,
    .destroy = destroy,
    .state_size = state_size,
    .save = save,
    .load = load,
};

void i8259_open(struct i8259 *pic, struct core_intc *intc, bool secondary) {
    core_chip_init(&pic->chip, &ops);
    pic->chip.machine = intc->machine;
    pic->intc = intc;
    pic->secondary = secondary;
    pic->imr = 0xff; /* quiet until it is initialised, which unmasks all */
    pic->lowest = 7;
}

static int access_elcr(struct core_chip *chip, struct core_part *part) {
    struct elcr *elcr = (struct elcr *)chip;
    struct i8259 *pic = &elcr->intc->pic[part->offset & 1];
    part->size = 1;
    pthread_mutex_lock(&elcr->intc->lock);
    if (part->is_write) {
        pic->elcr = (uint8_t)part->value & (pic->secondary ? ELCR_SECONDARY : ELCR_PRIMARY);
    } else {
        part->value = pic->elcr;
    }
    pthread_mutex_unlock(&elcr->intc->lock);
    return CORE_DONE;
}

static const struct core_chip_ops elcr_ops = {.name = "elcr", .access = access_elcr, .destroy = destroy};

void elcr_open(struct elcr *elcr, struct core_intc *intc) {
    core_chip_init(&elcr->chip, &elcr_ops);
    elcr->chip.machine = intc->machine;
    elcr->intc = intc;
}
