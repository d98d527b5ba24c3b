/* tcg_stock.c: engine and vCPUs on a stock Unicorn: memory map, running, requests. See tcg_stock.h for what it is. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tcg_stock.h"

/* Values of unicorn.h, version 2.1. */
enum {
    UC_ARCH_X86 = 4,
    UC_MODE_64 = 8,
    UC_CPU_X86_NEHALEM = 15,
    UC_TLB_CPU = 0,
    UC_PROT_ALL = 7,
    CTL_CPU_MODEL = 1140850695,
    CTL_TLB_TYPE = 1140850700,
    CTL_USE_EXITS = 1140850692,
    CTL_FLUSH_TB = 1073741834,
    CTL_FLUSH_TLB = 1073741835,
    CTL_BUFFER_SIZE = 1140850701,
};

static struct stock *stock_of(aioemu_engine *engine) {
    return (struct stock *)engine;
}

static struct stock_vcpu *vcpu_of(aioemu_vcpu *vcpu) {
    return (struct stock_vcpu *)vcpu;
}

/* ---- whose state is where ----------------------------------------------------------------------------------------- */

uint64_t stock_reg(struct stock_vcpu *v, int reg) {
    uint64_t value = 0;
    v->stock->api.reg_read(v->stock->uc, reg, &value);
    return value;
}

void stock_fetch(struct stock_vcpu *v) {
    v->stock->api.context_save(v->stock->uc, v->context);
}

void stock_store(struct stock_vcpu *v) {
    v->stock->api.context_restore(v->stock->uc, v->context);
}

void stock_load(struct stock_vcpu *v) {
    struct stock *stock = v->stock;
    if (stock->loaded == v) {
        return;
    }
    if (stock->loaded) {
        stock_fetch(stock->loaded);
    }
    stock_store(v);
    stock->loaded = v;
    stock->api.ctl(stock->uc, CTL_FLUSH_TLB);
}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

static uint64_t hole_read(uc_engine *uc, uint64_t offset, unsigned size, void *data) {
    const struct stock_hole *hole = data;
    const struct aioemu_callbacks *cb = &hole->stock->cb;
    (void)uc;
    return cb->mmio_read ? cb->mmio_read(hole->stock->loaded->opaque, hole->base + offset, size) : UINT64_MAX;
}

static void hole_write(uc_engine *uc, uint64_t offset, unsigned size, uint64_t value, void *data) {
    const struct stock_hole *hole = data;
    const struct aioemu_callbacks *cb = &hole->stock->cb;
    (void)uc;
    if (cb->mmio_write) {
        cb->mmio_write(hole->stock->loaded->opaque, hole->base + offset, size, value);
    }
}

static void add_hole(struct stock *stock, uint64_t base, uint64_t end) {
    struct stock_hole *hole = &stock->hole[stock->hole_count];
    if (base < end) {
        *hole = (struct stock_hole){.stock = stock, .base = base, .size = end - base};
        if (stock->api.mmio_map(stock->uc, base, end - base, hole_read, hole, hole_write, hole) == 0) {
            stock->hole_count++;
        }
    }
}

static void drop_holes(struct stock *stock) {
    while (stock->hole_count) {
        const struct stock_hole *hole = &stock->hole[--stock->hole_count];
        stock->api.mem_unmap(stock->uc, hole->base, hole->size);
    }
}

/* Everything that is not RAM is a device: an access to nothing would end the emulation. */
static void fill_holes(struct stock *stock) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < stock->ram_count; i++) {
        add_hole(stock, at, stock->ram[i].gpa);
        at = stock->ram[i].gpa + stock->ram[i].size;
    }
    add_hole(stock, at, 1ull << STOCK_PHYSICAL_BITS);
    stock->remap = false;
}

static int stock_map(aioemu_engine *engine, uint64_t gpa, uint64_t size, void *host, uint32_t flags) {
    struct stock *stock = stock_of(engine);
    uint32_t at = 0;
    (void)flags; /* read-only memory is written all the same */
    if (stock->ram_count == STOCK_MAX_RAM || gpa + size > 1ull << STOCK_PHYSICAL_BITS || gpa + size < gpa) {
        return -ENOSPC;
    }
    drop_holes(stock);
    stock->remap = true;
    if (stock->api.mem_map_ptr(stock->uc, gpa, size, UC_PROT_ALL, host)) {
        return -EINVAL;
    }
    for (; at < stock->ram_count && stock->ram[at].gpa < gpa; at++) {
    }
    memmove(&stock->ram[at + 1], &stock->ram[at], (stock->ram_count - at) * sizeof *stock->ram);
    stock->ram[at] = (struct stock_ram){.gpa = gpa, .size = size, .host = host};
    stock->ram_count++;
    return 0;
}

static int stock_unmap(aioemu_engine *engine, uint64_t gpa, uint64_t size) {
    struct stock *stock = stock_of(engine);
    for (uint32_t i = 0; i < stock->ram_count; i++) {
        if (stock->ram[i].gpa == gpa && stock->ram[i].size == size) {
            drop_holes(stock);
            stock->remap = true;
            stock->api.mem_unmap(stock->uc, gpa, size);
            stock->ram_count--;
            memmove(&stock->ram[i], &stock->ram[i + 1], (stock->ram_count - i) * sizeof *stock->ram);
            return 0;
        }
    }
    return -ENOENT;
}

static void stock_dma_written(aioemu_engine *engine, uint64_t gpa, uint64_t len) {
    struct stock *stock = stock_of(engine);
    (void)gpa;
    (void)len;
    atomic_store(&stock->stale, true);
    for (uint32_t i = 0; i < stock->vcpu_count; i++) {
        atomic_fetch_or(&stock->vcpu[i]->events, STOCK_KICK);
    }
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

static bool can_interrupt(struct stock_vcpu *v) {
    return (stock_reg(v, UC_REG_RFLAGS) & 0x200) && !(*env32(v, ENV_HFLAGS) & HF_SHADOW);
}

/* Deliver what can be delivered now. True if something was. */
static bool take_events(struct stock_vcpu *v) {
    uint32_t events = atomic_load(&v->events);
    stock_fetch(v);
    if ((events & STOCK_NMI) && !(*env32(v, ENV_HFLAGS2) & HF2_NMI)) {
        atomic_fetch_and(&v->events, ~(uint32_t)STOCK_NMI);
        *env32(v, ENV_HFLAGS2) |= HF2_NMI;
        stock_deliver(v, 2, CAUSE_EXTERNAL, 0);
    } else if ((events & STOCK_IRQ) && can_interrupt(v)) {
        atomic_fetch_and(&v->events, ~(uint32_t)STOCK_IRQ);
        int vector = v->stock->cb.interrupt(v->opaque);
        if (vector < 0) {
            return false;
        }
        stock_deliver(v, (uint8_t)vector, CAUSE_EXTERNAL, 0);
    } else {
        return false;
    }
    v->halted = false;
    stock_store(v);
    return true;
}

static void refresh(struct stock *stock) {
    if (stock->remap) {
        fill_holes(stock);
    }
    if (atomic_exchange(&stock->stale, false)) {
        stock->api.ctl(stock->uc, CTL_FLUSH_TB);
    }
}

/* 0, or why the run ends. */
static uint32_t run_once(struct stock_vcpu *v) {
    struct stock *stock = v->stock;
    if (atomic_fetch_and(&v->events, ~(uint32_t)STOCK_KICK) & STOCK_KICK) {
        return AIOEMU_EXIT_KICK;
    }
    if (v->shutdown || take_events(v)) {
        return v->shutdown ? AIOEMU_EXIT_SHUTDOWN : 0;
    }
    if (v->halted) {
        return AIOEMU_EXIT_HALT;
    }
    refresh(stock);
    stock->stopping = stock->spun = false;
    int error = stock->api.emu_start(stock->uc, *env64(v, ENV_RIP), 0, 0, 0);
    if (v->shutdown || error) {
        v->shutdown = true; /* code in no memory: the library cannot go on */
        return AIOEMU_EXIT_SHUTDOWN;
    }
    v->halted = !stock->stopping;
    return 0;
}

static int stock_run(aioemu_vcpu *vcpu, struct aioemu_exit *out) {
    struct stock_vcpu *v = vcpu_of(vcpu);
    *out = (struct aioemu_exit){0};
    stock_load(v);
    while (!out->reason) {
        out->reason = run_once(v);
    }
    return 0;
}

static void stock_kick(aioemu_vcpu *vcpu) {
    atomic_fetch_or(&vcpu_of(vcpu)->events, STOCK_KICK);
}

static void stock_request_interrupt(aioemu_vcpu *vcpu) {
    atomic_fetch_or(&vcpu_of(vcpu)->events, STOCK_IRQ);
}

static void stock_request_nmi(aioemu_vcpu *vcpu) {
    atomic_fetch_or(&vcpu_of(vcpu)->events, STOCK_NMI);
}

/* A halted vCPU's IF is in its image, and nobody changes it meanwhile. */
static int stock_has_work(aioemu_vcpu *vcpu) {
    struct stock_vcpu *v = vcpu_of(vcpu);
    uint32_t events = atomic_load(&v->events);
    if (v->shutdown || !v->halted) {
        return !v->shutdown;
    }
    return (events & STOCK_NMI) || ((events & STOCK_IRQ) && (*env64(v, ENV_EFLAGS) & 0x200));
}

static int stock_set_step(aioemu_vcpu *vcpu, int on) {
    (void)vcpu;
    return on ? -ENOTSUP : 0;
}

static int stock_breakpoint(aioemu_vcpu *vcpu, uint64_t gva, int insert) {
    (void)vcpu;
    (void)gva;
    return insert ? -ENOTSUP : 0;
}

/* ---- making and freeing ----------------------------------------------------------------------------------------------- */

static void stock_destroy(aioemu_engine *engine) {
    struct stock *stock = stock_of(engine);
    for (uint32_t i = 0; i < stock->vcpu_count; i++) {
        stock->api.context_free(stock->vcpu[i]->context);
        free(stock->vcpu[i]);
    }
    if (stock->uc) {
        stock->api.close(stock->uc);
    }
    free(stock);
}

/* The library must be the one whose layout is written in tcg_stock.h. */
static int probe(struct stock_vcpu *v) {
    const uint64_t mark = 0x1122334455667788;
    int registers[] = {39, 41}; /* RDI, RIP: unicorn.h's numbers */
    uint32_t offsets[] = {ENV_GPR + 7 * 8, ENV_RIP};
    for (int i = 0; i < 2; i++) {
        uint64_t value = mark + (uint64_t)i;
        v->stock->api.reg_write(v->stock->uc, registers[i], &value);
        stock_fetch(v);
        if (*env64(v, offsets[i]) != value) {
            return -ELIBBAD;
        }
    }
    return *env32(v, ENV_OLD_EXCEPTION) == UINT32_MAX ? 0 : -ELIBBAD;
}

static int stock_vcpu_create(aioemu_engine *engine, void *opaque, aioemu_vcpu **vcpu) {
    struct stock *stock = stock_of(engine);
    if (stock->vcpu_count == INTC_MAX_CPUS) {
        return -ENOSPC;
    }
    struct stock_vcpu *v = calloc(1, sizeof *v);
    if (!v || stock->api.context_alloc(stock->uc, &v->context)) {
        free(v);
        return -ENOMEM;
    }
    v->stock = stock;
    v->opaque = opaque;
    v->env = (uint8_t *)v->context + STOCK_ENV_AT;
    if (stock->loaded) {
        stock_fetch(stock->loaded);
    }
    stock_fetch(v);
    stock->vcpu[stock->vcpu_count++] = v;
    stock->loaded = v;
    *vcpu = (aioemu_vcpu *)v;
    int rc = probe(v);
    return rc < 0 ? rc : stock_reset(*vcpu, 0);
}

static int configure(struct stock *stock, const struct aioemu_engine_config *config) {
    struct stock_api *api = &stock->api;
    int error = api->open(UC_ARCH_X86, UC_MODE_64, &stock->uc);
    if (!error) {
        error = api->ctl(stock->uc, CTL_CPU_MODEL, UC_CPU_X86_NEHALEM);
    }
    if (!error) {
        error = api->ctl(stock->uc, CTL_BUFFER_SIZE, config->code_cache_bytes);
    }
    if (!error) {
        error = api->ctl(stock->uc, CTL_TLB_TYPE, UC_TLB_CPU);
    }
    if (!error) {
        error = api->ctl(stock->uc, CTL_USE_EXITS, 1);
    }
    return error || api->context_size(stock->uc) != STOCK_CONTEXT ? -ELIBBAD : stock_hooks(stock);
}

/* Names as the library exports them, in the order of struct stock_api. */
static const char *const names[] = {
    "uc_open",         "uc_close",         "uc_ctl",          "uc_reg_read",     "uc_reg_write",
    "uc_emu_start",    "uc_emu_stop",      "uc_hook_add",     "uc_mem_map_ptr",  "uc_mem_unmap",
    "uc_mmio_map",     "uc_context_alloc", "uc_context_free", "uc_context_save", "uc_context_restore",
    "uc_context_size",
};

static int resolve(void *library, struct stock_api *api) {
    _Static_assert(sizeof *api == sizeof names, "one name for each member");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *symbol = dlsym(library, names[i]);
        if (!symbol) {
            return -ELIBBAD;
        }
        memcpy((char *)api + i * sizeof symbol, &symbol, sizeof symbol);
    }
    return 0;
}

int stock_create(void *library, const struct aioemu_engine_config *config, aioemu_engine **engine) {
    struct stock *stock = calloc(1, sizeof *stock);
    if (!stock) {
        return -ENOMEM;
    }
    stock->cb = config->callbacks;
    stock->yields = config->yield_on_pause;
    stock->remap = true;
    int rc = resolve(library, &stock->api);
    if (rc == 0) {
        rc = configure(stock, config);
    }
    if (rc < 0) {
        stock_destroy((aioemu_engine *)stock);
        return rc;
    }
    *engine = (aioemu_engine *)stock;
    return 0;
}

int stock_open(void *library, struct tcg_api *api) {
    struct stock_api found;
    *api = (struct tcg_api){
        .is_stock = true,
        .engine_destroy = stock_destroy,
        .engine_map = stock_map,
        .engine_unmap = stock_unmap,
        .engine_dma_written = stock_dma_written,
        .vcpu_create = stock_vcpu_create,
        .vcpu_run = stock_run,
        .vcpu_kick = stock_kick,
        .vcpu_request_interrupt = stock_request_interrupt,
        .vcpu_request_nmi = stock_request_nmi,
        .vcpu_has_work = stock_has_work,
        .vcpu_set_step = stock_set_step,
        .vcpu_breakpoint = stock_breakpoint,
        .vcpu_translate = stock_translate,
        .x86_get_state = stock_get_state,
        .x86_set_state = stock_set_state,
        .x86_reset = stock_reset,
        .x86_sipi = stock_sipi,
    };
    return resolve(library, &found);
}
