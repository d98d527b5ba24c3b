/* pmtimer.c: the ACPI power management timer (ACPI 4.8.3.3): a counter of the machine's clock that nothing can stop or
 * set. Read thousands of times while a kernel calibrates, so it never leaves the vCPU thread. */
#include <stdlib.h>

#include "core.h"

enum { PM_TIMER_HZ = 3579545, PM_TIMER_BYTES = 4 };

struct pmtimer {
    struct core_chip chip;
    uint64_t mask;
};

/* The timer's ticks since the machine's clock began, not cut to the counter's width. */
uint64_t core_pmtimer_ticks(core_chip *timer) {
    if (!timer->machine) {
        return 0;
    }
    return (uint64_t)((unsigned __int128)core_clock_ns(timer->machine) * PM_TIMER_HZ / 1000000000u);
}

static int pmtimer_access(struct core_chip *chip, struct core_part *part) {
    const struct pmtimer *t = (const struct pmtimer *)chip;
    if (part->offset >= PM_TIMER_BYTES) {
        part->value = 0;
        return CORE_DONE;
    }
    uint32_t room = PM_TIMER_BYTES - (uint32_t)part->offset;
    part->size = part->size < room ? part->size : room;
    if (!part->is_write) {
        part->value = (core_pmtimer_ticks(chip) & t->mask) >> (8 * part->offset);
    }
    return CORE_DONE;
}

static void pmtimer_destroy(struct core_chip *chip) {
    free(chip);
}

static const struct core_chip_ops pmtimer_ops = {
    .name = "pmtimer", .access = pmtimer_access, .destroy = pmtimer_destroy};

/* A timer of 24 or 32 bits; NULL for anything else. */
core_chip *core_pmtimer_new(int bits) {
    struct pmtimer *t = bits == 24 || bits == 32 ? calloc(1, sizeof *t) : NULL;
    if (!t) {
        return NULL;
    }
    core_chip_init(&t->chip, &pmtimer_ops);
    t->mask = (1ull << bits) - 1;
    return &t->chip;
}
