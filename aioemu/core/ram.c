/* ram.c: guest memory: file-backed mappings the accelerator, the devices and Python share. Control thread only. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "threads.h"

#ifndef MADV_POPULATE_WRITE
#    define MADV_POPULATE_WRITE 23 /* since Linux 5.14 */
#endif

static bool overlaps(const struct core_ram *ram, uint64_t gpa, uint64_t size) {
    return ram->used && gpa < ram->gpa + ram->size && ram->gpa < gpa + size;
}

static struct core_ram *free_slot(core_machine *m) {
    for (uint32_t i = 0; i < CORE_MAX_RAM; i++) {
        if (!m->ram[i].used) {
            m->ram[i].slot = i;
            return &m->ram[i];
        }
    }
    return NULL;
}

/* Map [fd_offset, +size) of `fd` at guest-physical `gpa`. -EEXIST when it overlaps memory already there. */
int core_ram_add(core_machine *m, uint64_t gpa, uint64_t size, int fd, uint64_t fd_offset, uint32_t flags) {
    if (size == 0 || ((gpa | size | fd_offset) & 0xfff) || gpa + size < gpa) {
        return -EINVAL;
    }
    for (uint32_t i = 0; i < CORE_MAX_RAM; i++) {
        if (overlaps(&m->ram[i], gpa, size)) {
            return -EEXIST;
        }
    }
    struct core_ram *ram = free_slot(m);
    if (!ram) {
        return -ENOSPC;
    }
    uint8_t *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)fd_offset);
    if (host == MAP_FAILED) {
        return -errno;
    }
    madvise(host, size, MADV_DONTFORK);
    madvise(host, size, MADV_HUGEPAGE);
    int rc = (flags & CORE_RAM_PREALLOC) && madvise(host, size, MADV_POPULATE_WRITE) < 0 ? -errno : 0;
    if (rc == 0 && m->accel && m->accel->ram_add) {
        rc = m->accel->ram_add(m, ram->slot, gpa, size, host, flags);
    }
    if (rc < 0) {
        munmap(host, size);
        return rc;
    }
    *ram = (struct core_ram){.gpa = gpa, .size = size, .host = host, .slot = ram->slot, .flags = flags, .used = true};
    return 0;
}

int core_ram_remove(core_machine *m, uint64_t gpa) {
    for (uint32_t i = 0; i < CORE_MAX_RAM; i++) {
        struct core_ram *ram = &m->ram[i];
        if (ram->used && ram->gpa == gpa) {
            int rc = m->accel && m->accel->ram_remove ? m->accel->ram_remove(m, ram->slot, gpa, ram->size) : 0;
            if (rc < 0) {
                return rc;
            }
            munmap(ram->host, ram->size);
            ram->used = false;
            return 0;
        }
    }
    return -ENOENT;
}

/* Host address of [gpa, +size), or NULL when it is not all within one memory. Any thread. */
uint8_t *core_ram_ptr(core_machine *m, uint64_t gpa, uint64_t size) {
    for (uint32_t i = 0; i < CORE_MAX_RAM; i++) {
        const struct core_ram *ram = &m->ram[i];
        if (ram->used && gpa >= ram->gpa && size <= ram->size && gpa - ram->gpa <= ram->size - size) {
            return ram->host + (gpa - ram->gpa);
        }
    }
    return NULL;
}

void core_ram_written(core_machine *m, uint64_t gpa, uint64_t size) {
    if (m->accel && m->accel->ram_written) {
        m->accel->ram_written(m, gpa, size);
    }
}

void core_ram_free(core_machine *m) {
    for (uint32_t i = 0; i < CORE_MAX_RAM; i++) {
        if (m->ram[i].used) {
            munmap(m->ram[i].host, m->ram[i].size);
            m->ram[i].used = false;
        }
    }
}
