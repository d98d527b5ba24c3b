/* vcpu.c: processor state from the control thread, while the machine is paused. The accelerator does the work. */
#include <errno.h>

#include "threads.h"

/* The vCPU, when its state may be touched: its thread stands at the gate or has none yet. */
static int settled(core_machine *m, uint32_t vcpu, struct core_vcpu **v) {
    if (vcpu >= m->vcpu_count) {
        return -EINVAL;
    }
    *v = m->vcpus[vcpu];
    return core_machine_is_paused(m) || atomic_load(&(*v)->thread->stopped) ? 0 : -EBUSY;
}

int core_vcpu_get_state(core_machine *m, uint32_t vcpu, core_cpu_state *state) {
    struct core_vcpu *v;
    int rc = settled(m, vcpu, &v);
    return rc < 0 ? rc : m->accel->get_state(v, state);
}

int core_vcpu_set_state(core_machine *m, uint32_t vcpu, const core_cpu_state *state) {
    struct core_vcpu *v;
    int rc = settled(m, vcpu, &v);
    return rc < 0 ? rc : m->accel->set_state(v, state);
}

int core_vcpu_translate(core_machine *m, uint32_t vcpu, uint64_t gva, uint64_t *gpa) {
    struct core_vcpu *v;
    int rc = settled(m, vcpu, &v);
    if (rc == 0 && !m->accel->translate) {
        rc = -ENOSYS;
    }
    return rc < 0 ? rc : m->accel->translate(v, gva, gpa);
}

int core_vcpu_set_cpuid(core_machine *m, uint32_t vcpu, const core_cpuid *entries, int count) {
    struct core_vcpu *v;
    int rc = settled(m, vcpu, &v);
    return rc < 0 ? rc : m->accel->set_cpuid(v, entries, count);
}

int core_vcpu_set_msrs(core_machine *m, uint32_t vcpu, const core_msr *msrs, int count) {
    struct core_vcpu *v;
    int rc = settled(m, vcpu, &v);
    return rc < 0 ? rc : m->accel->set_msrs(v, msrs, count);
}

int core_vcpu_get_msrs(core_machine *m, uint32_t vcpu, core_msr *msrs, int count) {
    struct core_vcpu *v;
    int rc = settled(m, vcpu, &v);
    return rc < 0 ? rc : m->accel->get_msrs(v, msrs, count);
}

int core_vcpu_debug(core_machine *m, uint32_t vcpu, int single_step, const uint64_t *breakpoints, int count) {
    struct core_vcpu *v;
    int rc = settled(m, vcpu, &v);
    return rc < 0 ? rc : m->accel->debug(v, single_step != 0, breakpoints, count);
}

int core_vcpu_inject_nmi(core_machine *m, uint32_t vcpu) {
    return vcpu < m->vcpu_count ? m->accel->nmi(m->vcpus[vcpu]) : -EINVAL;
}

/* Bring every vCPU and the accelerator's own chips to their power-on state. The machine must be paused. */
int core_machine_reset(core_machine *m) {
    if (!core_machine_is_paused(m)) {
        return -EBUSY;
    }
    int rc = m->accel && m->accel->reset_platform ? m->accel->reset_platform(m) : 0;
    for (uint32_t i = 0; i < m->vcpu_count && rc >= 0; i++) {
        rc = m->accel->reset(m->vcpus[i]);
    }
    return rc;
}
