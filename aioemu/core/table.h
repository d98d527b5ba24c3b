/* table.h: the bus as the exit path sees it: immutable tables, replaced whole and retired when no thread reads them. */
#pragma once

#include "core.h"

struct core_region {
    uint64_t base, last; /* inclusive */
    struct core_chip *chip;
    uint32_t tag;
    _Atomic uint64_t *hits; /* [0] reads, [1] writes; lives as long as the region is mapped */
};

/* A write that only signals an eventfd. Tables are sorted by base, doorbells by address. */
struct core_doorbell {
    uint64_t address, value;
    uint32_t size; /* 0 = any */
    int fd;
    bool match;
};

struct core_table {
    uint32_t region_count, doorbell_count;
    struct core_region *regions;
    struct core_doorbell *doorbells;
};

/* The region that holds `address`, or NULL; *gap gets the number of bytes to the next region when there is none. */
const struct core_region *core_table_find(const struct core_table *table, uint64_t address, uint64_t *gap);
const struct core_doorbell *core_table_bell(const struct core_table *table, uint64_t address, uint32_t size,
                                            uint64_t value);
/* Read a table safely on a vCPU thread: between the two calls it is not freed. Do not block in between. */
const struct core_table *core_table_hold(struct core_thread *t, int space);
void core_table_release(struct core_thread *t);
