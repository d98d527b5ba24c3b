/* dma.c: tell the engine what devices wrote, from any thread, and keep the dirty log.
 *
 * Lock-free: a device marks the pages that have translations PENDING and wakes the vCPUs, which drop the translations
 * before their next block. The race with a translation under way is closed by the reader counters: the translator
 * looks at readers_in before it reads the code and after it has marked the page CODE (aioemu_dma_recheck).
 */
#include "aioemu/priv.h"

#include <errno.h>
#include <stdlib.h>

static const struct aioemu_map *enter(struct aioemu_engine *engine) {
    __atomic_fetch_add(&engine->readers_in, 1, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&engine->map, __ATOMIC_SEQ_CST);
}

static void leave(struct aioemu_engine *engine) {
    __atomic_fetch_add(&engine->readers_out, 1, __ATOMIC_SEQ_CST);
}

/* The region that holds gpa, or the first one above it, or NULL. */
const struct aioemu_ram *aioemu_map_find(const struct aioemu_map *map, uint64_t gpa) {
    size_t low = 0, high = map->count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct aioemu_ram *ram = &map->ram[middle];

        if (gpa < ram->gpa || gpa - ram->gpa < ram->size) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low < map->count ? &map->ram[low] : NULL;
}

static void free_retired(struct aioemu_engine *engine) {
    while (engine->retired) {
        struct aioemu_map *map = engine->retired;

        engine->retired = map->retired;
        free(map->drop);
        free(map);
    }
}

/* Put (next) in force. (drop) goes with the old map once nobody can be reading that. */
void aioemu_map_publish(struct aioemu_engine *engine, struct aioemu_map *next, uint8_t *drop) {
    struct aioemu_map *old = engine->map;

    __atomic_store_n(&engine->map, next, __ATOMIC_SEQ_CST);
    old->drop = drop;
    old->retired = engine->retired;
    engine->retired = old;
    if (__atomic_load_n(&engine->readers_out, __ATOMIC_SEQ_CST) ==
        __atomic_load_n(&engine->readers_in, __ATOMIC_SEQ_CST)) {
        free_retired(engine);
    }
}

void aioemu_map_free(struct aioemu_engine *engine) {
    for (size_t i = 0; engine->map && i < engine->map->count; i++) {
        free(engine->map->ram[i].pages);
    }
    free(engine->map);
    free_retired(engine);
}

/* Have the translations of page (number) dropped before the next block. Any thread. */
void aioemu_queue_page(struct aioemu_engine *engine, uint8_t *page, uint64_t number) {
    uint64_t *slot = &engine->dma_slots[number % AIOEMU_DMA_SLOTS];
    uint64_t expected = 0;

    __atomic_fetch_or(page, AIOEMU_PAGE_PENDING, __ATOMIC_SEQ_CST);
    if (!__atomic_compare_exchange_n(slot, &expected, number + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) &&
        expected != number + 1) {
        __atomic_store_n(&engine->dma_overflow, 1, __ATOMIC_SEQ_CST);
    }
    for (int i = 0; i < __atomic_load_n(&engine->vcpu_count, __ATOMIC_ACQUIRE); i++) {
        aioemu_raise(engine->vcpus[i], AIOEMU_EVENT_DMA);
    }
}

static void written(struct aioemu_engine *engine, const struct aioemu_ram *ram, uint64_t first, uint64_t last) {
    bool log = __atomic_load_n(&engine->dirty_log, __ATOMIC_RELAXED);

    for (uint64_t i = first; i <= last; i++) {
        uint8_t *page = &ram->pages[i];

        if (log) {
            __atomic_fetch_or(page, AIOEMU_PAGE_DIRTY, __ATOMIC_RELAXED);
        }
        if (__atomic_load_n(page, __ATOMIC_SEQ_CST) & AIOEMU_PAGE_CODE) {
            aioemu_queue_page(engine, page, (ram->ram_addr >> AIOEMU_PAGE_SHIFT) + i);
        }
    }
}

/* Call (what) for the pages of each region that [gpa, gpa+len) touches, until it returns nonzero. */
static int each_region(struct aioemu_engine *engine, uint64_t gpa, uint64_t len,
                       int (*what)(struct aioemu_engine *, const struct aioemu_ram *, uint64_t, uint64_t)) {
    const struct aioemu_map *map = enter(engine);
    uint64_t end = len > UINT64_MAX - gpa ? UINT64_MAX : gpa + len;
    int result = 0;

    while (gpa < end && !result) {
        const struct aioemu_ram *ram = aioemu_map_find(map, gpa);
        uint64_t stop;

        if (!ram || ram->gpa >= end) {
            break;
        }
        gpa = gpa > ram->gpa ? gpa : ram->gpa;
        stop = end - ram->gpa < ram->size ? end - ram->gpa : ram->size;
        result = what(engine, ram, (gpa - ram->gpa) >> AIOEMU_PAGE_SHIFT, (stop - 1) >> AIOEMU_PAGE_SHIFT);
        gpa = ram->gpa + stop;
    }
    leave(engine);
    return result;
}

static int mark_written(struct aioemu_engine *engine, const struct aioemu_ram *ram, uint64_t first, uint64_t last) {
    written(engine, ram, first, last);
    return 0;
}

static int find_code(struct aioemu_engine *engine, const struct aioemu_ram *ram, uint64_t first, uint64_t last) {
    (void)engine;
    for (uint64_t i = first; i <= last; i++) {
        if (__atomic_load_n(&ram->pages[i], __ATOMIC_RELAXED) & AIOEMU_PAGE_CODE) {
            return 1;
        }
    }
    return 0;
}

void aioemu_engine_dma_written(aioemu_engine *engine, uint64_t gpa, uint64_t len) {
    each_region(engine, gpa, len, mark_written);
}

int aioemu_engine_has_code(aioemu_engine *engine, uint64_t gpa, uint64_t len) {
    return each_region(engine, gpa, len, find_code);
}

int aioemu_engine_dirty_log_start(aioemu_engine *engine) {
    for (size_t i = 0; i < engine->map->count; i++) {
        const struct aioemu_ram *ram = &engine->map->ram[i];

        for (uint64_t page = 0; page < ram->size >> AIOEMU_PAGE_SHIFT; page++) {
            __atomic_fetch_and(&ram->pages[page], (uint8_t)~AIOEMU_PAGE_DIRTY, __ATOMIC_RELAXED);
        }
        __atomic_store_n(&engine->dirty_log, true, __ATOMIC_SEQ_CST);
        engine->ops->reprotect(engine, ram->host, ram->size);
    }
    __atomic_store_n(&engine->dirty_log, true, __ATOMIC_SEQ_CST);
    return 0;
}

void aioemu_engine_dirty_log_stop(aioemu_engine *engine) {
    __atomic_store_n(&engine->dirty_log, false, __ATOMIC_SEQ_CST);
}

int aioemu_engine_dirty_log_fetch(aioemu_engine *engine, uint64_t gpa, uint64_t size, uint64_t *bitmap) {
    const struct aioemu_ram *ram = aioemu_map_find(engine->map, gpa);
    uint64_t first, found = 0;

    if (!engine->dirty_log || (gpa | size) % AIOEMU_PAGE_BYTES) {
        return -EINVAL;
    }
    if (!ram || gpa < ram->gpa || size > ram->size - (gpa - ram->gpa)) {
        return -ENOENT;
    }
    first = (gpa - ram->gpa) >> AIOEMU_PAGE_SHIFT;
    for (uint64_t i = 0; i < size >> AIOEMU_PAGE_SHIFT; i++) {
        uint8_t *page = &ram->pages[first + i];

        if ((__atomic_load_n(page, __ATOMIC_RELAXED) & AIOEMU_PAGE_DIRTY) &&
            (__atomic_fetch_and(page, (uint8_t)~AIOEMU_PAGE_DIRTY, __ATOMIC_SEQ_CST) & AIOEMU_PAGE_DIRTY)) {
            bitmap[i / 64] |= UINT64_C(1) << (i % 64);
            found++;
        }
    }
    if (found) {
        engine->ops->reprotect(engine, ram->host + (gpa - ram->gpa), size);
    }
    return 0;
}
