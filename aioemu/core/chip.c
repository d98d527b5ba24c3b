/* chip.c: what every chip shares: its interrupt line, its bell to the reactor, saving and loading. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

void core_chip_init(struct core_chip *chip, const struct core_chip_ops *ops) {
    chip->ops = ops;
    chip->machine = NULL;
    chip->gsi = -1;
    atomic_init(&chip->notify, -1);
    atomic_init(&chip->line_level, 0);
}

void core_chip_free(core_chip *chip) {
    if (chip) {
        chip->ops->destroy(chip);
    }
}

void core_chip_reset(core_chip *chip) {
    if (chip->ops->reset) {
        chip->ops->reset(chip);
    }
}

/* Connect the chip to its machine and interrupt line (gsi, or -1). */
int core_chip_wire(core_chip *chip, core_machine *m, int gsi) {
    if (gsi >= CORE_MAX_GSI) {
        return -EINVAL;
    }
    chip->machine = m;
    chip->gsi = gsi;
    return 0;
}

void core_chip_line(struct core_chip *chip, bool level) {
    if (chip->machine && chip->gsi >= 0 && atomic_exchange(&chip->line_level, level) != level) {
        core_irq_set(chip->machine, (uint32_t)chip->gsi, level);
    }
}

/* Give the chip a notifier: its news reach the reactor as CORE_EVENT_NOTIFY with `tag`, which is not 0. Control thread. */
int core_notify_bind(core_machine *m, core_chip *chip, uint32_t tag) {
    uint32_t slot = 0;
    for (; slot < m->notify_count && m->notify_tags[slot]; slot++) {
    }
    if (tag == 0 || slot == CORE_MAX_NOTIFY) {
        return tag == 0 ? -EINVAL : -ENOSPC;
    }
    m->notify_tags[slot] = tag;
    m->notify_count = slot == m->notify_count ? slot + 1 : m->notify_count;
    chip->machine = m;
    atomic_store(&chip->notify, (int32_t)slot);
    return 0;
}

/* The chip goes: its notifier is free for another one, news that nobody took are lost. Control thread. */
void core_notify_unbind(core_chip *chip) {
    int32_t slot = atomic_exchange(&chip->notify, -1);
    if (!chip->machine || slot < 0) {
        return;
    }
    uint64_t bit = 1ull << (slot % 64);
    chip->machine->notify_tags[slot] = 0;
    atomic_fetch_and(&chip->machine->notify_bits[slot / 64], ~bit);
    atomic_fetch_and(&chip->machine->notify_held[slot / 64], ~bit);
}

void core_chip_notify(struct core_chip *chip) {
    int32_t slot = atomic_load(&chip->notify);
    if (!chip->machine || slot < 0) {
        return;
    }
    uint64_t bit = 1ull << (slot % 64);
    uint64_t before = atomic_fetch_or(&chip->machine->notify_bits[slot / 64], bit);
    if (!(before & bit) && !(atomic_load(&chip->machine->notify_held[slot / 64]) & bit)) {
        core_ring(chip->machine);
    }
}

void core_notify_hold(core_chip *chip, int hold) {
    int32_t slot = atomic_load(&chip->notify);
    if (!chip->machine || slot < 0) {
        return;
    }
    uint64_t bit = 1ull << (slot % 64);
    if (hold) {
        atomic_fetch_or(&chip->machine->notify_held[slot / 64], bit);
        return;
    }
    atomic_fetch_and(&chip->machine->notify_held[slot / 64], ~bit);
    if (atomic_load(&chip->machine->notify_bits[slot / 64]) & bit) {
        core_ring(chip->machine);
    }
}

int core_chip_state_size(core_chip *chip) {
    return chip->ops->state_size ? chip->ops->state_size(chip) : 0;
}

int core_chip_save(core_chip *chip, uint8_t *state, int size) {
    if (size != core_chip_state_size(chip)) {
        return -EINVAL;
    }
    return size ? chip->ops->save(chip, state) : 0;
}

int core_chip_load(core_chip *chip, const uint8_t *state, int size) {
    if (size != core_chip_state_size(chip)) {
        return -EINVAL;
    }
    return size ? chip->ops->load(chip, state) : 0;
}

int core_chip_access(core_chip *chip, uint64_t offset, uint32_t *size, int is_write, uint64_t *value, uint32_t *reg) {
    if (*size == 0 || *size > CORE_ACCESS_MAX) {
        return -EINVAL;
    }
    struct core_part part = {
        .offset = offset, .size = *size, .is_write = is_write != 0, .value = is_write ? *value : 0};
    int rc = chip->ops->access(chip, &part);
    *size = part.size;
    *reg = part.reg;
    if (rc == CORE_HANDOVER || !is_write) {
        *value = part.value;
    }
    return rc;
}

/* ---- interrupt lines: the wired OR of their sources ----------------------------------------------------------------- */

int core_irq_set(core_machine *m, uint32_t gsi, int level) {
    if (gsi >= CORE_MAX_GSI) {
        return -EINVAL;
    }
    pthread_mutex_lock(&m->lines);
    uint16_t before = m->line_count[gsi];
    uint16_t after = level ? before + 1 : (before ? before - 1 : 0);
    m->line_count[gsi] = after;
    int rc = 0;
    if (!before != !after && m->accel && m->accel->irq) {
        rc = m->accel->irq(m, gsi, after != 0);
    }
    pthread_mutex_unlock(&m->lines);
    return rc;
}

int core_irq_pulse(core_machine *m, uint32_t gsi) {
    int rc = core_irq_set(m, gsi, 1);
    int low = core_irq_set(m, gsi, 0);
    return rc < 0 ? rc : low;
}

int core_msi_send(core_machine *m, uint64_t address, uint32_t data) {
    return m->accel && m->accel->msi ? m->accel->msi(m, address, data) : -ENODEV;
}

int core_irqfd_add(core_machine *m, int fd, int resample_fd, uint32_t gsi) {
    return m->accel && m->accel->irqfd ? m->accel->irqfd(m, fd, resample_fd, gsi, true) : -ENODEV;
}

int core_irqfd_remove(core_machine *m, int fd, uint32_t gsi) {
    return m->accel && m->accel->irqfd ? m->accel->irqfd(m, fd, -1, gsi, false) : -ENODEV;
}
