/* blk.h: the request engine of virtio-blk, as its C files see it. Everything runs inside the io context of the device
 * (core_io_enter), so nothing here locks. Guests are not trusted, and what they point at was checked by the queue
 * engine; files may shrink, fail and fill up at any time. */
#pragma once

#include <sys/uio.h>

#include "io.h"
#include "throttle.h"
#include "uring.h"
#include "virtio.h"

enum {
    BLK_SECTOR = 512,
    BLK_HEADER = 16,
    BLK_ID = 20,               /* bytes of a serial number */
    BLK_EXTENTS = 16384,       /* remembered at most: 640 KiB for a disk */
    BLK_ASK_PIECE = 1 << 20,   /* bytes that go through Python at once */
    BLK_ERRORS = 16,           /* not yet told; more of them are counted only */
    BLK_THREADS = 8,           /* that block for one disk at most */
    BLK_BATCH = 16,            /* requests after which the driver sees what is done */
    BLK_BATCH_BYTES = 1 << 16, /* the same in bytes: it works on them while the next are copied */
    BLK_IOV = 1024,            /* pieces of one call (IOV_MAX) */
    BLK_LIMITS = 8,            /* throttle groups of one disk */
    BLK_RING = 128,            /* places of an io_uring */
    BLK_MAPS = 8,              /* files in memory of one disk that are mapped */
};

enum blk_type {
    BLK_READ = 0,
    BLK_WRITE = 1,
    BLK_FLUSH = 4,
    BLK_GET_ID = 8,
    BLK_DISCARD = 11,
    BLK_WRITE_ZEROES = 13,
};

#define CORE_BLK_AHEAD UINT64_MAX                    /* the id of what no request asks */
enum { BLK_PYTHON_FLUSHES = -1, BLK_NO_FLUSH = -2 }; /* flush_fd: none of one file */
enum { BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPP = 2 };  /* what the status byte says */

struct blk_extent {
    uint64_t start, end, host; /* host: the offset of `start` in `fd` */
    int fd;
    uint8_t kind;   /* core_blk_kind */
    int8_t map;     /* -1, or which of the disk's maps */
    bool in_memory; /* its file system has no disk behind it: plain calls do not wait */
    bool direct;    /* O_DIRECT: a call waits for the disk */
    bool writable;  /* in place; else a write asks for a place of its own first */
};

enum blk_state {
    BLK_FREE,
    BLK_RUNNING, /* in a call, or on its way */
    BLK_NATIVE,  /* with the kernel or a thread */
    BLK_ASKING,  /* in the list for Python */
    BLK_ASKED,   /* Python works on it */
    BLK_LIMITED, /* waits for its turn by the disk's limits */
    BLK_HELD,    /* waits for the machine to go on */
};

struct blk_req {
    struct core_blk *blk;
    struct blk_req *next; /* in the list of its state */
    uint32_t index, generation;
    uint8_t state, type, ask, passed; /* passed: how many groups of limits let it through */
    bool flushing;                    /* the data is there: flushed before it is done (write-through) */
    bool allocated;                   /* Python was asked to give the place at `done` one */
    bool unmap;
    uint32_t queue, slot, epoch;
    uint64_t offset, length, done; /* bytes */
    uint64_t writable, started_ns;
    uint8_t *status;
    uint64_t status_gpa;
    uint32_t count, room;     /* of the data's pieces */
    struct iovec *iov, *part; /* all of it; what the running call gets */
    uint64_t *gpas;           /* of iov */
    uint32_t part_count;
    /* the call that runs elsewhere */
    int op_fd;
    uint8_t op;
    uint64_t op_offset, asked_size;
    int64_t result;
};

enum blk_op { BLK_OP_READ, BLK_OP_WRITE, BLK_OP_SYNC };

struct blk_list {
    struct blk_req *first, **end;
};

struct blk_queue {
    struct core_io_source source;
    struct core_blk *blk;
    uint32_t index;
    bool listening, unflushed;
};

/* The latest bytes that were written in a row, and where the next place is asked for ahead of them. */
struct blk_ahead {
    uint64_t start, end, wanted;
    enum { BLK_AHEAD_IDLE, BLK_AHEAD_WANTED, BLK_AHEAD_ASKED } state;
};

struct blk_error {
    uint64_t offset;
    int32_t error;
    uint8_t is_write, action;
};

struct blk_uring {
    struct core_io_source source;
    struct core_blk *blk;
    struct uring ring;
};

/* A file in memory, mapped; and how much each chunk was used. */
enum {
    BLK_MAP_CHUNK = 256 << 10, /* bytes looked at together: no request waits long for it */
    BLK_MAP_UNIT = 4096,       /* bytes of a page, and that make a chunk warmer by one */
    BLK_MAP_HOT = 255,         /* it is copied through the mapping */
};
struct blk_map {
    uint8_t *at, *heat;
    uint64_t size, device, inode;
    bool writable;
};

struct core_blk {
    struct core_io *io;
    struct core_virtio *virtio;
    uint32_t queue_count, in_native;
    struct blk_queue *queues;
    bool running, held; /* the driver drives it; the machine stands still, or waits after an error */
    /* what the disk is */
    uint64_t size; /* bytes */
    uint32_t block_size;
    bool read_only;
    _Atomic bool writethrough;
    uint32_t max_discard, max_zeroes; /* sectors of one request; 0: not offered */
    int flush_fd;
    bool nothing_to_flush, flush_failed;
    uint8_t on_read_error, on_write_error; /* core_blk_action */
    uint8_t serial[BLK_ID];
    /* extents, by start */
    struct blk_extent *extents;
    uint32_t extent_count, extent_room;
    uint32_t voids; /* so far */
    struct blk_ahead ahead;
    bool no_nowait[2];
    struct blk_map maps[BLK_MAPS];
    int touched_fd; /* written through a map since its file's date was set; or -1 */
    /* requests */
    struct blk_req *reqs; /* req_count of them were used so far */
    uint32_t req_count, req_room;
    struct blk_req *free;
    struct blk_list asking, waiting, limited[2]; /* limited: reads, writes */
    core_throttle_member *limits[BLK_LIMITS];
    uint32_t limit_count;
    struct blk_error errors[BLK_ERRORS];
    uint32_t error_count;
    int ask_fd;
    int64_t now_ns;
    uint64_t unsettled; /* bytes done that the driver has not seen yet */
    core_blk_counts counts;
    /* what runs elsewhere */
    bool use_uring, has_uring;
    struct blk_uring uring;
    struct blk_pool *pool;
};

/* blk_parse.c: 0 the request is to be run; 1 it is answered with *status; -EPROTO the device cannot go on. */
int blk_parse(struct blk_req *r, const core_vchain_info *info, const struct core_vchain *chain, uint8_t *status);
/* blk_run.c */
void blk_start(struct blk_req *r);
void blk_continue(struct blk_req *r);
void blk_advance(struct blk_req *r, uint64_t size);
void blk_resume(struct blk_req *r);               /* go on with it after it was held */
void blk_done(struct blk_req *r, int64_t result); /* what ran elsewhere */
void blk_fail(struct blk_req *r, int error);
void blk_finish(struct blk_req *r, uint8_t status);
/* blk_throttle.c */
void blk_admit(struct blk_req *r);
void blk_limited_go(struct core_blk *b);
void blk_limited_forget(struct core_blk *b);
void blk_limited_idle(struct core_blk *b); /* after some were taken out of the lists */
/* blk_extent.c */
const struct blk_extent *blk_find(const struct core_blk *b, uint64_t offset);
int blk_remember(struct core_blk *b, const struct blk_extent *e);
void blk_forget(struct core_blk *b, uint64_t start, uint64_t end);
/* blk_ahead.c */
void blk_ahead_note(struct core_blk *b, const struct blk_extent *e, uint64_t offset, uint64_t size);
bool blk_ahead_ask(struct core_blk *b, core_blk_ask *ask);
void blk_ahead_answered(struct core_blk *b);
/* blk_file.c: how much was done at once, -EINPROGRESS: it comes to blk_done; -errno */
int64_t blk_transfer(struct blk_req *r, const struct blk_extent *e, uint64_t size);
int64_t blk_sync(struct blk_req *r);
void blk_zero(struct blk_req *r, uint64_t size);
uint32_t blk_slice(struct blk_req *r, uint64_t size); /* fills `part` with the next (size) bytes; how many pieces */
void blk_submit(struct core_blk *b);                  /* hand what was gathered to the kernel */
void blk_drain(struct core_blk *b);                   /* nothing is with the kernel or a thread when it returns */
void blk_file_close(struct core_blk *b);
/* blk_map.c */
int blk_map_of(struct core_blk *b, int fd, int flags); /* for a file in memory; -1: none */
/* Copy what is in `part` through the map: how much was done; 0: by the kernel's calls, please. */
int64_t blk_map_transfer(struct blk_req *r, int map);
void blk_map_date(struct core_blk *b);           /* the file's date of change is that of its bytes */
void blk_map_void(struct core_blk *b, bool all); /* files have changed otherwise, or (all) are to be left alone */
/* blk_pool.c */
struct blk_pool *blk_pool_new(struct core_blk *b);
void blk_pool_free(struct blk_pool *p);
int blk_pool_run(struct blk_pool *p, struct blk_req *r);
void blk_pool_wait(struct blk_pool *p); /* until one is done, and then take it */
/* blk_ask.c */
void blk_ask(struct blk_req *r, uint8_t kind, uint64_t size);
void blk_tell_error(struct core_blk *b, const struct blk_req *r, int error, uint8_t action);
void blk_ring(int fd);
bool blk_in_memory(int fd);
/* blk.c */
struct blk_req *blk_take(struct core_blk *b);
void blk_release(struct blk_req *r);
void blk_settle(struct core_blk *b); /* after requests were worked on: submit, and show the driver what is done */
void blk_list_add(struct blk_list *l, struct blk_req *r);
struct blk_req *blk_list_take(struct blk_list *l);
