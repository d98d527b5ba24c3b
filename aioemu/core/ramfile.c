/* ramfile.c: the file that guest memory lives in: in huge pages where the host lets us, whatever its default is. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"

/* Say huge=advise and size=0, which means no limit, of the tmpfs being made at `fs`. */
static bool configure(int fs) {
    return syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "huge", "advise", 0) == 0 &&
           syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "size", "0", 0) == 0 &&
           syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0;
}

/* A nameless file in a tmpfs of its own, which is mounted nowhere and goes with the file. -1: not allowed, or too old. */
static int open_in_tmpfs(void) {
    int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0) {
        return -1;
    }
    int mount = configure(fs) ? (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0) : -1;
    close(fs);
    if (mount < 0) {
        return -1;
    }
    int fd = openat(mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    close(mount);
    return fd;
}

/*
 * A file in memory, empty, or -errno. Hosts keep huge pages from memfds by default (transparent_hugepage/shmem_enabled
 * is `never`), while a tmpfs chooses for itself: there madvise(MADV_HUGEPAGE) counts. Making one takes CAP_SYS_ADMIN.
 */
int core_ram_file(void) {
    int fd = open_in_tmpfs();
    if (fd < 0) {
        fd = memfd_create("aioemu-ram", MFD_CLOEXEC);
    }
    return fd < 0 ? -errno : fd;
}
