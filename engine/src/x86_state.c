/* x86_state.c: read and write a vCPU's whole architectural state; reset, INIT, SIPI.
 *
 * What cannot be in the structure (MPX, SVM, AVX) the vCPU does not offer (x86_cpu.c). Descriptor caches are taken as
 * given; only values that would break an invariant of the emulator are refused.
 */
#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "uc_priv.h"
#include "aioemu/hooks.h"

#include <errno.h>
#include <string.h>

#define MXCSR_BITS  0xffffu
#define RIGHTS_BITS 0xf0ffu
#define FSW_TOP     0x3800u
#define TSS_BUSY    2u /* in the type, SDM vol. 3, 8.2.2; a loaded TR always is */

/* FXSAVE64 image, SDM vol. 1 table 10-2. */
struct fxsave {
    uint16_t fcw, fsw;
    uint8_t ftw, reserved1;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    struct {
        uint64_t mantissa;
        uint16_t exponent;
        uint16_t reserved[3];
    } st[8];
    uint64_t xmm[16][2];
};
QEMU_BUILD_BUG_ON(sizeof(struct fxsave) != 416);

static void save_segment(struct aioemu_x86_segment *out, const SegmentCache *in) {
    *out = (struct aioemu_x86_segment){
        .base = in->base, .limit = in->limit, .selector = in->selector, .rights = (in->flags >> 8) & RIGHTS_BITS};
}

static void load_segment(SegmentCache *out, const struct aioemu_x86_segment *in) {
    *out = (SegmentCache){
        .base = in->base, .limit = in->limit, .selector = in->selector, .flags = (in->rights & RIGHTS_BITS) << 8};
}

static void save_fpu(CPUX86State *env, uint8_t *bytes) {
    struct fxsave fx = {.fcw = env->fpuc, .fop = env->fpop, .fip = env->fpip, .fdp = env->fpdp};

    fx.fsw = (env->fpus & ~FSW_TOP) | ((env->fpstt & 7) << 11);
    fx.mxcsr = env->mxcsr;
    fx.mxcsr_mask = MXCSR_BITS;
    for (int i = 0; i < 8; i++) {
        const floatx80 *st = &env->fpregs[(env->fpstt + i) & 7].d;

        fx.ftw |= (uint8_t)(!env->fptags[i] << i);
        fx.st[i].mantissa = st->low;
        fx.st[i].exponent = st->high;
    }
    for (int i = 0; i < 16; i++) {
        fx.xmm[i][0] = env->xmm_regs[i].ZMM_Q(0);
        fx.xmm[i][1] = env->xmm_regs[i].ZMM_Q(1);
    }
    memset(bytes, 0, 512);
    memcpy(bytes, &fx, sizeof(fx));
}

static void load_fpu(CPUX86State *env, const uint8_t *bytes) {
    struct fxsave fx;

    memcpy(&fx, bytes, sizeof(fx));
    cpu_set_fpuc(env, fx.fcw);
    env->fpus = fx.fsw & ~FSW_TOP;
    env->fpstt = (fx.fsw >> 11) & 7;
    env->fpop = fx.fop;
    env->fpip = fx.fip;
    env->fpdp = fx.fdp;
    for (int i = 0; i < 8; i++) {
        floatx80 *st = &env->fpregs[(env->fpstt + i) & 7].d;

        env->fptags[i] = !((fx.ftw >> i) & 1);
        st->low = fx.st[i].mantissa;
        st->high = fx.st[i].exponent;
    }
    for (int i = 0; i < 16; i++) {
        env->xmm_regs[i].ZMM_Q(0) = fx.xmm[i][0];
        env->xmm_regs[i].ZMM_Q(1) = fx.xmm[i][1];
    }
    cpu_set_mxcsr(env, fx.mxcsr & MXCSR_BITS);
}

static void save_msrs(const CPUX86State *env, struct aioemu_x86_state *s) {
    s->efer = env->efer;
    s->star = env->star;
    s->lstar = env->lstar;
    s->cstar = env->cstar;
    s->fmask = env->fmask;
    s->kernel_gs_base = env->kernelgsbase;
    s->sysenter_cs = env->sysenter_cs;
    s->sysenter_esp = env->sysenter_esp;
    s->sysenter_eip = env->sysenter_eip;
    s->pat = env->pat;
    s->misc_enable = env->msr_ia32_misc_enable;
    s->tsc_aux = env->tsc_aux;
    s->tsc_offset = env->tsc_offset;
    s->mtrr_def_type = env->mtrr_deftype;
    memcpy(s->mtrr_fixed, env->mtrr_fixed, sizeof(s->mtrr_fixed));
    for (int i = 0; i < 8; i++) {
        s->mtrr_base[i] = env->mtrr_var[i].base;
        s->mtrr_mask[i] = env->mtrr_var[i].mask;
    }
}

static void load_msrs(CPUX86State *env, const struct aioemu_x86_state *s) {
    env->star = s->star;
    env->lstar = s->lstar;
    env->cstar = s->cstar;
    env->fmask = s->fmask;
    env->kernelgsbase = s->kernel_gs_base;
    env->sysenter_cs = s->sysenter_cs;
    env->sysenter_esp = s->sysenter_esp;
    env->sysenter_eip = s->sysenter_eip;
    env->pat = s->pat;
    env->msr_ia32_misc_enable = s->misc_enable;
    env->tsc_aux = s->tsc_aux;
    env->tsc_offset = s->tsc_offset;
    env->mtrr_deftype = s->mtrr_def_type;
    memcpy(env->mtrr_fixed, s->mtrr_fixed, sizeof(s->mtrr_fixed));
    for (int i = 0; i < 8; i++) {
        env->mtrr_var[i].base = s->mtrr_base[i];
        env->mtrr_var[i].mask = s->mtrr_mask[i];
    }
}

static void save_pending(struct aioemu_vcpu *vcpu, struct aioemu_x86_state *s) {
    CPUState *cpu = vcpu->cpu;
    CPUX86State *env = cpu->env_ptr;
    uint32_t events = aioemu_events(cpu);

    s->interrupt_shadow = (env->hflags & HF_INHIBIT_IRQ_MASK) != 0;
    s->nmi_blocked = (env->hflags2 & HF2_NMI_MASK) != 0;
    s->nmi_requested = (events & AIOEMU_EVENT_NMI) != 0;
    s->interrupt_requested = (events & AIOEMU_EVENT_IRQ) != 0;
    s->halted = cpu->halted != 0;
    s->shutdown = vcpu->shutdown;
    s->a20_masked = !(env->a20_mask & (1 << 20));
}

int aioemu_x86_get_state(aioemu_vcpu *vcpu, struct aioemu_x86_state *s) {
    CPUX86State *env = ((CPUState *)vcpu->cpu)->env_ptr;

    if (vcpu->engine->arch != AIOEMU_ARCH_X86_64 || s->size != sizeof(*s)) {
        return -EINVAL;
    }
    if (vcpu->inside && vcpu->retaddr) {
        aioemu_restore_state(vcpu->cpu, vcpu->retaddr);
    }
    memset(s, 0, sizeof(*s));
    s->size = sizeof(*s);
    memcpy(s->gpr, env->regs, sizeof(s->gpr));
    s->rip = env->eip;
    s->rflags = vcpu->inside ? cpu_compute_eflags(env) : env->eflags;
    for (int i = 0; i < 6; i++) {
        save_segment(&s->seg[i], &env->segs[i]);
    }
    save_segment(&s->ldt, &env->ldt);
    save_segment(&s->tr, &env->tr);
    s->tr.rights |= TSS_BUSY;
    s->gdt = (struct aioemu_x86_table){.base = env->gdt.base, .limit = env->gdt.limit};
    s->idt = (struct aioemu_x86_table){.base = env->idt.base, .limit = env->idt.limit};
    s->cr0 = env->cr[0];
    s->cr2 = env->cr[2];
    s->cr3 = env->cr[3];
    s->cr4 = env->cr[4];
    s->cr8 = env->v_tpr;
    s->xcr0 = env->xcr0;
    memcpy(s->dr, env->dr, sizeof(s->dr));
    s->pkru = env->pkru;
    save_msrs(env, s);
    save_pending(vcpu, s);
    save_fpu(env, s->fxsave);
    return 0;
}

static bool valid(const struct aioemu_x86_state *s) {
    bool pg = s->cr0 & CR0_PG_MASK, pe = s->cr0 & CR0_PE_MASK;
    bool lme = s->efer & MSR_EFER_LME, lma = s->efer & MSR_EFER_LMA;
    uint64_t efer = MSR_EFER_SCE | MSR_EFER_LME | MSR_EFER_LMA | MSR_EFER_NXE | MSR_EFER_FFXSR;

    return !(s->cr0 >> 32) && !(s->cr4 >> 32) && !(s->efer & ~efer) && (!pg || pe) && lma == (lme && pg) &&
           (!lma || (s->cr4 & CR4_PAE_MASK)) && !(s->rflags >> 32) && !(s->cr8 & ~UINT64_C(15));
}

static void set_event(struct aioemu_vcpu *vcpu, uint32_t event, bool on) {
    if (on) {
        aioemu_raise(vcpu, event);
    } else {
        __atomic_fetch_and(&vcpu->events, ~event, __ATOMIC_SEQ_CST);
    }
}

static void load_control(CPUX86State *env, const struct aioemu_x86_state *s) {
    env->gdt.base = s->gdt.base;
    env->gdt.limit = s->gdt.limit;
    env->idt.base = s->idt.base;
    env->idt.limit = s->idt.limit;
    env->cr[2] = s->cr2;
    env->cr[3] = s->cr3;
    env->v_tpr = s->cr8;
    env->xcr0 = s->xcr0;
    env->pkru = s->pkru;
    env->a20_mask = s->a20_masked ? ~(1 << 20) : -1;
    cpu_load_efer(env, s->efer);
    env->cr[0] = s->cr0 | CR0_ET_MASK;
    cpu_x86_update_cr4(env, s->cr4);
    memcpy(env->dr, s->dr, 4 * sizeof(env->dr[0]));
    env->dr[6] = s->dr[6] | DR6_FIXED_1;
    if (env->dr[7] != (s->dr[7] | DR7_FIXED_1)) {
        cpu_x86_update_dr7(env, s->dr[7]);
    }
}

static void load_pending(struct aioemu_vcpu *vcpu, const struct aioemu_x86_state *s) {
    CPUState *cpu = vcpu->cpu;
    CPUX86State *env = cpu->env_ptr;

    env->hflags = (env->hflags & ~HF_INHIBIT_IRQ_MASK) | (s->interrupt_shadow ? HF_INHIBIT_IRQ_MASK : 0);
    env->hflags2 = (env->hflags2 & ~HF2_NMI_MASK) | (s->nmi_blocked ? HF2_NMI_MASK : 0);
    env->old_exception = -1;
    cpu->exception_index = -1;
    cpu->halted = s->halted;
    vcpu->shutdown = s->shutdown;
    set_event(vcpu, AIOEMU_EVENT_NMI, s->nmi_requested);
    set_event(vcpu, AIOEMU_EVENT_IRQ, s->interrupt_requested);
}

int aioemu_x86_set_state(aioemu_vcpu *vcpu, const struct aioemu_x86_state *s) {
    CPUState *cpu = vcpu->cpu;
    CPUX86State *env = cpu->env_ptr;

    if (vcpu->inside) {
        return -EBUSY;
    }
    if (vcpu->engine->arch != AIOEMU_ARCH_X86_64 || s->size != sizeof(*s) || !valid(s)) {
        return -EINVAL;
    }
    vcpu->engine->uc->cpu = cpu;
    memcpy(env->regs, s->gpr, sizeof(s->gpr));
    env->eip = s->rip;
    env->eflags = s->rflags | 2;
    for (int i = 0; i < 6; i++) {
        load_segment(&env->segs[i], &s->seg[i]);
    }
    load_segment(&env->ldt, &s->ldt);
    load_segment(&env->tr, &s->tr);
    env->tr.flags &= ~(TSS_BUSY << 8); /* the emulator keeps the descriptor as it was before LTR */
    load_control(env, s);
    load_msrs(env, s);
    load_fpu(env, s->fxsave);
    x86_update_hflags(env);
    load_pending(vcpu, s);
    tlb_flush(cpu);
    return 0;
}

int aioemu_x86_reset(aioemu_vcpu *vcpu, int init) {
    CPUState *cpu = vcpu->cpu;
    CPUX86State *env = cpu->env_ptr;
    uint64_t cache = AIOEMU_CR0_CD | AIOEMU_CR0_NW;

    if (vcpu->engine->arch != AIOEMU_ARCH_X86_64) {
        return -EINVAL;
    }
    if (vcpu->inside) {
        return -EBUSY;
    }
    vcpu->engine->uc->cpu = cpu;
    if (init) {
        cache &= env->cr[0];
        do_cpu_init(X86_CPU(cpu));
    } else {
        cpu_reset(cpu);
        env->tsc_offset = 0;
        env->xcr0 = XSTATE_FP_MASK;
    }
    env->cr[0] = CR0_ET_MASK | cache;
    cpu_x86_update_cr4(env, 0);
    x86_update_hflags(env);
    __atomic_fetch_and(&vcpu->events, AIOEMU_EVENT_KICK | AIOEMU_EVENT_DMA, __ATOMIC_SEQ_CST);
    vcpu->shutdown = false;
    tlb_flush(cpu);
    return 0;
}

int aioemu_x86_sipi(aioemu_vcpu *vcpu, uint8_t vector) {
    CPUState *cpu = vcpu->cpu;
    CPUX86State *env = cpu->env_ptr;

    if (vcpu->engine->arch != AIOEMU_ARCH_X86_64) {
        return -EINVAL;
    }
    if (vcpu->inside) {
        return -EBUSY;
    }
    env->eip = 0;
    cpu_x86_load_seg_cache(env, R_CS, (unsigned)vector << 8, (target_ulong)vector << 12, env->segs[R_CS].limit,
                           env->segs[R_CS].flags);
    cpu->halted = 0;
    return 0;
}

int aioemu_x86_inject(aioemu_vcpu *vcpu, uint8_t vector, uint32_t error_code, uint32_t flags) {
    if (vcpu->engine->arch != AIOEMU_ARCH_X86_64 || (flags & ~AIOEMU_INJECT_EXTERNAL)) {
        return -EINVAL;
    }
    if (aioemu_events(vcpu->cpu) & AIOEMU_EVENT_INJECT) {
        return -EBUSY;
    }
    vcpu->inject_vector = vector;
    vcpu->inject_error = error_code;
    vcpu->inject_flags = flags;
    aioemu_raise(vcpu, AIOEMU_EVENT_INJECT);
    return 0;
}
