/* hooks.h: what the emulator's patched files call; compiled once per guest architecture.
 *
 * Nothing here is reached unless the engine was made by aioemu_engine_create().
 */
#ifndef AIOEMU_HOOKS_H
#define AIOEMU_HOOKS_H

#include "aioemu/priv.h"

#define AIOEMU_GLUE2(a, b) a##b
#define AIOEMU_GLUE(a, b)  AIOEMU_GLUE2(a, b)
/* One .so holds the code of several guests: each gets its own name. */
#define AIOEMU_FN(name)    AIOEMU_GLUE(name, UNICORN_ARCH_POSTFIX)

#define aioemu_page           AIOEMU_FN(aioemu_page)
#define aioemu_protect_code   AIOEMU_FN(aioemu_protect_code)
#define aioemu_unprotect_code AIOEMU_FN(aioemu_unprotect_code)
#define aioemu_host_wrote     AIOEMU_FN(aioemu_host_wrote)
#define aioemu_rom_write      AIOEMU_FN(aioemu_rom_write)
#define aioemu_forget_memory  AIOEMU_FN(aioemu_forget_memory)
#define aioemu_restore_state  AIOEMU_FN(aioemu_restore_state)
#define aioemu_dma_recheck    AIOEMU_FN(aioemu_dma_recheck)
#define aioemu_apply_dma      AIOEMU_FN(aioemu_apply_dma)

/* memory.c */
uint8_t *aioemu_page(struct uc_struct *uc, ram_addr_t addr);
void aioemu_protect_code(struct uc_struct *uc, ram_addr_t addr);
void aioemu_unprotect_code(struct uc_struct *uc, ram_addr_t addr);
void aioemu_host_wrote(struct uc_struct *uc, RAMBlock *block, ram_addr_t offset, ram_addr_t length);
void aioemu_rom_write(CPUState *cpu, ram_addr_t addr, uint64_t value, size_t size, uintptr_t retaddr);
void aioemu_apply_dma(struct aioemu_engine *engine);
void aioemu_dma_recheck(struct uc_struct *uc, uint32_t seen, ram_addr_t pc, ram_addr_t page2);
/* exec.c */
void aioemu_forget_memory(CPUState *cpu);
/* translate-all.c */
void aioemu_restore_state(CPUState *cpu, uintptr_t host_pc);

/* core.c; the guest's part of it is in x86_cpu.c and a64_cpu.c */
int AIOEMU_FN(aioemu_handle_events)(CPUState *cpu);
bool AIOEMU_FN(aioemu_cpu_has_work)(CPUState *cpu);
int AIOEMU_FN(aioemu_cpu_create)(struct aioemu_vcpu *vcpu);
void AIOEMU_FN(aioemu_cpu_free)(CPUState *cpu);
void AIOEMU_FN(aioemu_undefined)(CPUState *cpu);
/* memory.c, for core.c's table */
int AIOEMU_FN(aioemu_memory_init)(struct aioemu_engine *engine);
int AIOEMU_FN(aioemu_memory_map)(struct aioemu_engine *engine, struct aioemu_ram *ram, uint32_t flags);
int AIOEMU_FN(aioemu_memory_unmap)(struct aioemu_engine *engine, const struct aioemu_ram *ram);
void AIOEMU_FN(aioemu_memory_reprotect)(struct aioemu_engine *engine, const uint8_t *host, uint64_t size);

static inline struct aioemu_vcpu *aioemu_vcpu_at(struct aioemu_engine *engine, int i) {
    return i < engine->vcpu_count ? engine->vcpus[i] : NULL;
}

/* The i-th CPU that shares this code cache, or NULL. Before the first vCPU exists, the one being made. */
static inline CPUState *aioemu_cpu_at(struct uc_struct *uc, int i) {
    struct aioemu_vcpu *vcpu;

    if (!uc->aioemu || !uc->aioemu->vcpu_count) {
        return i == 0 ? uc->cpu : NULL;
    }
    vcpu = aioemu_vcpu_at(uc->aioemu, i);
    return vcpu ? (CPUState *)vcpu->cpu : NULL;
}

#define AIOEMU_EACH_CPU(uc, cpu_) for (int aioemu_i = 0; ((cpu_) = aioemu_cpu_at(uc, aioemu_i)) != NULL; aioemu_i++)

static inline uint32_t aioemu_events(CPUState *cpu) {
    return __atomic_load_n(&cpu->aioemu->events, __ATOMIC_SEQ_CST);
}

/* Must a write to this page of (block) be noticed? */
static inline bool aioemu_page_is_clean(struct uc_struct *uc, RAMBlock *block, ram_addr_t offset) {
    uint8_t bits = __atomic_load_n(&block->aioemu_pages[offset >> AIOEMU_PAGE_SHIFT], __ATOMIC_RELAXED);

    return (bits & AIOEMU_PAGE_CODE) || (uc->aioemu->dirty_log && !(bits & AIOEMU_PAGE_DIRTY));
}

/* The guest writes this page. True if later writes need not be noticed. */
static inline bool aioemu_page_mark(struct uc_struct *uc, uint8_t *page) {
    if (uc->aioemu->dirty_log) {
        __atomic_fetch_or(page, AIOEMU_PAGE_DIRTY, __ATOMIC_RELAXED);
    }
    return !(__atomic_load_n(page, __ATOMIC_RELAXED) & AIOEMU_PAGE_CODE);
}

/* Before reading guest code; aioemu_dma_recheck() afterwards finds out whether a device wrote meanwhile. */
static inline uint32_t aioemu_dma_seen(struct uc_struct *uc) {
    return uc->aioemu ? __atomic_load_n(&uc->aioemu->readers_in, __ATOMIC_SEQ_CST) : 0;
}

/* A vCPU with breakpoints or in single step has translations of its own: they ask for them. */
static inline void aioemu_own_code(CPUState *cpu) {
    if (cpu->aioemu) {
        bool own = cpu->singlestep_enabled || !QTAILQ_EMPTY(&cpu->breakpoints);
        cpu->cluster_index = own ? cpu->cpu_index + 1 : 0;
    }
}

/* Around a call to the machine: where in the translated code it was made, so that the state can be had exactly. */
static inline struct aioemu_vcpu *aioemu_begin(CPUState *cpu, uintptr_t retaddr) {
    cpu->aioemu->retaddr = retaddr;
    return cpu->aioemu;
}

static inline void aioemu_end(CPUState *cpu) {
    cpu->aioemu->retaddr = 0;
    cpu->mem_io_pc = 0;
}

/* A block is being translated: an abort then is the instruction's fault, see recover() in core.c. */
static inline void aioemu_translating(CPUState *cpu, int instructions) {
    if (cpu->aioemu) {
        cpu->aioemu->translating = instructions;
    }
}

/* The guest's CPU went into shutdown. */
static inline void aioemu_shutdown(CPUState *cpu) {
    cpu->aioemu->shutdown = true;
}

#ifdef TARGET_I386
/* SDM vol. 3, 2.5 */
#    define AIOEMU_CR0_CD (1u << 30)
#    define AIOEMU_CR0_NW (1u << 29)
void AIOEMU_FN(aioemu_syscall)(CPUX86State *env, int addend, uintptr_t retaddr);
void AIOEMU_FN(aioemu_sysenter)(CPUX86State *env, int addend, uintptr_t retaddr);
void AIOEMU_FN(aioemu_cpuid)(CPUX86State *env, uintptr_t retaddr);
uint64_t AIOEMU_FN(aioemu_tsc)(CPUX86State *env);
uint64_t AIOEMU_FN(aioemu_rdmsr)(CPUX86State *env, uint32_t msr, uintptr_t retaddr);
void AIOEMU_FN(aioemu_wrmsr)(CPUX86State *env, uint32_t msr, uint64_t value, uintptr_t retaddr);
uint64_t AIOEMU_FN(aioemu_read_cr8)(CPUX86State *env, uintptr_t retaddr);
void AIOEMU_FN(aioemu_write_cr8)(CPUX86State *env, uint64_t value, uintptr_t retaddr);
void AIOEMU_FN(aioemu_check_cr0)(CPUX86State *env, uint64_t value, uintptr_t retaddr);
void AIOEMU_FN(aioemu_check_cr4)(CPUX86State *env, uint64_t value, uintptr_t retaddr);
void AIOEMU_FN(aioemu_cpu_model)(struct uc_struct *uc, X86CPU *cpu);
#endif
#ifdef TARGET_ARM
uint64_t AIOEMU_FN(aioemu_counter)(CPUARMState *env);
void AIOEMU_FN(aioemu_timer_changed)(CPUARMState *env, int timer);
uint64_t AIOEMU_FN(aioemu_timer_control)(CPUARMState *env, int timer);
bool AIOEMU_FN(aioemu_is_call)(CPUARMState *env, int exception);
void AIOEMU_FN(aioemu_call)(CPUARMState *env);
void AIOEMU_FN(aioemu_cpu_model)(ARMCPU *cpu);
#endif
uint32_t AIOEMU_FN(aioemu_in)(struct uc_struct *uc, uint32_t port, unsigned size, uintptr_t retaddr);
void AIOEMU_FN(aioemu_out)(struct uc_struct *uc, uint32_t port, unsigned size, uint32_t value, uintptr_t retaddr);

#endif
