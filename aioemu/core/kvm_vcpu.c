/* kvm_vcpu.c: the loop of a vCPU thread under KVM: enter, classify the exit, answer it. No allocation, no Python. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm.h"

int core_kvm_vcpu_open(struct core_vcpu *v) {
    struct kvm_machine *k = kvm_of(v->machine);
    struct kvm_cpu *c = calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    v->accel = c;
    c->run = MAP_FAILED;
    c->run_size = k->run_size;
    c->fd = -1;
    int rc = core_kvm_make_chips(k);
    if (rc == 0) {
        c->fd = ioctl(k->vm_fd, KVM_CREATE_VCPU, (unsigned long)v->apic_id);
        rc = c->fd < 0 ? -errno : 0;
    }
    if (rc == 0) {
        c->run = mmap(NULL, c->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
        rc = c->run == MAP_FAILED ? -errno : core_kvm_save_power_on(v);
    }
    if (rc < 0) {
        core_kvm_vcpu_close(v);
    } else if (v->index == 0 && k->gather_offset && k->gather_offset < c->run_size) {
        atomic_store(&k->gathered, (struct kvm_coalesced_mmio_ring *)((uint8_t *)c->run + k->gather_offset));
    }
    return rc;
}

void core_kvm_vcpu_close(struct core_vcpu *v) {
    struct kvm_cpu *c = kvm_cpu_of(v);
    if (v->index == 0) {
        atomic_store(&kvm_of(v->machine)->gathered, NULL);
    }
    if (c->run != MAP_FAILED) {
        munmap(c->run, c->run_size);
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    free(c);
    v->accel = NULL;
}

/* The flag takes a thread out that is about to enter; the signal one that is inside. */
void core_kvm_kick(struct core_thread *t) {
    struct core_machine *m = t->machine;
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        if (m->vcpus[i]->thread == t) {
            __atomic_store_n(&kvm_cpu_of(m->vcpus[i])->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        }
    }
    syscall(SYS_tgkill, getpid(), atomic_load(&t->tid), core_kick_signal());
}

static void count(struct core_vcpu *v, enum core_exit kind) {
    atomic_fetch_add_explicit(&v->exits[kind], 1, memory_order_relaxed);
}

static void exit_io(struct core_vcpu *v, struct kvm_run *run) {
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    bool is_write = run->io.direction == KVM_EXIT_IO_OUT;
    count(v, is_write ? CORE_EXIT_PIO_WRITE : CORE_EXIT_PIO_READ);
    for (uint32_t i = 0; i < run->io.count; i++) {
        core_dispatch(v, CORE_PIO, run->io.port, data, run->io.size, is_write);
        data += run->io.size;
    }
}

static void exit_mmio(struct core_vcpu *v, struct kvm_run *run) {
    count(v, run->mmio.is_write ? CORE_EXIT_MMIO_WRITE : CORE_EXIT_MMIO_READ);
    uint32_t size = run->mmio.len <= CORE_ACCESS_MAX ? run->mmio.len : CORE_ACCESS_MAX;
    core_dispatch(v, CORE_MMIO, run->mmio.phys_addr, run->mmio.data, size, run->mmio.is_write);
}

static int stop_with(core_event *stop, enum core_stop why, uint64_t detail, uint64_t more) {
    stop->value = why;
    stop->offset = detail;
    stop->aux = more;
    return 1;
}

static int exit_system(struct kvm_run *run, core_event *stop) {
    switch (run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN: return stop_with(stop, CORE_STOP_POWEROFF, 0, 0);
    case KVM_SYSTEM_EVENT_RESET: return stop_with(stop, CORE_STOP_RESET, 0, 0);
    default: return stop_with(stop, CORE_STOP_CRASH, run->system_event.type, 0);
    }
}

/* Exits that are rare, and those that end the run. 1 = *stop says why. */
static int exit_other(struct core_vcpu *v, struct kvm_run *run, core_event *stop) {
    switch (run->exit_reason) {
    case KVM_EXIT_HLT: /* only without the kernel's interrupt controllers: nothing could wake it */
        count(v, CORE_EXIT_HLT);
        return stop_with(stop, CORE_STOP_HALTED, 0, 0);
    case KVM_EXIT_SHUTDOWN: count(v, CORE_EXIT_SYSTEM); return stop_with(stop, CORE_STOP_SHUTDOWN, 0, 0);
    case KVM_EXIT_SYSTEM_EVENT: count(v, CORE_EXIT_SYSTEM); return exit_system(run, stop);
    case KVM_EXIT_DEBUG:
        count(v, CORE_EXIT_OTHER);
        return stop_with(stop, CORE_STOP_DEBUG, run->debug.arch.exception, run->debug.arch.pc);
    case KVM_EXIT_FAIL_ENTRY:
        return stop_with(stop, CORE_STOP_FAIL_ENTRY, run->fail_entry.hardware_entry_failure_reason, 0);
    case KVM_EXIT_INTERNAL_ERROR: return stop_with(stop, CORE_STOP_INTERNAL_ERROR, run->internal.suberror, 0);
    case KVM_EXIT_HYPERCALL:
        count(v, CORE_EXIT_OTHER);
        run->hypercall.ret = (uint64_t)-1000; /* KVM_ENOSYS of the guest interface */
        return 0;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN: count(v, CORE_EXIT_INTR); return 0;
    default: return stop_with(stop, CORE_STOP_INTERNAL_ERROR, UINT32_MAX, run->exit_reason);
    }
}

static int handle(struct core_vcpu *v, struct kvm_run *run, core_event *stop) {
    switch (run->exit_reason) {
    case KVM_EXIT_IO: exit_io(v, run); return 0;
    case KVM_EXIT_MMIO: exit_mmio(v, run); return 0;
    default: return exit_other(v, run, stop);
    }
}

/* Enter once: 0 = go on, 1 = *stop, -EINTR = a kick came first. */
static int enter(struct core_vcpu *v, struct kvm_cpu *c, core_event *stop) {
    int rc = ioctl(c->fd, KVM_RUN, 0);
    int error = errno;
    core_kvm_gather_drain(v);
    if (rc == 0) {
        return handle(v, c->run, stop);
    }
    if (error == EINTR || error == EAGAIN) {
        count(v, CORE_EXIT_INTR);
        return -EINTR;
    }
    return stop_with(stop, CORE_STOP_HOST_ERROR, (uint64_t)error, 0);
}

int core_kvm_run(struct core_vcpu *v, core_event *stop) {
    struct kvm_cpu *c = kvm_cpu_of(v);
    for (;;) {
        /* Cleared before the look at `attention`: whoever asks for attention sets that first, then this. */
        __atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        if (atomic_load(&v->thread->attention)) {
            return 0;
        }
        if (enter(v, c, stop) == 1) {
            return 1;
        }
    }
}

/* KVM finishes a port or memory access on the next entry; make that entry without running the guest. */
void core_kvm_settle(struct core_vcpu *v) {
    struct kvm_cpu *c = kvm_cpu_of(v);
    core_event stop = {0};
    do {
        __atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    } while (enter(v, c, &stop) == 0);
}
