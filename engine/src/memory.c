/* memory.c: RAM by host pointer, the device space around it, and which pages have translations.
 *
 * A page with translations has AIOEMU_PAGE_CODE; every TLB entry that reaches its host memory, by whatever virtual
 * address, then takes the slow path for writes, which drops the translations written to. The bit goes when the last
 * translation went. Compiled once per guest architecture. The guest is not trusted; the callbacks are.
 */
#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "exec/memory.h"
#include "exec/ramlist.h"
#include "accel/tcg/translate-all.h"
#include "uc_priv.h"
#include "aioemu/hooks.h"

#include <errno.h>

#define PHYSICAL_BYTES (UINT64_C(1) << TARGET_PHYS_ADDR_SPACE_BITS) /* what page tables can name */

/* Everything that is not RAM, at its guest-physical address; a device can be anywhere. */
static uint64_t mmio_read(struct uc_struct *uc, void *opaque, hwaddr addr, unsigned size) {
    struct aioemu_engine *engine = opaque;
    struct aioemu_vcpu *vcpu = uc->cpu->aioemu;

    uint64_t value = UINT64_MAX;

    if (engine->cb.mmio_read && vcpu) {
        aioemu_begin(uc->cpu, uc->cpu->mem_io_pc);
        value = engine->cb.mmio_read(vcpu->opaque, addr, size);
        aioemu_end(uc->cpu);
    }
    return value;
}

static void mmio_write(struct uc_struct *uc, void *opaque, hwaddr addr, uint64_t value, unsigned size) {
    struct aioemu_engine *engine = opaque;
    struct aioemu_vcpu *vcpu = uc->cpu->aioemu;

    if (engine->cb.mmio_write && vcpu) {
        aioemu_begin(uc->cpu, uc->cpu->mem_io_pc);
        engine->cb.mmio_write(vcpu->opaque, addr, size, value);
        aioemu_end(uc->cpu);
    }
}

static const MemoryRegionOps mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
    .impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

int AIOEMU_FN(aioemu_memory_init)(struct aioemu_engine *engine) {
    MemoryRegion *all = g_new0(MemoryRegion, 1);

    memory_region_init_io(engine->uc, all, &mmio_ops, engine, PHYSICAL_BYTES);
    memory_region_add_subregion_overlap(engine->uc->system_memory, 0, all, -1);
    engine->mmio = all;
    return 0;
}

int AIOEMU_FN(aioemu_memory_map)(struct aioemu_engine *engine, struct aioemu_ram *ram, uint32_t flags) {
    struct uc_struct *uc = engine->uc;
    MemoryRegion *mr = g_new0(MemoryRegion, 1);

    memory_region_init_ram_ptr(uc, mr, ram->size, ram->host);
    if (!mr->ram_block) {
        g_free(mr);
        return -ENOMEM;
    }
    mr->perms = UC_PROT_ALL;
    mr->readonly = flags & AIOEMU_MEM_READONLY;
    mr->ram_block->aioemu_pages = ram->pages;
    ram->ram_addr = mr->ram_block->offset;
    memory_region_add_subregion(uc->system_memory, ram->gpa, mr);
    return 0;
}

int AIOEMU_FN(aioemu_memory_unmap)(struct aioemu_engine *engine, const struct aioemu_ram *ram) {
    struct uc_struct *uc = engine->uc;
    MemoryRegion *mr = uc->memory_mapping(uc, ram->gpa);

    if (!mr || !mr->ram_block || mr->ram_block->aioemu_pages != ram->pages) {
        return -ENOENT;
    }
    tb_invalidate_phys_range(uc, ram->ram_addr, ram->ram_addr + ram->size);
    memory_region_del_subregion(uc->system_memory, mr);
    mr->destructor(mr);
    g_free(mr);
    return 0;
}

/* Have the next write through any TLB entry for this host memory noticed, on every vCPU. */
void AIOEMU_FN(aioemu_memory_reprotect)(struct aioemu_engine *engine, const uint8_t *host, uint64_t size) {
    CPUState *cpu;

    AIOEMU_EACH_CPU(engine->uc, cpu) {
        tlb_reset_dirty(cpu, (uintptr_t)host, size);
    }
}

static RAMBlock *find_block(struct uc_struct *uc, ram_addr_t addr) {
    RAMBlock *block = uc->ram_list.mru_block;

    if (block && addr - block->offset < block->max_length) {
        return block;
    }
    RAMBLOCK_FOREACH(block) {
        if (addr - block->offset < block->max_length) {
            uc->ram_list.mru_block = block;
            return block;
        }
    }
    return NULL;
}

/* The AIOEMU_PAGE_* of the page at (addr), a number from a TLB entry or a translation: it exists. */
uint8_t *aioemu_page(struct uc_struct *uc, ram_addr_t addr) {
    RAMBlock *block = find_block(uc, addr);

    assert(block);
    return &block->aioemu_pages[(addr - block->offset) >> AIOEMU_PAGE_SHIFT];
}

void aioemu_protect_code(struct uc_struct *uc, ram_addr_t addr) {
    RAMBlock *block = find_block(uc, addr);
    uint8_t *page = aioemu_page(uc, addr);

    /* Where the bit is already set no TLB entry can be writable. */
    if (!(__atomic_fetch_or(page, AIOEMU_PAGE_CODE, __ATOMIC_SEQ_CST) & AIOEMU_PAGE_CODE)) {
        const uint8_t *host = block->host + ((addr - block->offset) & TARGET_PAGE_MASK);
        AIOEMU_FN(aioemu_memory_reprotect)(uc->aioemu, host, TARGET_PAGE_SIZE);
    }
}

void aioemu_unprotect_code(struct uc_struct *uc, ram_addr_t addr) {
    __atomic_fetch_and(aioemu_page(uc, addr), (uint8_t)~AIOEMU_PAGE_CODE, __ATOMIC_SEQ_CST);
}

/* The CPU itself wrote past its TLB: accessed and dirty bits of page tables. */
void aioemu_host_wrote(struct uc_struct *uc, RAMBlock *block, ram_addr_t offset, ram_addr_t length) {
    uint8_t *page = &block->aioemu_pages[offset >> AIOEMU_PAGE_SHIFT];

    (void)length; /* an aligned table entry */
    if (*page & AIOEMU_PAGE_CODE) {
        aioemu_queue_page(uc->aioemu, page, (block->offset + offset) >> AIOEMU_PAGE_SHIFT);
    }
    aioemu_page_mark(uc, page);
}

/* A write to read-only RAM belongs to the device behind it. */
void aioemu_rom_write(CPUState *cpu, ram_addr_t addr, uint64_t value, size_t size, uintptr_t retaddr) {
    struct aioemu_engine *engine = cpu->uc->aioemu;
    RAMBlock *block = find_block(cpu->uc, addr);

    if (engine->cb.mmio_write && block) {
        struct aioemu_vcpu *vcpu = aioemu_begin(cpu, retaddr);
        engine->cb.mmio_write(vcpu->opaque, block->mr->addr + (addr - block->offset), size, value);
        aioemu_end(cpu);
    }
}

static void drop_page(struct uc_struct *uc, ram_addr_t addr) {
    RAMBlock *block = find_block(uc, addr);

    if (block) { /* it may have been unmapped since */
        uint8_t *page = &block->aioemu_pages[(addr - block->offset) >> AIOEMU_PAGE_SHIFT];
        __atomic_fetch_and(page, (uint8_t)~AIOEMU_PAGE_PENDING, __ATOMIC_SEQ_CST);
        tb_invalidate_phys_range(uc, addr, addr + TARGET_PAGE_SIZE);
    }
}

/* Drop the translations of all pages that devices wrote. Between two blocks. */
void aioemu_apply_dma(struct aioemu_engine *engine) {
    for (unsigned i = 0; i < AIOEMU_DMA_SLOTS; i++) {
        uint64_t number = __atomic_exchange_n(&engine->dma_slots[i], 0, __ATOMIC_SEQ_CST);
        if (number) {
            drop_page(engine->uc, (number - 1) << AIOEMU_PAGE_SHIFT);
        }
    }
    if (!__atomic_exchange_n(&engine->dma_overflow, 0, __ATOMIC_SEQ_CST)) {
        return;
    }
    for (size_t i = 0; i < engine->map->count; i++) {
        const struct aioemu_ram *ram = &engine->map->ram[i];
        for (uint64_t page = 0; page < ram->size >> AIOEMU_PAGE_SHIFT; page++) {
            if (__atomic_load_n(&ram->pages[page], __ATOMIC_RELAXED) & AIOEMU_PAGE_PENDING) {
                drop_page(engine->uc, ram->ram_addr + (page << AIOEMU_PAGE_SHIFT));
            }
        }
    }
}

/* A block was made from the code at (pc) and, if not -1, at (page2). Had a device written meanwhile? Then it goes. */
void aioemu_dma_recheck(struct uc_struct *uc, uint32_t seen, ram_addr_t pc, ram_addr_t page2) {
    if (!uc->aioemu || seen == aioemu_dma_seen(uc) || pc == (ram_addr_t)-1) {
        return;
    }
    aioemu_queue_page(uc->aioemu, aioemu_page(uc, pc), pc >> AIOEMU_PAGE_SHIFT);
    if (page2 != (ram_addr_t)-1) {
        aioemu_queue_page(uc->aioemu, aioemu_page(uc, page2), page2 >> AIOEMU_PAGE_SHIFT);
    }
}
