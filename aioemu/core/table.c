/* table.c: mapping and unmapping regions and doorbells while vCPUs run. Writers: control thread, serialised. */
#include "table.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "threads.h"

/* A bus has at most this many regions and doorbells: a guest that moves BARs cannot make the table grow further. */
enum { MAX_ENTRIES = 4096 };

const struct core_region *core_table_find(const struct core_table *table, uint64_t address, uint64_t *gap) {
    uint32_t low = 0, high = table ? table->region_count : 0;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (table->regions[mid].last < address) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    if (!table || low == table->region_count) {
        *gap = UINT64_MAX;
        return NULL;
    }
    const struct core_region *region = &table->regions[low];
    if (region->base > address) {
        *gap = region->base - address;
        return NULL;
    }
    return region;
}

const struct core_doorbell *core_table_bell(const struct core_table *table, uint64_t address, uint32_t size,
                                            uint64_t value) {
    uint32_t low = 0, high = table ? table->doorbell_count : 0;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (table->doorbells[mid].address < address) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    for (; table && low < table->doorbell_count && table->doorbells[low].address == address; low++) {
        const struct core_doorbell *bell = &table->doorbells[low];
        if ((bell->size == 0 || bell->size == size) && (!bell->match || bell->value == value)) {
            return bell;
        }
    }
    return NULL;
}

const struct core_table *core_table_hold(struct core_thread *t, int space) {
    _Atomic(struct core_table *) *current = &t->machine->tables[space];
    struct core_table *table = atomic_load_explicit(current, memory_order_acquire);
    for (;;) {
        atomic_store(&t->hazard, table);
        struct core_table *again = atomic_load(current);
        if (again == table) {
            return table;
        }
        table = again;
    }
}

void core_table_release(struct core_thread *t) {
    atomic_store_explicit(&t->hazard, NULL, memory_order_release);
}

static void table_free(struct core_table *table) {
    if (table) {
        free(table->regions);
        free(table->doorbells);
        free(table);
    }
}

/* A copy with room for one more of each. */
static struct core_table *table_copy(const struct core_table *old) {
    struct core_table *table = calloc(1, sizeof *table);
    if (!table) {
        return NULL;
    }
    uint32_t regions = old ? old->region_count : 0, bells = old ? old->doorbell_count : 0;
    table->regions = calloc(regions + 1, sizeof *table->regions);
    table->doorbells = calloc(bells + 1, sizeof *table->doorbells);
    if (!table->regions || !table->doorbells) {
        table_free(table);
        return NULL;
    }
    if (regions) {
        memcpy(table->regions, old->regions, regions * sizeof *table->regions);
    }
    if (bells) {
        memcpy(table->doorbells, old->doorbells, bells * sizeof *table->doorbells);
    }
    table->region_count = regions;
    table->doorbell_count = bells;
    return table;
}

/* Put `table` in force and free the one before as soon as no vCPU thread reads it (they never block meanwhile). */
static void table_replace(core_machine *m, int space, struct core_table *table) {
    struct core_table *old = atomic_exchange(&m->tables[space], table);
    for (uint32_t i = 0; i < m->thread_count; i++) {
        while (atomic_load(&m->threads[i]->hazard) == old && old) {
            sched_yield();
        }
    }
    table_free(old);
}

void core_tables_free(core_machine *m) {
    for (int space = 0; space < 2; space++) {
        struct core_table *table = atomic_exchange(&m->tables[space], NULL);
        for (uint32_t i = 0; table && i < table->region_count; i++) {
            free(table->regions[i].hits);
        }
        table_free(table);
    }
}

static int add_region(core_machine *m, int space, const struct core_region *region) {
    const struct core_table *old = atomic_load(&m->tables[space]);
    uint32_t at = 0;
    for (; old && at < old->region_count && old->regions[at].base < region->base; at++) {
    }
    if ((at > 0 && old->regions[at - 1].last >= region->base) ||
        (old && at < old->region_count && old->regions[at].base <= region->last)) {
        return -EEXIST;
    }
    if (old && old->region_count >= MAX_ENTRIES) {
        return -ENOSPC;
    }
    struct core_table *table = table_copy(old);
    if (!table) {
        return -ENOMEM;
    }
    memmove(table->regions + at + 1, table->regions + at, (table->region_count - at) * sizeof *region);
    table->regions[at] = *region;
    table->region_count++;
    table_replace(m, space, table);
    return 0;
}

int core_map(core_machine *m, int space, uint64_t base, uint64_t size, core_chip *chip, uint32_t tag) {
    if (size == 0 || base + (size - 1) < base || space < 0 || space > 1 ||
        (space == CORE_PIO && base + size > 0x10000)) {
        return -EINVAL;
    }
    struct core_region region = {.base = base, .last = base + (size - 1), .chip = chip, .tag = tag};
    region.hits = calloc(2, sizeof *region.hits);
    if (!region.hits) {
        return -ENOMEM;
    }
    chip->machine = m;
    pthread_mutex_lock(&m->bus);
    int rc = add_region(m, space, &region);
    pthread_mutex_unlock(&m->bus);
    if (rc < 0) {
        free(region.hits);
    }
    return rc;
}

int core_unmap(core_machine *m, int space, uint64_t base) {
    if (space < 0 || space > 1) {
        return -EINVAL;
    }
    int rc = -ENOENT;
    pthread_mutex_lock(&m->bus);
    const struct core_table *old = atomic_load(&m->tables[space]);
    for (uint32_t i = 0; old && i < old->region_count; i++) {
        if (old->regions[i].base != base) {
            continue;
        }
        struct core_table *table = table_copy(old);
        rc = table ? 0 : -ENOMEM;
        if (table) {
            _Atomic uint64_t *hits = table->regions[i].hits;
            table->region_count--;
            memmove(table->regions + i, table->regions + i + 1, (table->region_count - i) * sizeof *table->regions);
            table_replace(m, space, table);
            free(hits);
        }
        break;
    }
    pthread_mutex_unlock(&m->bus);
    return rc;
}

uint64_t core_region_hits(core_machine *m, int space, uint64_t base, int is_write) {
    uint64_t hits = 0, gap;
    pthread_mutex_lock(&m->bus);
    const struct core_region *region = core_table_find(atomic_load(&m->tables[space & 1]), base, &gap);
    if (region) {
        hits = atomic_load_explicit(&region->hits[is_write != 0], memory_order_relaxed);
    }
    pthread_mutex_unlock(&m->bus);
    return hits;
}

static bool same_bell(const struct core_doorbell *a, const struct core_doorbell *b) {
    return a->address == b->address && a->size == b->size && a->match == b->match && a->value == b->value;
}

static int change_bell(core_machine *m, int space, const struct core_doorbell *bell, bool add) {
    struct core_table *table = table_copy(atomic_load(&m->tables[space]));
    if (!table) {
        return -ENOMEM;
    }
    uint32_t at = 0, count = table->doorbell_count;
    for (; at < count && table->doorbells[at].address < bell->address; at++) {
    }
    uint32_t same = at;
    for (; same < count && !same_bell(&table->doorbells[same], bell); same++) {
    }
    int rc = add ? (same < count ? -EEXIST : count >= MAX_ENTRIES ? -ENOSPC : 0) : (same < count ? 0 : -ENOENT);
    if (rc < 0) {
        table_free(table);
        return rc;
    }
    if (add) {
        memmove(table->doorbells + at + 1, table->doorbells + at, (count - at) * sizeof *bell);
        table->doorbells[at] = *bell;
        table->doorbell_count++;
    } else {
        memmove(table->doorbells + same, table->doorbells + same + 1, (count - same - 1) * sizeof *bell);
        table->doorbell_count--;
    }
    table_replace(m, space, table);
    return 0;
}

static int doorbell(core_machine *m, int space, const struct core_doorbell *bell, bool add) {
    if (space < 0 || space > 1 || (bell->size & (bell->size - 1)) || bell->size > CORE_ACCESS_MAX) {
        return -EINVAL;
    }
    pthread_mutex_lock(&m->bus);
    int rc = change_bell(m, space, bell, add);
    pthread_mutex_unlock(&m->bus);
    if (rc == 0 && m->accel && m->accel->doorbell) {
        rc = m->accel->doorbell(m, space, bell->address, bell->size, bell->fd, bell->match, bell->value, add);
        if (rc < 0 && add) {
            pthread_mutex_lock(&m->bus);
            change_bell(m, space, bell, false);
            pthread_mutex_unlock(&m->bus);
        }
    }
    return rc;
}

int core_doorbell_add(core_machine *m, int space, uint64_t address, uint32_t size, int fd, int match, uint64_t value) {
    struct core_doorbell bell = {.address = address, .value = value, .size = size, .fd = fd, .match = match != 0};
    return doorbell(m, space, &bell, true);
}

int core_doorbell_remove(core_machine *m, int space, uint64_t address, uint32_t size, int fd, int match,
                         uint64_t value) {
    struct core_doorbell bell = {.address = address, .value = value, .size = size, .fd = fd, .match = match != 0};
    return doorbell(m, space, &bell, false);
}
