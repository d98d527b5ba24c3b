/* hostfile.c: calls on files that Python has no name for. They may block: from an executor. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>

#include "core.h"

/* fallocate(2) of a range of (fd). 0 or -errno. */
int core_file_allocate(int fd, int mode, int64_t offset, int64_t size) {
    int rc;
    do {
        rc = fallocate(fd, mode, offset, size);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}
