/* tcg_msr.c: model-specific registers: those the engine does not keep for the guest, and all of them for the host.
 *
 * Numbers: Intel SDM vol. 4. A register that is not named here does not exist: the guest gets #GP.
 */
#include <errno.h>
#include <string.h>

#include "tcg.h"

enum {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_BIOS_SIGN_ID = 0x8b,
    MSR_MTRRCAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_MTRR_BASE0 = 0x200,
    MSR_MTRR_LAST = 0x20f,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K_80000 = 0x258,
    MSR_MTRR_FIX16K_A0000 = 0x259,
    MSR_MTRR_FIX4K_C0000 = 0x268,
    MSR_MTRR_FIX4K_LAST = 0x26f,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_EFER = 0xc0000080,
    MSR_STAR = 0xc0000081,
    MSR_LSTAR = 0xc0000082,
    MSR_CSTAR = 0xc0000083,
    MSR_FMASK = 0xc0000084,
    MSR_FS_BASE = 0xc0000100,
    MSR_GS_BASE = 0xc0000101,
    MSR_KERNEL_GS_BASE = 0xc0000102,
    MSR_TSC_AUX = 0xc0000103,

    SPEC_CTRL_BITS = 7, /* IBRS, STIBP, SSBD */
    MTRRCAP = 0x508,    /* 8 variable ranges, fixed ranges, write combining */
    MCG_STATUS_BITS = 7,
};

/* A processor that does not speculate has none of the flaws that the bits name: RDCL_NO, IBRS_ALL, SKIP_L1DFL, SSB_NO,
 * MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO. */
static const uint64_t ARCH_CAPABILITIES = 1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 |
                                          1ull << 8 | 1ull << 13 | 1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 24 |
                                          1ull << 26 | 1ull << 27 | 1ull << 62;

void tcg_apic_moved(struct tcg_vcpu *c) {
    const struct lapic *apic = c->tcg->intc.cpu[c->vcpu->index];
    atomic_store(&c->apic_page, lapic_is_on(apic) ? apic->base & ~0xfffull : UINT64_MAX);
}

static int write_apic_base(struct tcg_vcpu *c, uint64_t value) {
    struct core_intc *intc = &c->tcg->intc;
    pthread_mutex_lock(&intc->lock);
    int rc = lapic_set_base(intc->cpu[c->vcpu->index], value);
    tcg_apic_moved(c);
    pthread_mutex_unlock(&intc->lock);
    return rc;
}

static uint64_t tsc_offset(struct tcg_vcpu *c) {
    if (c->tcg->api.x86_tsc_offset) {
        return c->tcg->api.x86_tsc_offset(c->cpu);
    }
    struct aioemu_x86_state s = {.size = sizeof s};
    return c->tcg->api.x86_get_state(c->cpu, &s) == 0 ? s.tsc_offset : 0;
}

static void write_deadline(struct tcg_vcpu *c, uint64_t deadline) {
    struct core_intc *intc = &c->tcg->intc;
    int64_t due = (int64_t)(deadline - tsc_offset(c) - c->tsc_adjust);
    pthread_mutex_lock(&intc->lock);
    lapic_set_deadline(intc->cpu[c->vcpu->index], deadline, due);
    pthread_mutex_unlock(&intc->lock);
}

int tcg_msr_read(void *opaque, uint32_t msr, uint64_t *value) {
    struct tcg_vcpu *c = opaque;
    const struct lapic *apic = c->tcg->intc.cpu[c->vcpu->index];
    switch (msr) {
    case MSR_APIC_BASE: *value = apic->base; return 0;
    case MSR_TSC_DEADLINE: *value = apic->tsc_deadline; return 0;
    case MSR_TSC_ADJUST: *value = c->tsc_adjust + tsc_offset(c); return 0;
    case MSR_SPEC_CTRL: *value = c->spec_ctrl; return 0;
    case MSR_ARCH_CAPABILITIES: *value = ARCH_CAPABILITIES; return 0;
    case MSR_MTRRCAP: *value = MTRRCAP; return 0;
    case MSR_MCG_STATUS: *value = c->mcg_status; return 0;
    case MSR_MCG_CAP: /* no banks */
    case MSR_PLATFORM_ID:
    case MSR_BIOS_SIGN_ID: /* no microcode */
    case MSR_DEBUGCTL: *value = 0; return 0;
    default: return -ENOENT;
    }
}

int tcg_msr_write(void *opaque, uint32_t msr, uint64_t value) {
    struct tcg_vcpu *c = opaque;
    switch (msr) {
    case MSR_APIC_BASE: return write_apic_base(c, value);
    case MSR_TSC_DEADLINE: write_deadline(c, value); return 0;
    case MSR_SPEC_CTRL:
        if (value & ~(uint64_t)SPEC_CTRL_BITS) {
            return -EINVAL;
        }
        c->spec_ctrl = value;
        return 0;
    case MSR_TSC_ADJUST: c->tsc_adjust = value - tsc_offset(c); return 0;
    case MSR_PRED_CMD: return value > 1 ? -EINVAL : 0;
    case MSR_MCG_STATUS:
        if (value & ~(uint64_t)MCG_STATUS_BITS) {
            return -EINVAL;
        }
        c->mcg_status = value;
        return 0;
    case MSR_BIOS_SIGN_ID: return 0; /* written with 0 before CPUID, to be read back */
    case MSR_DEBUGCTL: return value ? -EINVAL : 0;
    default: return -ENOENT;
    }
}

/* ---- the host's way: the engine's own registers are fields of its state ------------------------------------------------- */

static uint64_t *field(struct aioemu_x86_state *s, uint32_t msr) {
    if (msr >= MSR_MTRR_BASE0 && msr <= MSR_MTRR_LAST) {
        uint32_t n = (msr - MSR_MTRR_BASE0) / 2;
        return msr & 1 ? &s->mtrr_mask[n] : &s->mtrr_base[n];
    }
    if (msr >= MSR_MTRR_FIX4K_C0000 && msr <= MSR_MTRR_FIX4K_LAST) {
        return &s->mtrr_fixed[3 + msr - MSR_MTRR_FIX4K_C0000];
    }
    switch (msr) {
    case MSR_MTRR_FIX64K: return &s->mtrr_fixed[0];
    case MSR_MTRR_FIX16K_80000: return &s->mtrr_fixed[1];
    case MSR_MTRR_FIX16K_A0000: return &s->mtrr_fixed[2];
    case MSR_MTRR_DEF_TYPE: return &s->mtrr_def_type;
    case MSR_SYSENTER_CS: return &s->sysenter_cs;
    case MSR_SYSENTER_ESP: return &s->sysenter_esp;
    case MSR_SYSENTER_EIP: return &s->sysenter_eip;
    case MSR_MISC_ENABLE: return &s->misc_enable;
    case MSR_PAT: return &s->pat;
    case MSR_EFER: return &s->efer;
    case MSR_STAR: return &s->star;
    case MSR_LSTAR: return &s->lstar;
    case MSR_CSTAR: return &s->cstar;
    case MSR_FMASK: return &s->fmask;
    case MSR_FS_BASE: return &s->seg[4].base;
    case MSR_GS_BASE: return &s->seg[5].base;
    case MSR_KERNEL_GS_BASE: return &s->kernel_gs_base;
    case MSR_TSC_AUX: return &s->tsc_aux;
    default: return NULL;
    }
}

/* How many were accepted: the first that is refused ends it, as KVM_SET_MSRS does. */
int tcg_set_msrs(struct core_vcpu *v, const core_msr *msrs, int count) {
    struct tcg_vcpu *c = v->accel;
    struct aioemu_x86_state s;
    int rc = tcg_load_state(c, &s), done = 0;
    for (; rc == 0 && done < count; done++) {
        uint64_t *place = field(&s, msrs[done].index);
        if (place) {
            *place = msrs[done].data;
        } else if (msrs[done].index == MSR_TSC) {
            s.tsc_offset = msrs[done].data - c->tsc_adjust - core_clock_ns(v->machine);
        } else if (tcg_msr_write(c, msrs[done].index, msrs[done].data)) {
            break;
        }
    }
    if (rc == 0) {
        rc = tcg_store_state(c, &s);
    }
    return rc < 0 ? rc : done;
}

int tcg_get_msrs(struct core_vcpu *v, core_msr *msrs, int count) {
    struct tcg_vcpu *c = v->accel;
    struct aioemu_x86_state s;
    int rc = tcg_load_state(c, &s), done = 0;
    for (; rc == 0 && done < count; done++) {
        uint64_t *place = field(&s, msrs[done].index);
        if (place) {
            msrs[done].data = *place;
        } else if (msrs[done].index == MSR_TSC) {
            msrs[done].data = core_clock_ns(v->machine) + c->tsc_adjust + s.tsc_offset;
        } else if (tcg_msr_read(c, msrs[done].index, &msrs[done].data)) {
            break;
        }
    }
    return rc < 0 ? rc : done;
}
