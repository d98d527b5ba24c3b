/* dispatch.c: a guest access finds its chip. Split at region and register borders; holes read all ones. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "table.h"

static uint64_t load(const uint8_t *data, uint32_t size) {
    uint64_t value = 0;
    memcpy(&value, data, size);
    return value;
}

static void store(uint8_t *data, uint64_t value, uint32_t size) {
    memcpy(data, &value, size);
}

static bool ring_bell(const struct core_table *table, uint64_t address, uint32_t size, uint64_t value) {
    const struct core_doorbell *bell = core_table_bell(table, address, size, value);
    if (!bell) {
        return false;
    }
    uint64_t one = 1;
    (void)!write(bell->fd, &one, sizeof one);
    return true;
}

/* Serve the first part of the access at `address`: CORE_DONE or CORE_HANDOVER with *event; part->size shrinks. */
static int serve(const struct core_table *table, uint64_t address, struct core_part *part, core_event *event) {
    if (part->is_write && table && table->doorbell_count && ring_bell(table, address, part->size, part->value)) {
        return CORE_DONE;
    }
    uint64_t gap;
    const struct core_region *region = core_table_find(table, address, &gap);
    if (!region) {
        part->size = gap < part->size ? (uint32_t)gap : part->size;
        part->value = UINT64_MAX;
        return CORE_DONE;
    }
    uint64_t room = region->last - address;
    part->size = room < part->size ? (uint32_t)room + 1 : part->size;
    part->offset = address - region->base;
    part->posted = false;
    atomic_fetch_add_explicit(&region->hits[part->is_write], 1, memory_order_relaxed);
    int rc = region->chip->ops->access(region->chip, part);
    if (rc == CORE_HANDOVER) {
        *event = (core_event){.kind = part->is_write ? CORE_EVENT_WRITE : CORE_EVENT_READ,
                              .tag = region->tag,
                              .reg = part->reg,
                              .size = part->size,
                              .offset = part->offset,
                              .value = part->value};
    }
    return rc;
}

void core_dispatch(struct core_vcpu *v, int space, uint64_t address, uint8_t *data, uint32_t size, bool is_write) {
    while (size) {
        core_event event;
        struct core_part part = {.size = size, .is_write = is_write, .value = is_write ? load(data, size) : 0};
        const struct core_table *table = core_table_hold(v->thread, space);
        int rc = serve(table, address, &part, &event);
        core_table_release(v->thread);
        if (rc == CORE_HANDOVER && part.posted) {
            core_post(v, &event);
        } else if (rc == CORE_HANDOVER) {
            part.value = core_ask(v, &event);
        }
        if (!is_write) {
            store(data, part.value, part.size);
        }
        address += part.size;
        data += part.size;
        size -= part.size;
    }
}

void core_deliver(core_machine *m, int space, uint64_t address, const uint8_t *data, uint32_t size) {
    pthread_mutex_lock(&m->bus);
    while (size) {
        core_event event;
        struct core_part part = {.size = size, .is_write = true, .value = load(data, size)};
        serve(atomic_load(&m->tables[space]), address, &part, &event);
        address += part.size;
        data += part.size;
        size -= part.size;
    }
    pthread_mutex_unlock(&m->bus);
}

int core_access(core_machine *m, int space, uint64_t address, uint32_t *size, int is_write, uint64_t *value,
                core_event *handover) {
    if (*size == 0 || *size > CORE_ACCESS_MAX || space < 0 || space > 1) {
        return -EINVAL;
    }
    struct core_part part = {.size = *size, .is_write = is_write != 0, .value = is_write ? *value : 0};
    pthread_mutex_lock(&m->bus);
    int rc = serve(atomic_load(&m->tables[space]), address, &part, handover);
    pthread_mutex_unlock(&m->bus);
    *size = part.size;
    if (!is_write && rc == CORE_DONE) {
        *value = part.size < 8 ? part.value & ((1ull << (8 * part.size)) - 1) : part.value;
    }
    return rc;
}
