/* a64_cpu.c: how an AArch64 vCPU takes events and asks its machine: lines, generic timer, HVC and SMC.
 *
 * The vCPU has EL1 and EL0 only. Facts: Arm ARM (DDI 0487).
 */
#include "qemu/osdep.h"
#include "cpu.h"
#include "internals.h"
#include "exec/exec-all.h"
#include "qemu/timer.h"
#include "uc_priv.h"
#include "aioemu/hooks.h"

#define NS_PER_S          UINT64_C(1000000000)
#define CTL_ENABLE        1u
#define CTL_ISTATUS       4u
#define KIND_HVC          2
#define KIND_SMC          3
#define INSTRUCTION_BYTES 4

#define LINE_IRQ 1u
#define LINE_FIQ 2u

int AIOEMU_FN(aioemu_cpu_create)(struct aioemu_vcpu *vcpu) {
    ARM_CPU((CPUState *)vcpu->cpu)->mp_affinity = vcpu->index;
    return aioemu_a64_reset(vcpu);
}

/* What arm64_release() frees of the first CPU. */
void AIOEMU_FN(aioemu_cpu_free)(CPUState *cs) {
    ARMCPU *cpu = ARM_CPU(cs);

    g_free(cpu->cpreg_indexes);
    g_free(cpu->cpreg_values);
    g_free(cpu->cpreg_vmstate_indexes);
    g_free(cpu->cpreg_vmstate_values);
    g_hash_table_destroy(cpu->cp_regs);
}

/* The next thing this CPU does is to take an undefined instruction exception. */
void AIOEMU_FN(aioemu_undefined)(CPUState *cpu) {
    CPUARMState *env = cpu->env_ptr;

    cpu->exception_index = EXCP_UDEF;
    env->exception.syndrome = syn_uncategorized();
    env->exception.target_el = exception_target_el(env);
}

/* No EL2 and EL3; no SVE, which the state does not carry; no pointer authentication, which only costs. */
void AIOEMU_FN(aioemu_cpu_model)(ARMCPU *cpu) {
    uint64_t pauth = (UINT64_C(0xff) << 4) | (UINT64_C(0xff) << 24); /* APA, API, GPA, GPI */

    cpu->has_el2 = false;
    cpu->has_el3 = false;
    cpu->isar.id_aa64pfr0 &= ~(UINT64_C(15) << 32);
    cpu->isar.id_aa64isar1 &= ~pauth;
    cpu->psci_conduit = QEMU_PSCI_CONDUIT_SMC; /* both ways lead to aioemu_is_call() */
    cpu->gt_cntfrq_hz = cpu->env.uc->aioemu->counter_hz;
}

bool AIOEMU_FN(aioemu_cpu_has_work)(CPUState *cpu) {
    return __atomic_load_n(&cpu->aioemu->lines, __ATOMIC_SEQ_CST) != 0;
}

/* Between two blocks. -1: leave the CPU loop; 0: go on. Whether a line interrupts, the emulator decides after this. */
int AIOEMU_FN(aioemu_handle_events)(CPUState *cpu) {
    struct aioemu_vcpu *vcpu = cpu->aioemu;
    uint32_t events = __atomic_fetch_and(&vcpu->events, AIOEMU_EVENT_KICK, __ATOMIC_SEQ_CST);

    if (events & AIOEMU_EVENT_DMA) {
        aioemu_apply_dma(cpu->uc->aioemu);
    }
    if (events & AIOEMU_EVENT_LINES) {
        uint32_t lines = __atomic_load_n(&vcpu->lines, __ATOMIC_SEQ_CST);

        cpu->interrupt_request &= ~(CPU_INTERRUPT_HARD | CPU_INTERRUPT_FIQ);
        cpu->interrupt_request |= (lines & LINE_IRQ) ? CPU_INTERRUPT_HARD : 0;
        cpu->interrupt_request |= (lines & LINE_FIQ) ? CPU_INTERRUPT_FIQ : 0;
    }
    if (events & AIOEMU_EVENT_KICK) {
        return -1;
    }
    return events ? 1 : 0;
}

/* CNTPCT. */
uint64_t AIOEMU_FN(aioemu_counter)(CPUARMState *env) {
    struct aioemu_vcpu *vcpu = env_cpu(env)->aioemu;
    uint64_t hz = env->uc->aioemu->counter_hz;

    if (vcpu && vcpu->engine->cb.counter) {
        return vcpu->engine->cb.counter(vcpu->opaque);
    }
    return (uint64_t)((unsigned __int128)get_clock() * hz / NS_PER_S);
}

/* CTL with ISTATUS as it is now. */
uint64_t AIOEMU_FN(aioemu_timer_control)(CPUARMState *env, int timer) {
    const ARMGenericTimer *gt = &env->cp15.c14_timer[timer];
    uint64_t control = gt->ctl & ~(uint64_t)CTL_ISTATUS;

    if ((control & CTL_ENABLE) && (int64_t)(AIOEMU_FN(aioemu_counter)(env) - gt->cval) >= 0) {
        control |= CTL_ISTATUS;
    }
    return control;
}

/* The guest wrote a timer's CTL, CVAL or TVAL. */
void AIOEMU_FN(aioemu_timer_changed)(CPUARMState *env, int timer) {
    struct aioemu_vcpu *vcpu = env_cpu(env)->aioemu;

    if (vcpu && vcpu->engine->cb.a64_timer && (timer == GTIMER_PHYS || timer == GTIMER_VIRT)) {
        const ARMGenericTimer *gt = &env->cp15.c14_timer[timer];

        vcpu->engine->cb.a64_timer(vcpu->opaque, timer == GTIMER_VIRT, gt->ctl & 3, gt->cval);
    }
}

bool AIOEMU_FN(aioemu_is_call)(CPUARMState *env, int exception) {
    return (exception == EXCP_HVC || exception == EXCP_SMC) && env->uc->aioemu->cb.a64_call;
}

/* HVC or SMC was executed; the PC is behind it. Refused: it was undefined. */
void AIOEMU_FN(aioemu_call)(CPUARMState *env) {
    CPUState *cpu = env_cpu(env);
    struct aioemu_vcpu *vcpu = cpu->aioemu;
    int kind = cpu->exception_index == EXCP_HVC ? KIND_HVC : KIND_SMC;

    if (vcpu->engine->cb.a64_call(vcpu->opaque, kind, env->exception.syndrome & 0xffff, env->xregs)) {
        env->pc -= INSTRUCTION_BYTES;
        AIOEMU_FN(aioemu_undefined)(cpu);
        arm_cpu_do_interrupt(cpu);
    }
}

/* There are no ports. */
uint32_t AIOEMU_FN(aioemu_in)(struct uc_struct *uc, uint32_t port, unsigned size, uintptr_t retaddr) {
    return UINT32_MAX;
}

void AIOEMU_FN(aioemu_out)(struct uc_struct *uc, uint32_t port, unsigned size, uint32_t value, uintptr_t retaddr) {
}
