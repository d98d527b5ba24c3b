/* x86_cpu.c: how an x86 vCPU takes events, enters the kernel, and asks its machine. Facts: Intel SDM, AMD APM. */
#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "uc_priv.h"
#include "aioemu/hooks.h"

#include <stdlib.h>
#include <string.h>

/* Family 6, model 6, stepping 3: no real part's, so that no guest looks for its errata. */
#define MAX_CPUID_VERSION 0x663

int AIOEMU_FN(aioemu_cpu_create)(struct aioemu_vcpu *vcpu) {
    return aioemu_x86_reset(vcpu, 0);
}

/* What x86_release() frees of the first CPU. */
void AIOEMU_FN(aioemu_cpu_free)(CPUState *cpu) {
    free(X86_CPU_GET_CLASS(X86_CPU(cpu))->model);
}

/* The next thing this CPU does is to take #UD. */
void AIOEMU_FN(aioemu_undefined)(CPUState *cpu) {
    CPUX86State *env = cpu->env_ptr;

    cpu->exception_index = EXCP06_ILLOP;
    env->error_code = 0;
    env->exception_is_int = 0;
}

/* Leave out what the state structure does not carry (SVM, MPX), what would only cost (5-level paging), and MWAIT. */
void AIOEMU_FN(aioemu_cpu_model)(struct uc_struct *uc, X86CPU *cpu) {
    static const struct {
        FeatureWord word;
        uint64_t bits;
    } without[] = {
        {FEAT_8000_0001_ECX, CPUID_EXT3_SVM},
        {FEAT_7_0_EBX, CPUID_7_0_EBX_MPX},
        {FEAT_7_0_ECX, CPUID_7_0_ECX_LA57},
        {FEAT_1_ECX, CPUID_EXT_MONITOR},
        {FEAT_SVM, UINT64_MAX},
    };
    CPUX86State *env = &cpu->env;

    for (size_t i = 0; i < ARRAY_SIZE(without); i++) {
        env->features[without[i].word] &= ~without[i].bits;
        env->user_features[without[i].word] |= without[i].bits;
    }
    if (uc->aioemu->max_model) {
        static const char name[48] = "aioemu software CPU";

        cpu->max_features = true;
        env->cpuid_version = MAX_CPUID_VERSION;
        memcpy(env->cpuid_model, name, sizeof(env->cpuid_model));
    }
}

static bool can_interrupt(const CPUX86State *env) {
    return (env->eflags & IF_MASK) && !(env->hflags & HF_INHIBIT_IRQ_MASK);
}

static bool can_nmi(const CPUX86State *env) {
    return !(env->hflags2 & HF2_NMI_MASK) && !(env->hflags & HF_INHIBIT_IRQ_MASK);
}

bool AIOEMU_FN(aioemu_cpu_has_work)(CPUState *cpu) {
    CPUX86State *env = cpu->env_ptr;
    uint32_t events = aioemu_events(cpu);

    return (events & AIOEMU_EVENT_INJECT) || ((events & AIOEMU_EVENT_NMI) && can_nmi(env)) ||
           ((events & AIOEMU_EVENT_IRQ) && can_interrupt(env));
}

static void clear_event(struct aioemu_vcpu *vcpu, uint32_t event) {
    __atomic_fetch_and(&vcpu->events, ~event, __ATOMIC_SEQ_CST);
}

static void inject(CPUState *cpu) {
    struct aioemu_vcpu *vcpu = cpu->aioemu;
    CPUX86State *env = cpu->env_ptr;

    clear_event(vcpu, AIOEMU_EVENT_INJECT);
    cpu->halted = 0;
    if (vcpu->inject_flags & AIOEMU_INJECT_EXTERNAL) {
        do_interrupt_x86_hardirq(env, vcpu->inject_vector, 1);
        return;
    }
    cpu->exception_index = vcpu->inject_vector;
    env->error_code = vcpu->inject_error;
    env->exception_is_int = 0;
    cpu->cc->do_interrupt(cpu);
    cpu->exception_index = -1;
}

/* Ask the controller for its vector. False if it had none. */
static bool interrupt(CPUState *cpu) {
    struct aioemu_vcpu *vcpu = cpu->aioemu;
    int vector;

    clear_event(vcpu, AIOEMU_EVENT_IRQ); /* before the call: a later request must not be lost */
    vector = vcpu->engine->cb.interrupt ? vcpu->engine->cb.interrupt(vcpu->opaque) : -1;
    if (vector < 0 || vector > 255) {
        return false;
    }
    cpu->halted = 0;
    do_interrupt_x86_hardirq(cpu->env_ptr, vector, 1);
    return true;
}

/* Between two blocks. -1: leave the CPU loop; 1: the flow of control changed; 0: go on. */
int AIOEMU_FN(aioemu_handle_events)(CPUState *cpu) {
    CPUX86State *env = cpu->env_ptr;
    uint32_t events = aioemu_events(cpu);
    int done = 0;

    if (events & AIOEMU_EVENT_DMA) {
        clear_event(cpu->aioemu, AIOEMU_EVENT_DMA);
        aioemu_apply_dma(cpu->uc->aioemu);
        done = 1;
    }
    if (events & AIOEMU_EVENT_INJECT) {
        inject(cpu);
        done = 1;
    } else if ((events & AIOEMU_EVENT_NMI) && can_nmi(env)) {
        clear_event(cpu->aioemu, AIOEMU_EVENT_NMI);
        cpu->halted = 0;
        env->hflags2 |= HF2_NMI_MASK;
        do_interrupt_x86_hardirq(env, EXCP02_NMI, 1);
        done = 1;
    } else if ((events & AIOEMU_EVENT_IRQ) && can_interrupt(env)) {
        done |= interrupt(cpu);
    }
    return (aioemu_events(cpu) & AIOEMU_EVENT_KICK) ? -1 : done;
}

uint32_t AIOEMU_FN(aioemu_in)(struct uc_struct *uc, uint32_t port, unsigned size, uintptr_t retaddr) {
    struct aioemu_vcpu *vcpu = aioemu_begin(uc->cpu, retaddr);
    uint32_t value = UINT32_MAX;

    if (uc->aioemu->cb.pio_read) {
        value = uc->aioemu->cb.pio_read(vcpu->opaque, port, size);
    }
    aioemu_end(uc->cpu);
    return value;
}

void AIOEMU_FN(aioemu_out)(struct uc_struct *uc, uint32_t port, unsigned size, uint32_t value, uintptr_t retaddr) {
    struct aioemu_vcpu *vcpu = aioemu_begin(uc->cpu, retaddr);

    if (uc->aioemu->cb.pio_write) {
        uc->aioemu->cb.pio_write(vcpu->opaque, port, size, value);
    }
    aioemu_end(uc->cpu);
}

void AIOEMU_FN(aioemu_cpuid)(CPUX86State *env, uintptr_t retaddr) {
    struct aioemu_vcpu *vcpu = env_cpu(env)->aioemu;
    uint32_t leaf = env->regs[R_EAX], subleaf = env->regs[R_ECX];
    uint32_t regs[4];

    cpu_x86_cpuid(env, leaf, subleaf, &regs[0], &regs[1], &regs[2], &regs[3]);
    if (vcpu->engine->cb.cpuid) {
        aioemu_begin(env_cpu(env), retaddr);
        vcpu->engine->cb.cpuid(vcpu->opaque, leaf, subleaf, regs);
        aioemu_end(env_cpu(env));
    }
    env->regs[R_EAX] = regs[0];
    env->regs[R_EBX] = regs[1];
    env->regs[R_ECX] = regs[2];
    env->regs[R_EDX] = regs[3];
}

uint64_t AIOEMU_FN(aioemu_tsc)(CPUX86State *env) {
    struct aioemu_vcpu *vcpu = env_cpu(env)->aioemu;
    uint64_t now = vcpu->engine->cb.counter ? vcpu->engine->cb.counter(vcpu->opaque) : cpu_get_tsc(env);

    return now + env->tsc_offset;
}

uint64_t AIOEMU_FN(aioemu_read_cr8)(CPUX86State *env, uintptr_t retaddr) {
    struct aioemu_vcpu *vcpu = env_cpu(env)->aioemu;
    uint64_t value = env->v_tpr;

    if (vcpu->engine->cb.cr8_read) {
        aioemu_begin(env_cpu(env), retaddr);
        value = vcpu->engine->cb.cr8_read(vcpu->opaque) & 15;
        aioemu_end(env_cpu(env));
    }
    return value;
}

void AIOEMU_FN(aioemu_write_cr8)(CPUX86State *env, uint64_t value, uintptr_t retaddr) {
    struct aioemu_vcpu *vcpu = env_cpu(env)->aioemu;

    if (value & ~UINT64_C(15)) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, retaddr);
    }
    if (vcpu->engine->cb.cr8_write) {
        aioemu_begin(env_cpu(env), retaddr);
        vcpu->engine->cb.cr8_write(vcpu->opaque, value);
        aioemu_end(env_cpu(env));
    }
}

/* SDM vol. 2, MOV to control registers: what must be refused. */
void AIOEMU_FN(aioemu_check_cr0)(CPUX86State *env, uint64_t value, uintptr_t retaddr) {
    bool pg = value & CR0_PG_MASK, was_pg = env->cr[0] & CR0_PG_MASK;

    if ((value >> 32) || (pg && !(value & CR0_PE_MASK)) || ((value & AIOEMU_CR0_NW) && !(value & AIOEMU_CR0_CD)) ||
        (pg && !was_pg && (env->efer & MSR_EFER_LME) && !(env->cr[4] & CR4_PAE_MASK)) ||
        (!pg && was_pg && (env->hflags & HF_CS64_MASK))) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, retaddr);
    }
}

void AIOEMU_FN(aioemu_check_cr4)(CPUX86State *env, uint64_t value, uintptr_t retaddr) {
    uint64_t known = CR4_VME_MASK | CR4_PVI_MASK | CR4_TSD_MASK | CR4_DE_MASK | CR4_PSE_MASK | CR4_PAE_MASK |
                     CR4_MCE_MASK | CR4_PGE_MASK | CR4_PCE_MASK | CR4_OSFXSR_MASK | CR4_OSXMMEXCPT_MASK;

    known |= (env->features[FEAT_1_ECX] & CPUID_EXT_XSAVE) ? CR4_OSXSAVE_MASK : 0;
    known |= (env->features[FEAT_7_0_EBX] & CPUID_7_0_EBX_FSGSBASE) ? CR4_FSGSBASE_MASK : 0;
    known |= (env->features[FEAT_7_0_EBX] & CPUID_7_0_EBX_SMEP) ? CR4_SMEP_MASK : 0;
    known |= (env->features[FEAT_7_0_EBX] & CPUID_7_0_EBX_SMAP) ? CR4_SMAP_MASK : 0;
    known |= (env->features[FEAT_7_0_ECX] & CPUID_7_0_ECX_PKU) ? CR4_PKE_MASK : 0;
    if ((value & ~known) || ((env->efer & MSR_EFER_LMA) && !(value & CR4_PAE_MASK))) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, retaddr);
    }
}

/* The flat code and stack segments that SYSCALL and SYSENTER load for ring 0. */
static void load_flat(CPUX86State *env, unsigned code, unsigned stack, bool bits64) {
    unsigned common = DESC_G_MASK | DESC_P_MASK | DESC_S_MASK | DESC_A_MASK;

    cpu_x86_load_seg_cache(env, R_CS, code & 0xfffc, 0, UINT32_MAX,
                           common | DESC_CS_MASK | DESC_R_MASK | (bits64 ? DESC_L_MASK : DESC_B_MASK));
    cpu_x86_load_seg_cache(env, R_SS, stack & 0xfffc, 0, UINT32_MAX, common | DESC_B_MASK | DESC_W_MASK);
}

/* APM vol. 3, SYSCALL. */
void AIOEMU_FN(aioemu_syscall)(CPUX86State *env, int addend, uintptr_t retaddr) {
    const int all =
        TF_MASK | IF_MASK | IOPL_MASK | NT_MASK | RF_MASK | VM_MASK | AC_MASK | VIF_MASK | VIP_MASK | ID_MASK;
    unsigned selector = (env->star >> 32) & 0xffff;
    uint64_t next = env->eip + addend;

    if (!(env->efer & MSR_EFER_SCE)) {
        raise_exception_err_ra(env, EXCP06_ILLOP, 0, retaddr);
    }
    if (env->hflags & HF_LMA_MASK) {
        bool from64 = env->hflags & HF_CS64_MASK;
        uint32_t flags = cpu_compute_eflags(env) & ~RF_MASK;

        env->regs[R_ECX] = next;
        env->regs[11] = flags;
        load_flat(env, selector, selector + 8, true);
        cpu_load_eflags(env, flags & ~(uint32_t)env->fmask, all);
        env->eip = from64 ? env->lstar : env->cstar;
    } else {
        env->regs[R_ECX] = (uint32_t)next;
        env->eflags &= ~(IF_MASK | RF_MASK | VM_MASK);
        load_flat(env, selector, selector + 8, false);
        env->eip = (uint32_t)env->star;
    }
}

/* SDM vol. 2, SYSENTER. */
void AIOEMU_FN(aioemu_sysenter)(CPUX86State *env, int addend, uintptr_t retaddr) {
    bool bits64 = env->hflags & HF_LMA_MASK;

    (void)addend;
    if (!(env->sysenter_cs & 0xfffc)) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, retaddr);
    }
    env->eflags &= ~(VM_MASK | IF_MASK | RF_MASK);
    load_flat(env, env->sysenter_cs, env->sysenter_cs + 8, bits64);
    env->regs[R_ESP] = bits64 ? env->sysenter_esp : (uint32_t)env->sysenter_esp;
    env->eip = bits64 ? env->sysenter_eip : (uint32_t)env->sysenter_eip;
}
