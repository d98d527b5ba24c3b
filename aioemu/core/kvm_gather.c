/* kvm_gather.c: writes that KVM gathers in a ring instead of leaving the guest for each (coalesced MMIO and PIO).
 * Every exit delivers what was gathered before it is handled, so the order a guest sees is kept; whoever turns gathering
 * on flushes by a timer, since a guest may write and then not exit any more. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/ioctl.h>

#include "kvm.h"

#define PAGE_SIZE 4096 /* KVM_COALESCED_MMIO_MAX counts with it */

void core_kvm_gather_open(struct kvm_machine *k) {
    pthread_mutex_init(&k->gather_lock, NULL);
    int page = ioctl(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
    if (page > 0 && ioctl(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO) > 0) {
        k->gather_offset = (size_t)page * PAGE_SIZE;
    }
}

static bool is_empty(struct kvm_coalesced_mmio_ring *ring) {
    return __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE) == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
}

/* The kernel fills the ring: its numbers are trusted. With the lock held. */
static void deliver_all(struct core_machine *m, struct core_vcpu *v, struct kvm_coalesced_mmio_ring *ring) {
    while (!is_empty(ring)) {
        uint32_t first = ring->first;
        struct kvm_coalesced_mmio *entry = &ring->coalesced_mmio[first];
        int space = entry->pio ? CORE_PIO : CORE_MMIO;
        if (v) {
            core_dispatch(v, space, entry->phys_addr, entry->data, entry->len, true);
        } else {
            core_deliver(m, space, entry->phys_addr, entry->data, entry->len);
        }
        __atomic_store_n(&ring->first, (first + 1) % (uint32_t)KVM_COALESCED_MMIO_MAX, __ATOMIC_RELEASE);
    }
}

void core_kvm_gather_drain(struct core_vcpu *v) {
    struct kvm_machine *k = kvm_of(v->machine);
    struct kvm_coalesced_mmio_ring *ring = atomic_load_explicit(&k->gathered, memory_order_relaxed);
    if (!ring || is_empty(ring)) {
        return;
    }
    pthread_mutex_lock(&k->gather_lock);
    deliver_all(v->machine, v, ring);
    pthread_mutex_unlock(&k->gather_lock);
}

void core_kvm_gather_flush(struct core_machine *m) {
    struct kvm_machine *k = kvm_of(m);
    struct kvm_coalesced_mmio_ring *ring = atomic_load(&k->gathered);
    if (!ring || is_empty(ring) || pthread_mutex_trylock(&k->gather_lock)) {
        return; /* locked: a vCPU is just doing it */
    }
    deliver_all(m, NULL, ring);
    pthread_mutex_unlock(&k->gather_lock);
}

int core_kvm_gather(struct core_machine *m, int space, uint64_t address, uint32_t size, bool on) {
    struct kvm_machine *k = kvm_of(m);
    if (!atomic_load(&k->gathered)) {
        return -ENOTSUP;
    }
    struct kvm_coalesced_mmio_zone zone = {.addr = address, .size = size, .pio = space == CORE_PIO};
    return ioctl(k->vm_fd, on ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO, &zone) < 0 ? -errno : 0;
}
