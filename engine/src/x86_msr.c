/* x86_msr.c: RDMSR and WRMSR. The engine keeps the MSRs that are part of its own state; the machine has the rest.
 *
 * Values no CPU would take get #GP(0), as the SDM (vol. 4) says. Not kept: machine check, performance counters.
 */
#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "uc_priv.h"
#include "aioemu/hooks.h"

#define TSC_MSR          0x10
#define DEFAULT_APICBASE UINT64_C(0xfee00900) /* enabled, boot processor */
#define MTRR_CAP         (UINT64_C(8) | MSR_MTRRcap_FIXRANGE_SUPPORT | MSR_MTRRcap_WC_SUPPORTED)

static bool canonical(uint64_t address) {
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* Where a plain 64-bit MSR is kept, or NULL. */
static uint64_t *plain(CPUX86State *env, uint32_t msr) {
    switch (msr) {
    case MSR_STAR: return &env->star;
    case MSR_FMASK: return &env->fmask;
    case MSR_TSC_AUX: return &env->tsc_aux;
    case MSR_IA32_MISC_ENABLE: return &env->msr_ia32_misc_enable;
    case MSR_MTRRdefType: return &env->mtrr_deftype;
    case MSR_MTRRfix64K_00000: return &env->mtrr_fixed[0];
    case MSR_MTRRfix16K_80000:
    case MSR_MTRRfix16K_A0000: return &env->mtrr_fixed[msr - MSR_MTRRfix16K_80000 + 1];
    default: break;
    }
    if (msr >= MSR_MTRRfix4K_C0000 && msr <= MSR_MTRRfix4K_F8000) {
        return &env->mtrr_fixed[msr - MSR_MTRRfix4K_C0000 + 3];
    }
    if (msr >= MSR_MTRRphysBase(0) && msr <= MSR_MTRRphysMask(7)) {
        MTRRVar *var = &env->mtrr_var[(msr - MSR_MTRRphysBase(0)) / 2];
        return msr & 1 ? &var->mask : &var->base;
    }
    return NULL;
}

/* Where an MSR that holds a linear address is kept, or NULL. */
static uint64_t *linear(CPUX86State *env, uint32_t msr) {
    switch (msr) {
    case MSR_LSTAR: return &env->lstar;
    case MSR_CSTAR: return &env->cstar;
    case MSR_FSBASE: return &env->segs[R_FS].base;
    case MSR_GSBASE: return &env->segs[R_GS].base;
    case MSR_KERNELGSBASE: return &env->kernelgsbase;
    case MSR_IA32_SYSENTER_ESP: return &env->sysenter_esp;
    case MSR_IA32_SYSENTER_EIP: return &env->sysenter_eip;
    default: return NULL;
    }
}

static bool valid_pat(uint64_t pat) {
    for (int i = 0; i < 8; i++, pat >>= 8) {
        uint8_t type = (uint8_t)pat;
        if (type > 7 || type == 2 || type == 3) {
            return false;
        }
    }
    return true;
}

static bool write_efer(CPUX86State *env, uint64_t value) {
    uint64_t may = 0, keep = MSR_EFER_LMA;
    uint64_t edx = env->features[FEAT_8000_0001_EDX];

    may |= (edx & CPUID_EXT2_SYSCALL) ? MSR_EFER_SCE : 0;
    may |= (edx & CPUID_EXT2_LM) ? MSR_EFER_LME : 0;
    may |= (edx & CPUID_EXT2_NX) ? MSR_EFER_NXE : 0;
    may |= (edx & CPUID_EXT2_FFXSR) ? MSR_EFER_FFXSR : 0;
    if ((value & ~(may | keep)) || ((env->cr[0] & CR0_PG_MASK) && ((value ^ env->efer) & MSR_EFER_LME))) {
        return false;
    }
    if ((value ^ env->efer) & MSR_EFER_NXE) {
        tlb_flush(env_cpu(env));
    }
    cpu_load_efer(env, (value & may) | (env->efer & keep));
    return true;
}

/* True if done here. (*ok) false: #GP. */
static bool write_own(CPUX86State *env, uint32_t msr, uint64_t value, bool *ok) {
    uint64_t *at = plain(env, msr);

    *ok = true;
    if (at) {
        *at = value;
        return true;
    }
    at = linear(env, msr);
    if (at) {
        *ok = canonical(value);
        *at = *ok ? value : *at;
        return true;
    }
    switch (msr) {
    case MSR_EFER: *ok = write_efer(env, value); return true;
    case MSR_PAT:
        *ok = valid_pat(value);
        env->pat = *ok ? value : env->pat;
        return true;
    case MSR_IA32_SYSENTER_CS: env->sysenter_cs = value & 0xffff; return true;
    case TSC_MSR: env->tsc_offset += value - AIOEMU_FN(aioemu_tsc)(env); return true;
    default: *ok = false; return false;
    }
}

static bool read_own(CPUX86State *env, uint32_t msr, uint64_t *value) {
    uint64_t *at = plain(env, msr);

    at = at ? at : linear(env, msr);
    if (at) {
        *value = *at;
        return true;
    }
    switch (msr) {
    case MSR_EFER: *value = env->efer; return true;
    case MSR_PAT: *value = env->pat; return true;
    case MSR_IA32_SYSENTER_CS: *value = env->sysenter_cs; return true;
    case TSC_MSR: *value = AIOEMU_FN(aioemu_tsc)(env); return true;
    case MSR_MTRRcap: *value = MTRR_CAP; return true;
    default: return false;
    }
}

uint64_t AIOEMU_FN(aioemu_rdmsr)(CPUX86State *env, uint32_t msr, uintptr_t retaddr) {
    struct aioemu_vcpu *vcpu = env_cpu(env)->aioemu;
    const struct aioemu_callbacks *cb = &vcpu->engine->cb;
    uint64_t value = DEFAULT_APICBASE;
    bool refused = msr != MSR_IA32_APICBASE;

    if (read_own(env, msr, &value)) {
        return value;
    }
    if (cb->msr_read) {
        aioemu_begin(env_cpu(env), retaddr);
        refused = cb->msr_read(vcpu->opaque, msr, &value) != 0;
        aioemu_end(env_cpu(env));
    }
    if (refused) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, retaddr);
    }
    return value;
}

void AIOEMU_FN(aioemu_wrmsr)(CPUX86State *env, uint32_t msr, uint64_t value, uintptr_t retaddr) {
    struct aioemu_vcpu *vcpu = env_cpu(env)->aioemu;
    const struct aioemu_callbacks *cb = &vcpu->engine->cb;
    bool ok = false;

    if (!write_own(env, msr, value, &ok) && cb->msr_write) {
        aioemu_begin(env_cpu(env), retaddr);
        ok = cb->msr_write(vcpu->opaque, msr, value) == 0;
        aioemu_end(env_cpu(env));
    }
    if (!ok) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, retaddr);
    }
}
