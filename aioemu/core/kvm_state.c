/* kvm_state.c: processor state under KVM: power-on, reset, registers, CPUID, MSRs, debugging. Never while it runs. */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"

enum {
    MSR_IA32_TSC = 0x10,
    MAX_BREAKPOINTS = 4,    /* debug address registers of the processor */
    MSI_DESTINATIONS = 254, /* APICs that a message can name: 255 is all of them */
    MSI_IS_NMI = 4 << 8,    /* delivery mode */
    MSI_BASE = 0xFEE00000
};

static int check(int rc) {
    return rc < 0 ? -errno : rc;
}

/* ---- power-on and reset ----------------------------------------------------------------------------------------------- */

/* Read the MSRs of `list`, leaving out those the host refuses (some hosts list more than they serve). */
static uint32_t read_msrs(int fd, const struct kvm_msr_list *list, struct kvm_msr_entry *out) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head = {.nmsrs = 1}};
    uint32_t count = 0;
    for (uint32_t i = 0; i < list->nmsrs; i++) {
        one.head.entries[0] = (struct kvm_msr_entry){.index = list->indices[i]};
        if (list->indices[i] != MSR_IA32_TSC && ioctl(fd, KVM_GET_MSRS, &one) == 1) {
            out[count++] = one.head.entries[0];
        }
    }
    return count;
}

static int save_msrs(struct kvm_machine *k, struct kvm_cpu *c) {
    struct kvm_msr_list *list = calloc(1, sizeof *list + KVM_MAX_MSRS * sizeof(uint32_t));
    if (!list) {
        return -ENOMEM;
    }
    list->nmsrs = KVM_MAX_MSRS;
    int rc = check(ioctl(k->kvm_fd, KVM_GET_MSR_INDEX_LIST, list));
    if (rc >= 0) {
        c->msr_count = read_msrs(c->fd, list, c->msrs);
    }
    free(list);
    return rc < 0 ? rc : 0;
}

/* Keep what the kernel made of a new vCPU. */
int core_kvm_save_power_on(struct core_vcpu *v) {
    struct kvm_machine *k = kvm_of(v->machine);
    struct kvm_cpu *c = kvm_cpu_of(v);
    struct kvm_power_on *p = &c->power_on;
    if (ioctl(c->fd, KVM_GET_REGS, &p->regs) < 0 || ioctl(c->fd, KVM_GET_SREGS, &p->sregs) < 0 ||
        ioctl(c->fd, KVM_GET_FPU, &p->fpu) < 0 || ioctl(c->fd, KVM_GET_MP_STATE, &p->mp) < 0 ||
        ioctl(c->fd, KVM_GET_VCPU_EVENTS, &p->events) < 0) {
        return -errno;
    }
    p->has_lapic = (k->flags & CORE_KVM_IRQCHIP) && ioctl(c->fd, KVM_GET_LAPIC, &p->lapic) == 0;
    p->has_debug = ioctl(c->fd, KVM_GET_DEBUGREGS, &p->debug) == 0;
    p->has_xcrs = ioctl(c->fd, KVM_GET_XCRS, &p->xcrs) == 0;
    return save_msrs(k, c);
}

/* Write MSRs one by one: a host may refuse some (-EINVAL counts as not there). Returns how many were taken. */
static int write_msrs(int fd, const struct kvm_msr_entry *entries, uint32_t count) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head = {.nmsrs = 1}};
    int taken = 0;
    for (uint32_t i = 0; i < count; i++) {
        one.head.entries[0] = entries[i];
        taken += ioctl(fd, KVM_SET_MSRS, &one) == 1;
    }
    return taken;
}

int core_kvm_reset(struct core_vcpu *v) {
    struct kvm_cpu *c = kvm_cpu_of(v);
    struct kvm_power_on *p = &c->power_on;
    struct kvm_msr_entry tsc = {.index = MSR_IA32_TSC, .data = 0};
    if (ioctl(c->fd, KVM_SET_MP_STATE, &p->mp) < 0 || ioctl(c->fd, KVM_SET_SREGS, &p->sregs) < 0 ||
        ioctl(c->fd, KVM_SET_REGS, &p->regs) < 0 || ioctl(c->fd, KVM_SET_FPU, &p->fpu) < 0 ||
        (p->has_debug && ioctl(c->fd, KVM_SET_DEBUGREGS, &p->debug) < 0) ||
        (p->has_xcrs && ioctl(c->fd, KVM_SET_XCRS, &p->xcrs) < 0)) {
        return -errno;
    }
    write_msrs(c->fd, c->msrs, c->msr_count);
    write_msrs(c->fd, &tsc, 1);
    if (p->has_lapic && ioctl(c->fd, KVM_SET_LAPIC, &p->lapic) < 0) {
        return -errno;
    }
    return check(ioctl(c->fd, KVM_SET_VCPU_EVENTS, &p->events));
}

/* ---- registers -------------------------------------------------------------------------------------------------------- */

static core_segment from_kvm(const struct kvm_segment *s) {
    return (core_segment){.base = s->base,
                          .limit = s->limit,
                          .selector = s->selector,
                          .type = s->type,
                          .present = s->present,
                          .dpl = s->dpl,
                          .db = s->db,
                          .s = s->s,
                          .l = s->l,
                          .g = s->g,
                          .avl = s->avl,
                          .unusable = s->unusable};
}

static struct kvm_segment to_kvm(const core_segment *s) {
    return (struct kvm_segment){.base = s->base,
                                .limit = s->limit,
                                .selector = s->selector,
                                .type = s->type,
                                .present = s->present,
                                .dpl = s->dpl,
                                .db = s->db,
                                .s = s->s,
                                .l = s->l,
                                .g = s->g,
                                .avl = s->avl,
                                .unusable = s->unusable};
}

/* KVM names registers; the core numbers them as the processor does. */
static const size_t gpr_offset[16] = {
    offsetof(struct kvm_regs, rax), offsetof(struct kvm_regs, rcx), offsetof(struct kvm_regs, rdx),
    offsetof(struct kvm_regs, rbx), offsetof(struct kvm_regs, rsp), offsetof(struct kvm_regs, rbp),
    offsetof(struct kvm_regs, rsi), offsetof(struct kvm_regs, rdi), offsetof(struct kvm_regs, r8),
    offsetof(struct kvm_regs, r9),  offsetof(struct kvm_regs, r10), offsetof(struct kvm_regs, r11),
    offsetof(struct kvm_regs, r12), offsetof(struct kvm_regs, r13), offsetof(struct kvm_regs, r14),
    offsetof(struct kvm_regs, r15)};

static uint64_t *gpr(struct kvm_regs *regs, int i) {
    return (uint64_t *)((uint8_t *)regs + gpr_offset[i]);
}

int core_kvm_get_state(struct core_vcpu *v, core_cpu_state *state) {
    struct kvm_cpu *c = kvm_cpu_of(v);
    struct kvm_regs regs;
    struct kvm_sregs s;
    struct kvm_mp_state mp = {0};
    if (ioctl(c->fd, KVM_GET_REGS, &regs) < 0 || ioctl(c->fd, KVM_GET_SREGS, &s) < 0 ||
        ioctl(c->fd, KVM_GET_MP_STATE, &mp) < 0) {
        return -errno;
    }
    *state = (core_cpu_state){.rip = regs.rip,
                              .rflags = regs.rflags,
                              .cs = from_kvm(&s.cs),
                              .ds = from_kvm(&s.ds),
                              .es = from_kvm(&s.es),
                              .fs = from_kvm(&s.fs),
                              .gs = from_kvm(&s.gs),
                              .ss = from_kvm(&s.ss),
                              .tr = from_kvm(&s.tr),
                              .ldt = from_kvm(&s.ldt),
                              .gdt_base = s.gdt.base,
                              .gdt_limit = s.gdt.limit,
                              .idt_base = s.idt.base,
                              .idt_limit = s.idt.limit,
                              .cr0 = s.cr0,
                              .cr2 = s.cr2,
                              .cr3 = s.cr3,
                              .cr4 = s.cr4,
                              .cr8 = s.cr8,
                              .efer = s.efer,
                              .apic_base = s.apic_base,
                              .halted = mp.mp_state == KVM_MP_STATE_HALTED,
                              .uninitialized = mp.mp_state == KVM_MP_STATE_UNINITIALIZED};
    for (int i = 0; i < 16; i++) {
        state->gpr[i] = *gpr(&regs, i);
    }
    return 0;
}

static int set_mp(struct kvm_cpu *c, const core_cpu_state *state) {
    struct kvm_mp_state mp = {.mp_state = state->uninitialized ? KVM_MP_STATE_UNINITIALIZED
                                          : state->halted      ? KVM_MP_STATE_HALTED
                                                               : KVM_MP_STATE_RUNNABLE};
    struct kvm_mp_state now;
    if (ioctl(c->fd, KVM_GET_MP_STATE, &now) == 0 && now.mp_state == mp.mp_state) {
        return 0; /* without the kernel's controllers only RUNNABLE exists, and cannot be set */
    }
    return check(ioctl(c->fd, KVM_SET_MP_STATE, &mp));
}

int core_kvm_set_state(struct core_vcpu *v, const core_cpu_state *state) {
    struct kvm_cpu *c = kvm_cpu_of(v);
    struct kvm_regs regs = {.rip = state->rip, .rflags = state->rflags | 2};
    struct kvm_sregs s;
    if (ioctl(c->fd, KVM_GET_SREGS, &s) < 0) {
        return -errno;
    }
    for (int i = 0; i < 16; i++) {
        *gpr(&regs, i) = state->gpr[i];
    }
    s.cs = to_kvm(&state->cs), s.ds = to_kvm(&state->ds), s.es = to_kvm(&state->es), s.fs = to_kvm(&state->fs);
    s.gs = to_kvm(&state->gs), s.ss = to_kvm(&state->ss), s.tr = to_kvm(&state->tr), s.ldt = to_kvm(&state->ldt);
    s.gdt.base = state->gdt_base, s.gdt.limit = state->gdt_limit;
    s.idt.base = state->idt_base, s.idt.limit = state->idt_limit;
    s.cr0 = state->cr0, s.cr2 = state->cr2, s.cr3 = state->cr3, s.cr4 = state->cr4, s.cr8 = state->cr8;
    s.efer = state->efer;
    s.apic_base = state->apic_base;
    memset(s.interrupt_bitmap, 0, sizeof s.interrupt_bitmap);
    if (ioctl(c->fd, KVM_SET_SREGS, &s) < 0 || ioctl(c->fd, KVM_SET_REGS, &regs) < 0) {
        return -errno;
    }
    return set_mp(c, state);
}

int core_kvm_translate(struct core_vcpu *v, uint64_t gva, uint64_t *gpa) {
    struct kvm_translation t = {.linear_address = gva};
    if (ioctl(kvm_cpu_of(v)->fd, KVM_TRANSLATE, &t) < 0) {
        return -errno;
    }
    *gpa = t.physical_address;
    return t.valid ? 0 : -EFAULT;
}

/* ---- CPUID and MSRs ----------------------------------------------------------------------------------------------------- */

int core_kvm_check(int kvm_fd, int capability) {
    return check(ioctl(kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)capability));
}

/* What this host can give a guest; returns how many entries were filled. */
int core_kvm_supported_cpuid(int kvm_fd, core_cpuid *entries, int max) {
    struct kvm_cpuid2 *table = calloc(1, sizeof *table + KVM_MAX_CPUID * sizeof(struct kvm_cpuid_entry2));
    if (!table) {
        return -ENOMEM;
    }
    table->nent = KVM_MAX_CPUID;
    int rc = check(ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, table));
    for (uint32_t i = 0; rc >= 0 && i < table->nent && i < (uint32_t)max; i++) {
        const struct kvm_cpuid_entry2 *e = &table->entries[i];
        entries[i] = (core_cpuid){e->function, e->index, e->flags, e->eax, e->ebx, e->ecx, e->edx};
        rc = (int)i + 1;
    }
    free(table);
    return rc;
}

int core_kvm_set_cpuid(struct core_vcpu *v, const core_cpuid *entries, int count) {
    if (count < 0 || count > KVM_MAX_CPUID) {
        return -E2BIG;
    }
    struct kvm_cpuid2 *table = calloc(1, sizeof *table + (size_t)count * sizeof(struct kvm_cpuid_entry2));
    if (!table) {
        return -ENOMEM;
    }
    table->nent = (uint32_t)count;
    for (int i = 0; i < count; i++) {
        const core_cpuid *e = &entries[i];
        table->entries[i] = (struct kvm_cpuid_entry2){.function = e->function,
                                                      .index = e->index,
                                                      .flags = e->flags,
                                                      .eax = e->eax,
                                                      .ebx = e->ebx,
                                                      .ecx = e->ecx,
                                                      .edx = e->edx};
    }
    int rc = check(ioctl(kvm_cpu_of(v)->fd, KVM_SET_CPUID2, table));
    free(table);
    return rc;
}

int core_kvm_set_msrs(struct core_vcpu *v, const core_msr *msrs, int count) {
    int taken = 0;
    for (int i = 0; i < count; i++) {
        struct kvm_msr_entry entry = {.index = msrs[i].index, .data = msrs[i].data};
        taken += write_msrs(kvm_cpu_of(v)->fd, &entry, 1);
    }
    return taken;
}

/* Fill in `data` of each; returns how many the host knows, those first. */
int core_kvm_get_msrs(struct core_vcpu *v, core_msr *msrs, int count) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head = {.nmsrs = 1}};
    int known = 0;
    for (int i = 0; i < count; i++) {
        one.head.entries[0] = (struct kvm_msr_entry){.index = msrs[i].index};
        if (ioctl(kvm_cpu_of(v)->fd, KVM_GET_MSRS, &one) == 1) {
            msrs[known++] = (core_msr){.index = msrs[i].index, .data = one.head.entries[0].data};
        }
    }
    return known;
}

/* As a message to the vCPU's APIC (SDM 3, 11.11): KVM_NMI would wait until the guest leaves KVM_RUN, which one that halts
 * or spins never does, and the reactor with it. Without APICs in the kernel there is no other way. */
int core_kvm_nmi(struct core_vcpu *v) {
    struct kvm_machine *k = kvm_of(v->machine);
    if (!(k->flags & CORE_KVM_IRQCHIP) || v->apic_id > MSI_DESTINATIONS) {
        return check(ioctl(kvm_cpu_of(v)->fd, KVM_NMI, 0));
    }
    struct kvm_msi msi = {.address_lo = (uint32_t)MSI_BASE | v->apic_id << 12, .data = MSI_IS_NMI};
    int rc = check(ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi));
    return rc < 0 ? rc : 0;
}

int core_kvm_debug(struct core_vcpu *v, bool single_step, const uint64_t *breakpoints, int count) {
    struct kvm_guest_debug debug = {0};
    if (count < 0 || count > MAX_BREAKPOINTS) {
        return -EINVAL;
    }
    if (single_step) {
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    }
    for (int i = 0; i < count; i++) {
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        debug.arch.debugreg[i] = breakpoints[i];
        debug.arch.debugreg[7] |= 2ull << (2 * i); /* global enable, execute, one byte */
    }
    return check(ioctl(kvm_cpu_of(v)->fd, KVM_SET_GUEST_DEBUG, &debug));
}
