/* memory.c: page tables beyond the first 4 GiB; plain stores at level 3, since all memory is mapped for it. */
#include "guest.h"

#define TABLES       16 /* enough for eight distant regions at once */
#define PRESENT_USER 0x27
#define PAGE_2M_USER 0xe7

extern uint64_t pml4[];
static uint64_t pool[TABLES][512] __attribute__((aligned(4096)));
static uint32_t pool_used;

static uint64_t *below(uint64_t *entry) {
    if (!(*entry & 1)) {
        if (pool_used == TABLES) {
            (void)fail("no page table left");
            leave(1);
        }
        *entry = (uint64_t)pool[pool_used++] | PRESENT_USER;
    }
    return (uint64_t *)(*entry & 0x000ffffffffff000);
}

/* Only for addresses not mapped before: nothing is flushed. */
void map_2m(uint64_t virt, uint64_t phys) {
    uint64_t *pdpt = below(&pml4[(virt >> 39) & 511]);
    uint64_t *pd = below(&pdpt[(virt >> 30) & 511]);

    pd[(virt >> 21) & 511] = (phys & ~(uint64_t)0x1fffff) | PAGE_2M_USER;
    __asm__ volatile("" : : : "memory");
}

/* What no page table of four levels can map is left to fault. */
uint64_t reach(uint64_t phys) {
    if (phys >> 32 && !(phys >> 47)) {
        map_2m(phys, phys);
        map_2m(phys + 0x200000, phys + 0x200000);
    }
    return phys;
}
