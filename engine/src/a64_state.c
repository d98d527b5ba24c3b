/* a64_state.c: read and write an AArch64 vCPU's general, floating point and system registers; reset; lines. */
#include "qemu/osdep.h"
#include "cpu.h"
#include "internals.h"
#include "kvm-consts.h"
#include "exec/exec-all.h"
#include "uc_priv.h"
#include "aioemu/hooks.h"

#include <errno.h>
#include <string.h>

static int check(struct aioemu_vcpu *vcpu) {
    return vcpu->engine->arch == AIOEMU_ARCH_AARCH64 ? 0 : -EINVAL;
}

int aioemu_a64_get_state(aioemu_vcpu *vcpu, struct aioemu_a64_state *s) {
    CPUState *cpu = vcpu->cpu;
    CPUARMState *env = cpu->env_ptr;
    uint32_t lines = __atomic_load_n(&vcpu->lines, __ATOMIC_SEQ_CST);

    if (check(vcpu) || s->size != sizeof(*s)) {
        return -EINVAL;
    }
    if (vcpu->inside && vcpu->retaddr) {
        aioemu_restore_state(cpu, vcpu->retaddr);
    }
    memset(s, 0, sizeof(*s));
    s->size = sizeof(*s);
    if (is_a64(env)) {
        aarch64_save_sp(env, arm_current_el(env));
        s->pc = env->pc;
        s->pstate = pstate_read(env);
    } else {
        aarch64_sync_32_to_64(env);
        s->pc = env->regs[15];
        s->pstate = cpsr_read(env);
    }
    memcpy(s->x, env->xregs, sizeof(s->x));
    s->sp_el0 = env->sp_el[0];
    s->sp_el1 = env->sp_el[1];
    s->elr_el1 = env->elr_el[1];
    s->spsr_el1 = env->banked_spsr[aarch64_banked_spsr_index(1)];
    s->halted = cpu->halted != 0;
    s->irq = lines & 1;
    s->fiq = (lines >> 1) & 1;
    s->fpcr = vfp_get_fpcr(env);
    s->fpsr = vfp_get_fpsr(env);
    for (int i = 0; i < 32; i++) {
        memcpy(s->v[i], env->vfp.zregs[i].d, sizeof(s->v[i]));
    }
    return 0;
}

static void load_general(CPUARMState *env, const struct aioemu_a64_state *s) {
    bool bits64 = !(s->pstate & PSTATE_nRW);

    memcpy(env->xregs, s->x, sizeof(s->x));
    env->sp_el[0] = s->sp_el0;
    env->sp_el[1] = s->sp_el1;
    env->elr_el[1] = s->elr_el1;
    env->banked_spsr[aarch64_banked_spsr_index(1)] = s->spsr_el1;
    env->aarch64 = bits64;
    if (bits64) {
        pstate_write(env, s->pstate);
        aarch64_restore_sp(env, arm_current_el(env));
        env->pc = s->pc;
    } else {
        cpsr_write(env, s->pstate, UINT32_MAX, CPSRWriteRaw);
        aarch64_sync_64_to_32(env);
        env->regs[15] = s->pc;
    }
}

int aioemu_a64_set_state(aioemu_vcpu *vcpu, const struct aioemu_a64_state *s) {
    CPUState *cpu = vcpu->cpu;
    CPUARMState *env = cpu->env_ptr;
    unsigned el = (s->pstate >> 2) & 3;

    if (check(vcpu) || s->size != sizeof(*s) || (s->pstate >> 32)) {
        return -EINVAL;
    }
    /* The vCPU has EL0 and EL1; AArch32 only below. */
    if ((s->pstate & PSTATE_nRW) ? (s->pstate & 15) != 0 : el > 1 || (el == 0 && (s->pstate & PSTATE_SP))) {
        return -EINVAL;
    }
    if (vcpu->inside) {
        return -EBUSY;
    }
    vcpu->engine->uc->cpu = cpu;
    load_general(env, s);
    vfp_set_fpcr(env, s->fpcr);
    vfp_set_fpsr(env, s->fpsr);
    for (int i = 0; i < 32; i++) {
        memcpy(env->vfp.zregs[i].d, s->v[i], sizeof(s->v[i]));
    }
    cpu->halted = s->halted;
    cpu->exception_index = -1;
    aioemu_a64_set_line(vcpu, 0, s->irq);
    aioemu_a64_set_line(vcpu, 1, s->fiq);
    arm_rebuild_hflags(env);
    tlb_flush(cpu);
    return 0;
}

/* The register (encoding) names, if its value can be moved in and out. */
static const ARMCPRegInfo *find_register(struct aioemu_vcpu *vcpu, uint32_t encoding) {
    ARMCPU *cpu = ARM_CPU((CPUState *)vcpu->cpu);
    unsigned op0 = (encoding >> 14) & 3, op1 = (encoding >> 11) & 7;
    unsigned crn = (encoding >> 7) & 15, crm = (encoding >> 3) & 15, op2 = encoding & 7;
    const ARMCPRegInfo *ri =
        get_arm_cp_reginfo(cpu->cp_regs, ENCODE_AA64_CP_REG(CP_REG_ARM64_SYSREG_CP, crn, crm, op0, op1, op2));

    return ri && !(ri->type & (ARM_CP_SPECIAL | ARM_CP_NO_RAW)) ? ri : NULL;
}

int aioemu_a64_get_sysreg(aioemu_vcpu *vcpu, uint32_t encoding, uint64_t *value) {
    const ARMCPRegInfo *ri;

    if (check(vcpu)) {
        return -EINVAL;
    }
    ri = find_register(vcpu, encoding);
    if (!ri || (!(ri->type & ARM_CP_CONST) && !ri->raw_readfn && !ri->readfn && !ri->fieldoffset)) {
        return -ENOENT;
    }
    *value = read_raw_cp_reg(((CPUState *)vcpu->cpu)->env_ptr, ri);
    return 0;
}

int aioemu_a64_set_sysreg(aioemu_vcpu *vcpu, uint32_t encoding, uint64_t value) {
    CPUState *cpu = vcpu->cpu;
    CPUARMState *env = cpu->env_ptr;
    const ARMCPRegInfo *ri;

    if (check(vcpu)) {
        return -EINVAL;
    }
    if (vcpu->inside) {
        return -EBUSY;
    }
    ri = find_register(vcpu, encoding);
    if (!ri || (ri->type & ARM_CP_CONST) || (!ri->raw_writefn && !ri->writefn && !ri->fieldoffset)) {
        return -ENOENT;
    }
    vcpu->engine->uc->cpu = cpu;
    if (ri->raw_writefn || ri->writefn) {
        (ri->raw_writefn ? ri->raw_writefn : ri->writefn)(env, ri, value);
    } else if (cpreg_field_is_64bit(ri)) {
        CPREG_FIELD64(env, ri) = value;
    } else {
        CPREG_FIELD32(env, ri) = value;
    }
    arm_rebuild_hflags(env);
    tlb_flush(cpu);
    return 0;
}

int aioemu_a64_reset(aioemu_vcpu *vcpu) {
    CPUState *cpu = vcpu->cpu;
    CPUARMState *env = cpu->env_ptr;

    if (check(vcpu)) {
        return -EINVAL;
    }
    if (vcpu->inside) {
        return -EBUSY;
    }
    vcpu->engine->uc->cpu = cpu;
    cpu_reset(cpu);
    env->cp15.c14_cntfrq = vcpu->engine->counter_hz;
    env->ZF = 1; /* kept inverted: no flag set */
    cpu->halted = 0;
    __atomic_store_n(&vcpu->lines, 0, __ATOMIC_SEQ_CST);
    __atomic_fetch_and(&vcpu->events, AIOEMU_EVENT_KICK | AIOEMU_EVENT_DMA, __ATOMIC_SEQ_CST);
    arm_rebuild_hflags(env);
    tlb_flush(cpu);
    return 0;
}

void aioemu_a64_set_line(aioemu_vcpu *vcpu, int line, int level) {
    uint32_t bit = line ? 2u : 1u;

    if (level) {
        __atomic_fetch_or(&vcpu->lines, bit, __ATOMIC_SEQ_CST);
    } else {
        __atomic_fetch_and(&vcpu->lines, ~bit, __ATOMIC_SEQ_CST);
    }
    aioemu_raise(vcpu, AIOEMU_EVENT_LINES);
}
