/* priv.h: what the engine's own files share; no guest architecture in here.
 *
 * Not for callers (they have aioemu_engine.h) nor for the emulator's files (they have hooks.h).
 */
#ifndef AIOEMU_PRIV_H
#define AIOEMU_PRIV_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "aioemu_engine.h"

struct uc_struct;

/* Per 4 KiB of RAM; every access is atomic, other threads read and set bits. */
#define AIOEMU_PAGE_CODE    1u /* has translations: writes take the slow path */
#define AIOEMU_PAGE_DIRTY   2u /* written since the log was fetched */
#define AIOEMU_PAGE_PENDING 4u /* a device wrote it: drop its translations */

/* aioemu_vcpu.events */
#define AIOEMU_EVENT_KICK   1u
#define AIOEMU_EVENT_IRQ    2u
#define AIOEMU_EVENT_NMI    4u
#define AIOEMU_EVENT_DMA    8u
#define AIOEMU_EVENT_INJECT 16u
#define AIOEMU_EVENT_LINES  32u /* aioemu_vcpu.lines changed since the CPU looked */

#define AIOEMU_PAGE_SHIFT 12
#define AIOEMU_PAGE_BYTES 4096u

/* Pages waiting for invalidation, found without a scan; a bound on the work of the common case only. */
#define AIOEMU_DMA_SLOTS 64u

struct aioemu_vcpu {
    uint32_t events; /* atomic */
    uint32_t lines;  /* atomic; AArch64: bit 0 IRQ, bit 1 FIQ */
    int index;
    volatile uint16_t *leave; /* all ones: leave at the next translation block */
    struct aioemu_engine *engine;
    void *cpu; /* CPUState of the target */
    void *opaque;
    uintptr_t retaddr; /* inside a callback: the translated code that led here, or 0 */
    int translating;   /* instructions the block under way may have, or 0 */
    bool inside;       /* in the CPU loop: flags and PC are in translated form */
    bool shutdown;
    uint8_t inject_vector;
    uint8_t inject_flags;
    uint32_t inject_error;
};

struct aioemu_ram {
    uint64_t gpa, size;
    uint64_t ram_addr; /* in the emulator's own RAM numbering */
    uint8_t *host;
    uint8_t *pages; /* AIOEMU_PAGE_* */
};

/* Never changed once published; readers hold no lock. Sorted by gpa. */
struct aioemu_map {
    size_t count;
    struct aioemu_map *retired; /* next in the list of those that readers may still hold */
    uint8_t *drop;              /* pages of the region that went away with this map */
    struct aioemu_ram ram[];
};

struct aioemu_ops {
    int (*memory_init)(struct aioemu_engine *engine);
    int (*map)(struct aioemu_engine *engine, struct aioemu_ram *ram, uint32_t flags);
    int (*unmap)(struct aioemu_engine *engine, const struct aioemu_ram *ram);
    void (*reprotect)(struct aioemu_engine *engine, const uint8_t *host, uint64_t size);
    int (*vcpu_create)(struct aioemu_vcpu *vcpu);
    void (*vcpu_free)(struct aioemu_vcpu *vcpu);
    void (*run)(struct aioemu_vcpu *vcpu, struct aioemu_exit *exit);
    bool (*recover)(struct aioemu_vcpu *vcpu);
    int (*has_work)(struct aioemu_vcpu *vcpu);
    int (*step)(struct aioemu_vcpu *vcpu, int on);
    int (*breakpoint)(struct aioemu_vcpu *vcpu, uint64_t gva, int insert);
    int (*translate)(struct aioemu_vcpu *vcpu, uint64_t gva, uint64_t *gpa);
};

struct aioemu_engine {
    struct uc_struct *uc;
    const struct aioemu_ops *ops;
    struct aioemu_callbacks cb;
    uint32_t arch;
    bool max_model, yield_on_pause;
    uint64_t counter_hz;
    int vcpu_count;
    struct aioemu_vcpu *vcpus[AIOEMU_MAX_VCPUS];
    struct aioemu_vcpu *running; /* atomic; whose run has the engine */
    bool dirty_log;              /* atomic */
    const char *dead;            /* why nothing may run any more */
    void *mmio;                  /* the region behind everything that is not RAM */

    struct aioemu_map *map; /* atomic */
    struct aioemu_map *retired;
    uint32_t readers_in, readers_out;     /* atomic; map readers that entered and left */
    uint64_t dma_slots[AIOEMU_DMA_SLOTS]; /* atomic; page number + 1, or 0 */
    uint32_t dma_overflow;                /* atomic; some pages are marked only PENDING */
};

/* catch.c: an abort() or failed assertion of the emulator ends the operation, not the process. */
struct aioemu_catch {
    sigjmp_buf env;
    const char *what;
    struct aioemu_catch *outer;
};
void aioemu_catch_push(struct aioemu_catch *frame);
void aioemu_catch_pop(struct aioemu_catch *frame);

/* api.c */
void aioemu_raise(struct aioemu_vcpu *vcpu, uint32_t event);

/* dma.c */
const struct aioemu_ram *aioemu_map_find(const struct aioemu_map *map, uint64_t gpa);
void aioemu_map_publish(struct aioemu_engine *engine, struct aioemu_map *next, uint8_t *drop);
void aioemu_map_free(struct aioemu_engine *engine);
void aioemu_queue_page(struct aioemu_engine *engine, uint8_t *page, uint64_t number);

extern const struct aioemu_ops aioemu_ops_x86_64, aioemu_ops_aarch64;

#endif
