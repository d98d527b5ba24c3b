/* tcg_stock.h: the engine's interface on a stock Unicorn 2.1.4 library, for installations without engine/.
 *
 * The stock library exports no way to deliver exceptions, to read descriptor caches or to stop exactly; what is
 * missing is done here on the image of its processor that uc_context_save gives, whose private layout is checked
 * when an engine is made. Slow but right: a memory hook keeps its code tracking sound, stops come from a block hook.
 * Not provided: single step, breakpoints, read-only memory, #GP on unknown MSRs, vector state from outside.
 */
#pragma once

#include "tcg.h"

typedef struct uc_struct uc_engine;
struct uc_context;

enum {
    STOCK_ENV_AT = 40,    /* where the processor's image begins in a context */
    STOCK_CONTEXT = 5608, /* a context's size */
    STOCK_MAX_RAM = CORE_MAX_RAM,
    STOCK_PHYSICAL_BITS = 40,

    UC_REG_RFLAGS = 253,
    UC_REG_MSR = 248,
};

struct stock_segment {
    uint32_t selector, unused;
    uint64_t base;
    uint32_t limit, flags; /* flags: the second word of a descriptor without its base and limit */
};

/* Offsets in the image (x86-64 guest, Unicorn 2.1.4 as published). */
enum stock_offset {
    ENV_GPR = 0,
    ENV_RIP = 128,
    ENV_EFLAGS = 136,
    ENV_DF = 172,
    ENV_HFLAGS = 176,
    ENV_HFLAGS2 = 180,
    ENV_SEGMENTS = 184,
    ENV_LDT = 328,
    ENV_TR = 352,
    ENV_GDT = 376,
    ENV_IDT = 400,
    ENV_CR = 424,
    ENV_EFER = 592,
    ENV_ERROR_CODE = 5384,
    ENV_IS_INT = 5388,
    ENV_OLD_EXCEPTION = 5496,
};

/* Bits of hflags and hflags2. */
enum stock_hflag {
    HF_CPL = 3,
    HF_SHADOW = 1 << 3,
    HF_CS32 = 1 << 4,
    HF_SS32 = 1 << 5,
    HF_ADDSEG = 1 << 6,
    HF_PE = 1 << 7,
    HF_LMA = 1 << 14,
    HF_CS64 = 1 << 15,
    HF_OSFXSR = 1 << 22,
    HF_SMAP = 1 << 23,
    HF2_NMI = 1 << 2,
};

enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

struct stock_api {
    int (*open)(int arch, int mode, uc_engine **uc);
    int (*close)(uc_engine *uc);
    int (*ctl)(uc_engine *uc, int control, ...);
    int (*reg_read)(uc_engine *uc, int reg, void *value);
    int (*reg_write)(uc_engine *uc, int reg, const void *value);
    int (*emu_start)(uc_engine *uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    int (*emu_stop)(uc_engine *uc);
    int (*hook_add)(uc_engine *uc, size_t *hook, int type, void *callback, void *data, uint64_t begin, uint64_t end,
                    ...);
    int (*mem_map_ptr)(uc_engine *uc, uint64_t address, uint64_t size, uint32_t perms, void *ptr);
    int (*mem_unmap)(uc_engine *uc, uint64_t address, uint64_t size);
    int (*mmio_map)(uc_engine *uc, uint64_t address, uint64_t size, void *read, void *rdata, void *write, void *wdata);
    int (*context_alloc)(uc_engine *uc, struct uc_context **context);
    int (*context_free)(struct uc_context *context);
    int (*context_save)(uc_engine *uc, struct uc_context *context);
    int (*context_restore)(uc_engine *uc, struct uc_context *context);
    size_t (*context_size)(uc_engine *uc);
};

enum stock_event { STOCK_KICK = 1, STOCK_IRQ = 2, STOCK_NMI = 4 };

struct stock;

struct stock_vcpu {
    struct stock *stock;
    void *opaque;
    struct uc_context *context;
    uint8_t *env; /* in the context */
    bool halted, shutdown;
    _Atomic uint32_t events;
};

struct stock_hole {
    struct stock *stock;
    uint64_t base, size;
};

struct stock_ram {
    uint64_t gpa, size;
    uint8_t *host;
};

struct stock {
    struct stock_api api;
    uc_engine *uc;
    struct aioemu_callbacks cb;
    struct stock_vcpu *vcpu[INTC_MAX_CPUS];
    uint32_t vcpu_count;
    struct stock_vcpu *loaded; /* whose state the library has */
    bool stopping, spun, yields;
    _Atomic bool stale;                  /* the host wrote memory: drop all translations */
    struct stock_ram ram[STOCK_MAX_RAM]; /* sorted */
    uint32_t ram_count;
    struct stock_hole hole[STOCK_MAX_RAM + 1];
    uint32_t hole_count;
    bool remap;
};

static inline uint64_t *env64(struct stock_vcpu *v, uint32_t offset) {
    return (uint64_t *)(v->env + offset);
}

static inline uint32_t *env32(struct stock_vcpu *v, uint32_t offset) {
    return (uint32_t *)(v->env + offset);
}

static inline struct stock_segment *env_segment(struct stock_vcpu *v, uint32_t offset, int n) {
    return (struct stock_segment *)(v->env + offset) + n;
}

/* tcg_stock.c */
int stock_open(void *library, struct tcg_api *api); /* -ELIBBAD: not that library */
int stock_create(void *library, const struct aioemu_engine_config *config, aioemu_engine **engine);
/* Bring the vCPU's state into the library; from it into the image; and back after a change. */
void stock_load(struct stock_vcpu *v);
void stock_fetch(struct stock_vcpu *v);
void stock_store(struct stock_vcpu *v);
uint64_t stock_reg(struct stock_vcpu *v, int reg);

/* tcg_stock_state.c */
int stock_get_state(aioemu_vcpu *vcpu, struct aioemu_x86_state *s);
int stock_set_state(aioemu_vcpu *vcpu, const struct aioemu_x86_state *s);
int stock_reset(aioemu_vcpu *vcpu, int init);
int stock_sipi(aioemu_vcpu *vcpu, uint8_t vector);

/* tcg_stock_hooks.c */
int stock_hooks(struct stock *stock);

/* tcg_stock_trap.c: the image is fresh; afterwards it is to be stored. */
enum stock_cause { CAUSE_EXCEPTION, CAUSE_SOFTWARE, CAUSE_EXTERNAL };
void stock_deliver(struct stock_vcpu *v, uint8_t vector, enum stock_cause cause, uint32_t error);
int stock_translate(aioemu_vcpu *vcpu, uint64_t gva, uint64_t *gpa);
