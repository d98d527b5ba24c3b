/* cdef_block.h: the interface of what serves disks; a part of cdef.h. */

/* ---- hostfile.c: files of block nodes ---- */
int core_file_allocate(int fd, int mode, int64_t offset, int64_t size);

/* ---- throttle.c: limits on the requests of a group of disks ---- */
#define CORE_THROTTLE_BUCKETS 6
/* Bytes in a second: of all requests, reads, writes; then requests in a second: the same. 0: no limit. */
typedef struct {
    double average[6], maximum[6], burst_length[6]; /* maximum: for bursts of (burst_length >= 1) seconds */
    uint64_t request_size;                          /* larger requests count as several; 0: each is one */
} core_throttle_limits;
typedef struct core_throttle core_throttle;
typedef struct core_throttle_member core_throttle_member;
core_throttle *core_throttle_new(void);
void core_throttle_free(core_throttle *t); /* nobody is a member any more */
int core_throttle_set(core_throttle *t, const core_throttle_limits *limits);
core_throttle_member *core_throttle_join_fd(core_throttle *t, int fd); /* (fd): an eventfd, rung when to try again */
void core_throttle_leave(core_throttle_member *m);
/* May a request go? 0: yes, it is counted. Else when to try again: in so many ns, or INT64_MAX: when it is called. */
int64_t core_throttle_take(core_throttle_member *m, int is_write, uint64_t bytes, int64_t now_ns);
/* What waited in this direction does not any more. */
void core_throttle_give_up(core_throttle_member *m, int is_write);

/* tablerun.c */
uint32_t core_run_length(const uint64_t *entries, uint32_t at, uint32_t end, uint64_t step);
