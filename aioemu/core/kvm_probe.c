/* kvm_probe.c: measure whether this host's KVM runs guest kernel code natively. Makes and frees a small machine. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm.h"

enum {
    LOOPS = 5000, /* two instructions each: 5 ms where KVM interprets (2 M/s), microseconds where it does not */
    PAGE = 4096,
    CODE_AT = 0x1000
};

/* mov ecx, LOOPS; 1: dec ecx; jnz 1b; hlt: 32-bit, ring 0, no paging: what a kernel's own code costs. */
static const uint8_t program[] = {0xb9, LOOPS & 0xff, LOOPS >> 8, 0, 0, 0x49, 0x75, 0xfd, 0xf4};

static int enter_protected(int vcpu) {
    struct kvm_sregs s;
    struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};
    if (ioctl(vcpu, KVM_GET_SREGS, &s) < 0) {
        return -errno;
    }
    struct kvm_segment data = {.limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    data.selector = 8;
    data.type = 11;
    s.cs = data;
    s.cr0 |= 1;
    return ioctl(vcpu, KVM_SET_SREGS, &s) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0 ? -errno : 0;
}

/* Nanoseconds from entry to the HLT exit. */
static int64_t run_once(int vcpu, struct kvm_run *run) {
    int rc = enter_protected(vcpu);
    int64_t start = core_monotonic_ns();
    if (rc < 0 || ioctl(vcpu, KVM_RUN, 0) < 0) {
        return rc < 0 ? rc : -errno;
    }
    int64_t took = core_monotonic_ns() - start;
    return run->exit_reason == KVM_EXIT_HLT ? took : -EIO;
}

static int64_t measure(int vm, int vcpu, size_t run_size, uint8_t *page) {
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = CODE_AT, .memory_size = PAGE, .userspace_addr = (uint64_t)(uintptr_t)page};
    struct kvm_run *run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED) {
        return -errno;
    }
    memcpy(page, program, sizeof program);
    int64_t took = ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : run_once(vcpu, run);
    if (took >= 0) {
        took = run_once(vcpu, run); /* the first run paid for page faults */
    }
    munmap(run, run_size);
    return took < 0 ? took : 2ll * LOOPS * 1000000000 / (took ? took : 1);
}

/* Ring 0 instructions per second under this /dev/kvm, or -errno. */
int64_t core_kvm_ring0_rate(int kvm_fd) {
    int size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    int vm = size < 0 ? -1 : ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (vm < 0) {
        return -errno;
    }
    int64_t rate = -ENOMEM;
    uint8_t *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) {
        uint64_t identity = KVM_IDENTITY_MAP_ADDR;
        ioctl(vm, KVM_SET_TSS_ADDR, (unsigned long)KVM_TSS_ADDR);
        ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
        int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
        rate = vcpu < 0 ? -errno : measure(vm, vcpu, (size_t)size, page);
        if (vcpu >= 0) {
            close(vcpu);
        }
        munmap(page, PAGE);
    }
    close(vm);
    return rate;
}
