/* kvm.c: a virtual machine of /dev/kvm: memory, interrupts, doorbells, clock. vCPUs are in kvm_vcpu.c. */
#define _GNU_SOURCE
#include "kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int check(int rc) {
    return rc < 0 ? -errno : rc;
}

static int save_chips(struct kvm_machine *k) {
    for (uint32_t i = 0; i < 3 && (k->flags & CORE_KVM_IRQCHIP); i++) {
        k->chips[i].chip_id = i;
        if (ioctl(k->vm_fd, KVM_GET_IRQCHIP, &k->chips[i]) < 0) {
            return -errno;
        }
    }
    if ((k->flags & CORE_KVM_PIT) && ioctl(k->vm_fd, KVM_GET_PIT2, &k->pit) < 0) {
        return -errno;
    }
    return 0;
}

/*
 * The interrupt chips come with the first vCPU, after the memory: each of them changes the kernel's bus, and to add
 * memory then waits for a grace period, 7 ms on a host that was measured, against 0.1 ms before.
 */
int core_kvm_make_chips(struct kvm_machine *k) {
    if (k->has_chips) {
        return 0;
    }
    k->has_chips = true;
    if (ioctl(k->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)KVM_TSS_ADDR) < 0) {
        return -errno;
    }
    uint64_t identity = KVM_IDENTITY_MAP_ADDR;
    if (ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0) {
        return -errno;
    }
    if ((k->flags & CORE_KVM_IRQCHIP) && ioctl(k->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0) {
        return -errno;
    }
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    if ((k->flags & CORE_KVM_PIT) && ioctl(k->vm_fd, KVM_CREATE_PIT2, &pit) < 0) {
        return -errno;
    }
    return save_chips(k);
}

/* Give the machine a KVM virtual machine. The caller keeps `kvm_fd` (an open /dev/kvm). */
int core_kvm_attach(core_machine *m, int kvm_fd, uint32_t flags) {
    if (m->accel) {
        return -EBUSY;
    }
    if (ioctl(kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
        return -ENOTSUP;
    }
    struct kvm_machine *k = calloc(1, sizeof *k);
    if (!k) {
        return -ENOMEM;
    }
    k->kvm_fd = kvm_fd;
    k->flags = flags;
    k->vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    int rc = check(k->vm_fd);
    if (rc >= 0) {
        rc = check(ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0));
        k->run_size = rc > 0 ? (size_t)rc : 0;
    }
    if (rc < 0) {
        if (k->vm_fd >= 0) {
            close(k->vm_fd);
        }
        free(k);
        return rc;
    }
    core_kvm_gather_open(k);
    m->accel = &core_accel_kvm;
    m->accel_data = k;
    return 0;
}

static void kvm_close(struct core_machine *m) {
    close(kvm_of(m)->vm_fd);
    pthread_mutex_destroy(&kvm_of(m)->gather_lock);
    free(m->accel_data);
    m->accel_data = NULL;
}

static int kvm_reset_platform(struct core_machine *m) {
    struct kvm_machine *k = kvm_of(m);
    for (uint32_t i = 0; i < 3 && (k->flags & CORE_KVM_IRQCHIP); i++) {
        if (ioctl(k->vm_fd, KVM_SET_IRQCHIP, &k->chips[i]) < 0) {
            return -errno;
        }
    }
    if ((k->flags & CORE_KVM_PIT) && ioctl(k->vm_fd, KVM_SET_PIT2, &k->pit) < 0) {
        return -errno;
    }
    return 0;
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static int set_slot(struct core_machine *m, uint32_t slot, uint64_t gpa, uint64_t size, uint8_t *host, uint32_t flags) {
    struct kvm_userspace_memory_region region = {.slot = slot,
                                                 .flags = (flags & CORE_RAM_READONLY) ? KVM_MEM_READONLY : 0,
                                                 .guest_phys_addr = gpa,
                                                 .memory_size = size,
                                                 .userspace_addr = (uint64_t)(uintptr_t)host};
    return check(ioctl(kvm_of(m)->vm_fd, KVM_SET_USER_MEMORY_REGION, &region));
}

static int kvm_ram_remove(struct core_machine *m, uint32_t slot, uint64_t gpa, uint64_t size) {
    (void)size;
    return set_slot(m, slot, gpa, 0, NULL, 0);
}

/* ---- interrupts ----------------------------------------------------------------------------------------------------- */

static int kvm_irq(struct core_machine *m, uint32_t gsi, bool level) {
    struct kvm_irq_level line = {.irq = gsi, .level = level};
    return check(ioctl(kvm_of(m)->vm_fd, KVM_IRQ_LINE, &line));
}

/* 0 also when no processor takes the message: that is the guest's affair. */
static int kvm_msi(struct core_machine *m, uint64_t address, uint32_t data) {
    struct kvm_msi msi = {.address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
    int rc = check(ioctl(kvm_of(m)->vm_fd, KVM_SIGNAL_MSI, &msi));
    return rc < 0 ? rc : 0;
}

static int kvm_irqfd(struct core_machine *m, int fd, int resample_fd, uint32_t gsi, bool add) {
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi};
    if (!add) {
        irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
    } else if (resample_fd >= 0) {
        irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
        irqfd.resamplefd = (uint32_t)resample_fd;
    }
    return check(ioctl(kvm_of(m)->vm_fd, KVM_IRQFD, &irqfd));
}

static int kvm_doorbell(struct core_machine *m, int space, uint64_t address, uint32_t size, int fd, bool match,
                        uint64_t value, bool add) {
    struct kvm_ioeventfd bell = {.datamatch = value, .addr = address, .len = size, .fd = fd};
    bell.flags = (space == CORE_PIO ? KVM_IOEVENTFD_FLAG_PIO : 0u) | (match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0u) |
                 (add ? 0u : KVM_IOEVENTFD_FLAG_DEASSIGN);
    return check(ioctl(kvm_of(m)->vm_fd, KVM_IOEVENTFD, &bell));
}

/* ---- clock: the guest's kvmclock stands still with the machine ------------------------------------------------------ */

static void kvm_clock(struct core_machine *m, bool run) {
    struct kvm_machine *k = kvm_of(m);
    if (!run) {
        k->clock_saved = ioctl(k->vm_fd, KVM_GET_CLOCK, &k->clock) == 0;
        return;
    }
    if (!k->clock_saved) {
        return;
    }
    struct kvm_clock_data clock = {.clock = k->clock.clock};
    ioctl(k->vm_fd, KVM_SET_CLOCK, &clock);
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        /* Tell the guest's watchdogs that it stood still; refused while it has no kvmclock. */
        ioctl(kvm_cpu_of(m->vcpus[i])->fd, KVM_KVMCLOCK_CTRL, 0);
    }
}

const struct core_accel core_accel_kvm = {
    .name = "kvm",
    .close = kvm_close,
    .vcpu_open = core_kvm_vcpu_open,
    .vcpu_close = core_kvm_vcpu_close,
    .run = core_kvm_run,
    .settle = core_kvm_settle,
    .kick = core_kvm_kick,
    .reset = core_kvm_reset,
    .reset_platform = kvm_reset_platform,
    .translate = core_kvm_translate,
    .get_state = core_kvm_get_state,
    .set_state = core_kvm_set_state,
    .set_cpuid = core_kvm_set_cpuid,
    .set_msrs = core_kvm_set_msrs,
    .get_msrs = core_kvm_get_msrs,
    .nmi = core_kvm_nmi,
    .debug = core_kvm_debug,
    .ram_add = set_slot,
    .ram_remove = kvm_ram_remove,
    .irq = kvm_irq,
    .msi = kvm_msi,
    .irqfd = kvm_irqfd,
    .doorbell = kvm_doorbell,
    .gather = core_kvm_gather,
    .gather_flush = core_kvm_gather_flush,
    .clock = kvm_clock,
};
