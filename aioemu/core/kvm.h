/* kvm.h: what the files of the kvm accelerator share. Facts: Documentation/virt/kvm/api.rst of Linux. */
#pragma once

#include <linux/kvm.h>

#include "threads.h"

enum {
    KVM_MAX_CPUID = 256,                /* entries: more than KVM reports for any processor (KVM_MAX_CPUID_ENTRIES) */
    KVM_MAX_MSRS = 512,                 /* of KVM_GET_MSR_INDEX_LIST: about 120 today */
    KVM_TSS_ADDR = 0xfffbd000u,         /* three pages KVM wants on Intel hosts; below the firmware, as QEMU has it */
    KVM_IDENTITY_MAP_ADDR = 0xfffbc000u /* one page, likewise */
};

/* The state a vCPU powers on with, as the kernel made it: what a reset goes back to. */
struct kvm_power_on {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
    struct kvm_lapic_state lapic;
    struct kvm_mp_state mp;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debug;
    struct kvm_xcrs xcrs;
    bool has_lapic, has_xcrs, has_debug;
};

struct kvm_cpu {
    int fd;
    size_t run_size;
    struct kvm_run *run;
    struct kvm_power_on power_on;
    uint32_t msr_count;
    struct kvm_msr_entry msrs[KVM_MAX_MSRS]; /* power-on values */
};

struct kvm_machine {
    int kvm_fd, vm_fd;
    uint32_t flags;
    bool has_chips;
    size_t run_size;
    struct kvm_irqchip chips[3]; /* power-on state: PIC master, PIC slave, I/O APIC */
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
    bool clock_saved;
    /* writes that the kernel gathered (kvm_gather.c) */
    pthread_mutex_t gather_lock;
    struct kvm_coalesced_mmio_ring *_Atomic gathered; /* in the first vCPU's mapping; NULL: this host cannot */
    size_t gather_offset;                             /* of the ring in a vCPU's mapping; 0: this host cannot */
};

static inline struct kvm_machine *kvm_of(struct core_machine *m) {
    return m->accel_data;
}

static inline struct kvm_cpu *kvm_cpu_of(struct core_vcpu *v) {
    return v->accel;
}

/* kvm.c */
int core_kvm_make_chips(struct kvm_machine *k);

/* kvm_vcpu.c */
int core_kvm_vcpu_open(struct core_vcpu *v);
void core_kvm_vcpu_close(struct core_vcpu *v);
int core_kvm_run(struct core_vcpu *v, core_event *stop);
void core_kvm_settle(struct core_vcpu *v);
void core_kvm_kick(struct core_thread *t);

/* kvm_gather.c */
void core_kvm_gather_open(struct kvm_machine *k);
void core_kvm_gather_drain(struct core_vcpu *v);
int core_kvm_gather(struct core_machine *m, int space, uint64_t address, uint32_t size, bool on);
void core_kvm_gather_flush(struct core_machine *m);

/* kvm_state.c */
int core_kvm_save_power_on(struct core_vcpu *v);
int core_kvm_reset(struct core_vcpu *v);
int core_kvm_get_state(struct core_vcpu *v, core_cpu_state *state);
int core_kvm_set_state(struct core_vcpu *v, const core_cpu_state *state);
int core_kvm_set_cpuid(struct core_vcpu *v, const core_cpuid *entries, int count);
int core_kvm_set_msrs(struct core_vcpu *v, const core_msr *msrs, int count);
int core_kvm_get_msrs(struct core_vcpu *v, core_msr *msrs, int count);
int core_kvm_nmi(struct core_vcpu *v);
int core_kvm_debug(struct core_vcpu *v, bool single_step, const uint64_t *breakpoints, int count);
int core_kvm_translate(struct core_vcpu *v, uint64_t gva, uint64_t *gpa);
