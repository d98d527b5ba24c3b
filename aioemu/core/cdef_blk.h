/* cdef_blk.h: the request engine of virtio-blk; a part of cdef.h. blk.h says how it works. */

typedef struct core_blk core_blk;
typedef struct core_throttle core_throttle;
enum core_blk_kind { CORE_BLK_DATA, CORE_BLK_ZERO, CORE_BLK_NONE, CORE_BLK_ANY }; /* of an extent; ANY: ask each time */
enum core_blk_action { CORE_BLK_REPORT, CORE_BLK_IGNORE, CORE_BLK_STOP, CORE_BLK_ENOSPC }; /* after an error */
/* What Python is asked. READ and WRITE are answered with and get their data by id; ERROR only tells; AHEAD is an EXTENT
 * to be written to that no request waits for. */
enum core_blk_asks {
    CORE_BLK_ASK_EXTENT,
    CORE_BLK_ASK_READ,
    CORE_BLK_ASK_WRITE,
    CORE_BLK_ASK_FLUSH,
    CORE_BLK_ASK_DISCARD,
    CORE_BLK_ASK_ZERO,
    CORE_BLK_ASK_ERROR,
    CORE_BLK_ASK_AHEAD
};
typedef struct {
    uint64_t id, offset, size;
    uint32_t kind;
    uint32_t write; /* EXTENT: the place is to be written to; ERROR: it was a write */
    uint32_t unmap; /* ZERO: the space may be given back */
    int32_t error;  /* ERROR: errno, and what was done */
    uint32_t action;
} core_blk_ask;
typedef struct {
    uint64_t size; /* bytes */
    uint32_t block_size;
    uint32_t max_discard, max_zeroes; /* sectors of one request; 0: not offered */
    int32_t flush_fd; /* of the one file whose fdatasync is a flush; -1: Python flushes; -2: nothing to flush */
    uint8_t read_only, on_read_error, on_write_error, use_uring;
    uint8_t serial[20];
} core_blk_disk;
/* read, write, flush, discard and write zeroes */
typedef struct {
    uint64_t ops[4], bytes[4], ns[4];
    uint64_t failed[2], refused; /* by the file, reading and writing; told the driver */
    uint64_t highest, last_ns;   /* the end of what was written so far; when the last one was done */
} core_blk_counts;
core_blk *core_blk_new(core_chip *virtio, core_io *io);
void core_blk_free(core_blk *b);
void core_blk_set_disk(core_blk *b, const core_blk_disk *disk);
int core_blk_set_limits(core_blk *b, core_throttle *const *groups, uint32_t count);
void core_blk_set_writethrough(core_blk *b, int on);
int core_blk_start(core_blk *b);
void core_blk_stop(core_blk *b);
void core_blk_queue_off(core_blk *b, uint32_t queue, int reset);
void core_blk_hold(core_blk *b, int on);
void core_blk_stats(core_blk *b, core_blk_counts *counts);
int core_blk_bell_fd(core_blk *b, uint32_t queue);
int core_blk_ask_fd(core_blk *b);
int core_blk_next_ask(core_blk *b, core_blk_ask *ask);
int core_blk_extent(core_blk *b, uint32_t voids, uint32_t kind, uint64_t start, uint64_t length, int fd, uint64_t host,
                    int writable);
uint32_t core_blk_voids(core_blk *b);
void core_blk_void(core_blk *b, uint64_t start, uint64_t length);
int core_blk_ask_data(core_blk *b, uint64_t id, uint8_t *data, uint64_t size);
int core_blk_answer(core_blk *b, uint64_t id, int error, const uint8_t *data, uint64_t size);
