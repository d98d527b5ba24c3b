/* port61.c: port 61H of the PC: gate and output of the 8254's channel 2, the speaker bit, the refresh toggle.
 *
 * Not modelled: sound, parity and I/O check errors (their enable bits are kept). The guest is not trusted.
 */
#include <errno.h>

#include "intc.h"

enum { REFRESH_NS = 15085, /* half a period of bit 4: 18 ticks of the 8254 */ WRITABLE = 0x0f };

static int access_port(struct core_chip *chip, struct core_part *part) {
    struct port61 *port = (struct port61 *)chip;
    struct i8254_channel *speaker = &port->intc->pit.channel[2];
    part->size = 1;
    pthread_mutex_lock(&port->intc->lock);
    int64_t now = intc_now(port->intc);
    if (part->is_write) {
        port->control = part->value & WRITABLE;
        i8254_gate(speaker, part->value & 1, now);
    } else {
        part->value = port->control | (now / REFRESH_NS & 1) << 4 | (uint64_t)i8254_out(speaker, now) << 5;
    }
    pthread_mutex_unlock(&port->intc->lock);
    return CORE_DONE;
}

static void reset(struct core_chip *chip) {
    ((struct port61 *)chip)->control = 0;
}

static void destroy(struct core_chip *chip) {
    (void)chip; /* freed with its controllers */
}

static int state_size(struct core_chip *chip) {
    (void)chip;
    return 1;
}

static int save(struct core_chip *chip, uint8_t *state) {
    *state = ((struct port61 *)chip)->control;
    return 0;
}

static int load(struct core_chip *chip, const uint8_t *state) {
    if (*state & ~WRITABLE) {
        return -EINVAL;
    }
    ((struct port61 *)chip)->control = *state;
    return 0;
}

static const struct core_chip_ops ops = {
    .name = "port61",
    .access = access_port,
    .reset = reset,
    .destroy = destroy,
    .state_size = state_size,
    .save = save,
    .load = load,
};

void port61_open(struct port61 *port, struct core_intc *intc) {
    core_chip_init(&port->chip, &ops);
    port->chip.machine = intc->machine;
    port->intc = intc;
}
