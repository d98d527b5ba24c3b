/* core.c: make, run and debug one vCPU; compiled once per guest architecture.
 *
 * The guest's own ways (interrupts, state, callbacks only it has) are in x86_*.c and a64_*.c.
 */
#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "sysemu/cpus.h"
#include "uc_priv.h"
#include "aioemu/hooks.h"

#include <errno.h>

#define SSTEP_ON 1 /* nonzero is all that is asked of CPUState.singlestep_enabled */

static void use(struct aioemu_vcpu *vcpu) {
    vcpu->engine->uc->cpu = vcpu->cpu;
}

static int vcpu_create(struct aioemu_vcpu *vcpu) {
    struct aioemu_engine *engine = vcpu->engine;
    CPUState *cpu;
    int err;

    /* The first CPU came with the emulator. */
    if (vcpu->index > 0 && engine->uc->cpus_init(engine->uc, NULL)) {
        return -ENOMEM;
    }
    cpu = engine->uc->cpu;
    cpu->cc->tlb_fill = cpu->cc->tlb_fill_cpu;
    cpu->cc->has_work = AIOEMU_FN(aioemu_cpu_has_work);
    cpu->cpu_index = vcpu->index;
    cpu->cluster_index = 0; /* part of what translations are shared by */
    cpu->stopped = false;
    cpu->created = true;
    cpu->aioemu = vcpu;
    vcpu->cpu = cpu;
    vcpu->leave = &cpu->icount_decr_ptr->u16.high;
    err = AIOEMU_FN(aioemu_cpu_create)(vcpu);
    if (err) {
        return err;
    }
    engine->vcpus[vcpu->index] = vcpu;
    __atomic_store_n(&engine->vcpu_count, vcpu->index + 1, __ATOMIC_RELEASE);
    return 0;
}

static void vcpu_free(struct aioemu_vcpu *vcpu) {
    CPUState *cpu = vcpu->cpu;
    CPUArchState *env = cpu->env_ptr;

    cpu_breakpoint_remove_all(cpu, BP_CPU | BP_GDB);
    aioemu_forget_memory(cpu); /* flushes the TLB once more */
    for (int i = 0; i < NB_MMU_MODES; i++) {
        g_free(env_tlb(env)->d[i].iotlb);
        g_free(env_tlb(env)->f[i].table);
    }
    AIOEMU_FN(aioemu_cpu_free)(cpu);
    qemu_vfree(cpu);
}

/* Go in and come out once; EXCP_*. */
static int enter(struct aioemu_vcpu *vcpu) {
    CPUState *cpu = vcpu->cpu;
    int result;

    vcpu->inside = true;
    vcpu->retaddr = 0;
    result = cpu_exec(vcpu->engine->uc, cpu);
    vcpu->inside = false;
    return result;
}

static bool take_kick(struct aioemu_vcpu *vcpu) {
    return (__atomic_load_n(&vcpu->events, __ATOMIC_RELAXED) & AIOEMU_EVENT_KICK) &&
           (__atomic_fetch_and(&vcpu->events, ~AIOEMU_EVENT_KICK, __ATOMIC_SEQ_CST) & AIOEMU_EVENT_KICK);
}

/* 0, or why the run ends. */
static uint32_t reason_of(struct aioemu_vcpu *vcpu, int result) {
    CPUState *cpu = vcpu->cpu;

    if (vcpu->shutdown) {
        return AIOEMU_EXIT_SHUTDOWN;
    }
    switch (result) {
    case EXCP_INTERRUPT:
        if (__atomic_load_n(&vcpu->events, __ATOMIC_RELAXED) & AIOEMU_EVENT_KICK) {
            return 0;
        }
        return vcpu->engine->yield_on_pause ? AIOEMU_EXIT_YIELD : 0;
    case EXCP_YIELD: return vcpu->engine->yield_on_pause ? AIOEMU_EXIT_YIELD : 0;
    case EXCP_HLT:
    case EXCP_HALTED: return AIOEMU_FN(aioemu_cpu_has_work)(cpu) ? 0 : AIOEMU_EXIT_HALT;
    case EXCP_DEBUG: return cpu->cluster_index ? AIOEMU_EXIT_DEBUG : 0;
    default: return AIOEMU_EXIT_ERROR;
    }
}

static void run(struct aioemu_vcpu *vcpu, struct aioemu_exit *out) {
    use(vcpu);
    *out = (struct aioemu_exit){0};
    do {
        if (take_kick(vcpu)) {
            out->reason = AIOEMU_EXIT_KICK;
        } else if (vcpu->shutdown) {
            out->reason = AIOEMU_EXIT_SHUTDOWN;
        } else {
            out->reason = reason_of(vcpu, enter(vcpu));
        }
    } while (!out->reason);
    if (out->reason == AIOEMU_EXIT_DEBUG) {
        CPUArchState *env = ((CPUState *)vcpu->cpu)->env_ptr;
        target_ulong pc, base;
        uint32_t flags;

        cpu_get_tb_cpu_state(env, &pc, &base, &flags);
        out->address = pc;
    }
    if (out->reason == AIOEMU_EXIT_ERROR) {
        out->message = "unexpected exit from the CPU loop";
    }
}

/* The emulator gave up. If it was translating, it met an instruction that it decodes but does not know: go there one
 * instruction at a time, and tell the guest that it is undefined. False: it was something else. */
static bool recover(struct aioemu_vcpu *vcpu) {
    CPUState *cpu = vcpu->cpu;
    int instructions = vcpu->translating;

    if (!instructions || !vcpu->inside) {
        return false;
    }
    vcpu->translating = 0;
    if (instructions == 1) {
        AIOEMU_FN(aioemu_undefined)(cpu);
    } else {
        cpu->cflags_next_tb = curr_cflags() | 1;
    }
    cpu->cc->cpu_exec_exit(cpu); /* the loop was left without it */
    vcpu->inside = false;
    return true;
}

static int has_work(struct aioemu_vcpu *vcpu) {
    CPUState *cpu = vcpu->cpu;

    return !vcpu->shutdown && (!cpu->halted || AIOEMU_FN(aioemu_cpu_has_work)(cpu));
}

static int step(struct aioemu_vcpu *vcpu, int on) {
    CPUState *cpu = vcpu->cpu;
    int wanted = on ? SSTEP_ON : 0;

    if (cpu->singlestep_enabled != wanted) {
        cpu->singlestep_enabled = wanted;
        aioemu_own_code(cpu);
        tb_flush(cpu); /* translations are made for one way or the other */
    }
    return 0;
}

static int breakpoint(struct aioemu_vcpu *vcpu, uint64_t gva, int insert) {
    return insert ? cpu_breakpoint_insert(vcpu->cpu, gva, BP_GDB, NULL) : cpu_breakpoint_remove(vcpu->cpu, gva, BP_GDB);
}

static int translate(struct aioemu_vcpu *vcpu, uint64_t gva, uint64_t *gpa) {
    struct uc_struct *uc = vcpu->engine->uc; /* TARGET_PAGE_MASK looks for it */
    MemTxAttrs attrs;
    hwaddr page;

    (void)uc;
    use(vcpu);
    page = cpu_get_phys_page_attrs_debug(vcpu->cpu, gva & TARGET_PAGE_MASK, &attrs);
    if (page == (hwaddr)-1) {
        return -EFAULT;
    }
    *gpa = page | (gva & ~TARGET_PAGE_MASK);
    return 0;
}

const struct aioemu_ops AIOEMU_FN(aioemu_ops) = {
    .memory_init = AIOEMU_FN(aioemu_memory_init),
    .map = AIOEMU_FN(aioemu_memory_map),
    .unmap = AIOEMU_FN(aioemu_memory_unmap),
    .reprotect = AIOEMU_FN(aioemu_memory_reprotect),
    .vcpu_create = vcpu_create,
    .vcpu_free = vcpu_free,
    .run = run,
    .recover = recover,
    .has_work = has_work,
    .step = step,
    .breakpoint = breakpoint,
    .translate = translate,
};
