/* uring.c: an io_uring, set up and driven by the kernel's own calls (io_uring(7)). */
#include "uring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int enter(const struct uring *u, uint32_t submit, uint32_t complete, uint32_t flags) {
    int rc;
    do {
        rc = (int)syscall(SYS_io_uring_enter, u->fd, submit, complete, flags, NULL, 0);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc;
}

static int map(struct uring *u, const struct io_uring_params *p) {
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    u->rings_size = sq > cq ? sq : cq;
    u->sqes_size = p->sq_entries * sizeof(struct io_uring_sqe);
    int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    u->rings = mmap(NULL, u->rings_size, protection, flags, u->fd, IORING_OFF_SQ_RING);
    u->sqes = mmap(NULL, u->sqes_size, protection, flags, u->fd, IORING_OFF_SQES);
    if (u->rings == MAP_FAILED || u->sqes == MAP_FAILED) {
        return -errno;
    }
    uint8_t *at = u->rings;
    u->sq_head = (_Atomic uint32_t *)(at + p->sq_off.head);
    u->sq_tail = (_Atomic uint32_t *)(at + p->sq_off.tail);
    u->sq_array = (uint32_t *)(at + p->sq_off.array);
    u->sq_mask = *(uint32_t *)(at + p->sq_off.ring_mask);
    u->cq_head = (_Atomic uint32_t *)(at + p->cq_off.head);
    u->cq_tail = (_Atomic uint32_t *)(at + p->cq_off.tail);
    u->cq_mask = *(uint32_t *)(at + p->cq_off.ring_mask);
    u->cqes = at + p->cq_off.cqes;
    return 0;
}

int uring_open(struct uring *u, uint32_t entries) {
    struct io_uring_params p = {0};
    *u = (struct uring){.fd = -1, .rings = MAP_FAILED, .sqes = MAP_FAILED};
    u->fd = (int)syscall(SYS_io_uring_setup, entries, &p);
    if (u->fd < 0) {
        return -errno;
    }
    int rc = p.features & IORING_FEAT_SINGLE_MMAP && p.features & IORING_FEAT_NODROP ? map(u, &p) : -ENOSYS;
    if (rc < 0) {
        uring_close(u);
        return rc;
    }
    u->entries = p.sq_entries;
    return 0;
}

void uring_close(struct uring *u) {
    if (u->rings != MAP_FAILED) {
        munmap(u->rings, u->rings_size);
    }
    if (u->sqes != MAP_FAILED) {
        munmap(u->sqes, u->sqes_size);
    }
    if (u->fd >= 0) {
        close(u->fd);
    }
    *u = (struct uring){.fd = -1, .rings = MAP_FAILED, .sqes = MAP_FAILED};
}

bool uring_put(struct uring *u, enum uring_op op, int fd, const struct iovec *iov, uint32_t count, uint64_t offset,
               void *what) {
    uint32_t tail = atomic_load_explicit(u->sq_tail, memory_order_relaxed);
    if (tail - atomic_load_explicit(u->sq_head, memory_order_acquire) >= u->entries) {
        return false;
    }
    struct io_uring_sqe *sqe = (struct io_uring_sqe *)u->sqes + (tail & u->sq_mask);
    memset(sqe, 0, sizeof *sqe);
    sqe->fd = fd;
    sqe->user_data = (uintptr_t)what;
    if (op == URING_SYNC) {
        sqe->opcode = IORING_OP_FSYNC;
        sqe->fsync_flags = IORING_FSYNC_DATASYNC;
    } else if (count == 1 && iov->iov_len <= INT32_MAX) {
        sqe->opcode = op == URING_READ ? IORING_OP_READ : IORING_OP_WRITE;
        sqe->addr = (uintptr_t)iov->iov_base;
        sqe->len = (uint32_t)iov->iov_len;
        sqe->off = offset;
    } else {
        sqe->opcode = op == URING_READ ? IORING_OP_READV : IORING_OP_WRITEV;
        sqe->addr = (uintptr_t)iov;
        sqe->len = count;
        sqe->off = offset;
    }
    u->sq_array[tail & u->sq_mask] = tail & u->sq_mask;
    atomic_store_explicit(u->sq_tail, tail + 1, memory_order_release);
    u->gathered++;
    return true;
}

int uring_submit(struct uring *u, bool wait) {
    if (!u->gathered && !wait) {
        return 0;
    }
    int rc = enter(u, u->gathered, wait, wait ? IORING_ENTER_GETEVENTS : 0);
    if (rc > 0) {
        uint32_t count = (uint32_t)rc < u->gathered ? (uint32_t)rc : u->gathered;
        u->gathered -= count;
        u->in_flight += count;
    }
    return rc;
}

bool uring_has(const struct uring *u) {
    return atomic_load_explicit(u->cq_head, memory_order_relaxed) !=
           atomic_load_explicit(u->cq_tail, memory_order_acquire);
}

bool uring_take(struct uring *u, void **what, int32_t *result) {
    if (!uring_has(u)) {
        return false;
    }
    uint32_t head = atomic_load_explicit(u->cq_head, memory_order_relaxed);
    const struct io_uring_cqe *cqe = (const struct io_uring_cqe *)u->cqes + (head & u->cq_mask);
    *what = (void *)(uintptr_t)cqe->user_data;
    *result = cqe->res;
    atomic_store_explicit(u->cq_head, head + 1, memory_order_release);
    u->in_flight--;
    return true;
}
