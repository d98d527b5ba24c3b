/* blk_map.c: a file in memory through a mapping of it: what is used again and again is copied without the kernel, two to
 * four times as fast as by its calls. Only what has no holes, as looking at a hole through a mapping fills it; and only
 * after it was used twice, as the first look costs more than a call. A file that was cut off is left to the calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk.h"
#include "guard.h"

#ifndef MADV_POPULATE_READ /* since Linux 5.14 */
#    define MADV_POPULATE_READ  22
#    define MADV_POPULATE_WRITE 23
#endif

enum {
    CHUNK = BLK_MAP_CHUNK,
    WARM = 2 * CHUNK / BLK_MAP_UNIT,
    STEP = 1024 * CHUNK, /* a file that grows is mapped so much ahead */
};

static void unmap(struct blk_map *m) {
    if (m->at) {
        munmap(m->at, m->size);
        munmap(m->heat, m->size / CHUNK);
    }
    *m = (struct blk_map){0};
}

/* Others are not told by mincore() which pages there are. */
static bool may_look(const struct stat *file, bool writable) {
    return writable || file->st_uid == geteuid() || geteuid() == 0;
}

static uint8_t *map_bytes(int fd, uint64_t size, int protection) {
    uint8_t *at = mmap(NULL, size, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED) {
        return NULL;
    }
    (void)munlock(at, size); /* a program that locks all of its memory would fill every hole */
    (void)madvise(at, size, MADV_DONTFORK);
    (void)madvise(at, size, MADV_DONTDUMP);
    if (mprotect(at, size, protection) < 0) {
        munmap(at, size);
        return NULL;
    }
    return at;
}

/* Map it, or anew as large as it is now: what was warm is so again when it is used. False: as it was. */
static bool map_file(struct blk_map *m, int fd, const struct stat *file, bool writable) {
    uint64_t size = ((uint64_t)file->st_size / STEP + 1) * STEP;
    uint8_t *at = map_bytes(fd, size, writable ? PROT_READ | PROT_WRITE : PROT_READ);
    if (!at) {
        return false;
    }
    uint8_t *heat = mmap(NULL, size / CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (heat == MAP_FAILED) {
        munmap(at, size);
        return false;
    }
    unmap(m);
    *m = (struct blk_map){
        .at = at, .heat = heat, .size = size, .device = file->st_dev, .inode = file->st_ino, .writable = writable};
    return true;
}

int blk_map_of(struct core_blk *b, int fd, int flags) {
    struct stat file;
    bool writable = (flags & O_ACCMODE) == O_RDWR;
    if ((flags & O_ACCMODE) == O_WRONLY || fstat(fd, &file) < 0 || !S_ISREG(file.st_mode) ||
        !may_look(&file, writable)) {
        return -1;
    }
    int free_one = -1;
    for (int i = 0; i < BLK_MAPS; i++) {
        struct blk_map *m = &b->maps[i];
        if (!m->at) {
            free_one = free_one < 0 ? i : free_one;
        } else if (m->device == file.st_dev && m->inode == file.st_ino && m->writable == writable) {
            return (uint64_t)file.st_size <= m->size || map_file(m, fd, &file, writable) ? i : -1;
        }
    }
    return free_one >= 0 && guard_works() && map_file(&b->maps[free_one], fd, &file, writable) ? free_one : -1;
}

/* ---- chunks ---------------------------------------------------------------------------------------------------------- */

/* If all of the chunk is there, have its pages ready. */
static bool make_hot(struct blk_map *m, uint64_t chunk) {
    uint8_t *start = m->at + chunk * CHUNK, there[CHUNK / BLK_MAP_UNIT];
    if (mincore(start, CHUNK, there) < 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof there; i++) {
        if (!(there[i] & 1)) {
            return false;
        }
    }
    return madvise(start, CHUNK, m->writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0 ||
           errno == EINVAL; /* an older kernel: they come one by one */
}

static bool is_hot(struct blk_map *m, uint64_t offset, uint64_t size) {
    bool hot = true;
    uint64_t end = offset + size;
    for (uint64_t chunk = offset / CHUNK; chunk <= (end - 1) / CHUNK; chunk++) {
        if (m->heat[chunk] == BLK_MAP_HOT) {
            continue;
        }
        uint64_t from = chunk * CHUNK > offset ? chunk * CHUNK : offset;
        uint64_t to = (chunk + 1) * CHUNK < end ? (chunk + 1) * CHUNK : end;
        uint64_t heat = m->heat[chunk] + (to - from + BLK_MAP_UNIT - 1) / BLK_MAP_UNIT;
        m->heat[chunk] = (uint8_t)(heat < WARM ? heat : make_hot(m, chunk) ? BLK_MAP_HOT : 0);
        hot = hot && m->heat[chunk] == BLK_MAP_HOT;
    }
    return hot;
}

/* Something of the file may have been given back: whether it is there is looked at again. Only what was warmed costs. */
static void cool(struct blk_map *m) {
    if (m->at && madvise(m->heat, m->size / CHUNK, MADV_DONTNEED) < 0) { /* refused where it is locked */
        memset(m->heat, 0, m->size / CHUNK);
    }
}

/* ---- transfers ------------------------------------------------------------------------------------------------------- */

/* All of `part` at (at), if all of both is there. */
static bool copy(const struct blk_req *r, uint8_t *at) {
    for (uint32_t i = 0; i < r->part_count; i++) {
        void *guest = r->part[i].iov_base;
        size_t size = r->part[i].iov_len;
        if (!(r->op == BLK_OP_WRITE ? guard_copy(at, guest, size) : guard_copy(guest, at, size))) {
            return false;
        }
        at += size;
    }
    return true;
}

static void touched(struct core_blk *b, int fd) {
    if (b->touched_fd != fd) {
        blk_map_date(b);
        b->touched_fd = fd;
    }
}

int64_t blk_map_transfer(struct blk_req *r, int map) {
    struct blk_map *m = map >= 0 ? &r->blk->maps[map] : NULL;
    uint64_t size = 0;
    for (uint32_t i = 0; m && i < r->part_count; i++) {
        size += r->part[i].iov_len;
    }
    if (size == 0 || r->op_offset >= m->size || size > m->size - r->op_offset || !is_hot(m, r->op_offset, size)) {
        return 0;
    }
    /* The last page of a file may be used beyond its end, to no effect: hence the look at where the end is, afterwards */
    if (!copy(r, m->at + r->op_offset) || lseek(r->op_fd, 0, SEEK_END) < (off_t)(r->op_offset + size)) {
        cool(m);
        return 0;
    }
    if (r->op == BLK_OP_WRITE) {
        touched(r->blk, r->op_fd);
    }
    return (int64_t)size;
}

void blk_map_date(struct core_blk *b) {
    if (b->touched_fd >= 0) {
        (void)futimens(b->touched_fd, (const struct timespec[2]){{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}});
        b->touched_fd = -1;
    }
}

void blk_map_void(struct core_blk *b, bool all) {
    blk_map_date(b);
    for (int i = 0; i < BLK_MAPS; i++) {
        if (all) {
            unmap(&b->maps[i]);
        } else {
            cool(&b->maps[i]);
        }
    }
}
