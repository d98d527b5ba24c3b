/* uring.h: an io_uring by the kernel's own calls: no library is needed for the few that are made. One thread at a time;
 * what is written into it goes out with uring_submit. */
#pragma once

#include <sys/uio.h>

#include "core.h"

struct uring {
    int fd;
    uint32_t entries, gathered, in_flight;
    void *rings, *sqes;
    size_t rings_size, sqes_size;
    _Atomic uint32_t *sq_head, *sq_tail, *cq_head, *cq_tail;
    uint32_t *sq_array;
    uint32_t sq_mask, cq_mask;
    void *cqes;
};

enum uring_op { URING_READ, URING_WRITE, URING_SYNC };

int uring_open(struct uring *u, uint32_t entries); /* -errno where the host has none, or forbids it */
void uring_close(struct uring *u);
/* False: it is full; submit first. (offset): UINT64_MAX for what has none. (what) comes back with the result; (iov) must
 * stay until then. */
bool uring_put(struct uring *u, enum uring_op op, int fd, const struct iovec *iov, uint32_t count, uint64_t offset,
               void *what);
int uring_submit(struct uring *u, bool wait); /* (wait): until at least one is done */
bool uring_take(struct uring *u, void **what, int32_t *result);
bool uring_has(const struct uring *u);
