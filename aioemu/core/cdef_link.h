/* cdef_link.h: links and captures, for Python: plain declarations only, as in cdef.h. */

/* ---- links: link.h ---- */
typedef struct core_link core_link;
typedef struct core_capture core_capture;
/* What becomes of the frames of one direction; all zero but queue_packets: they pass as they are. Shares are 0 to 1. */
enum core_jitter { CORE_JITTER_UNIFORM, CORE_JITTER_NORMAL, CORE_JITTER_PARETO };
typedef struct {
    uint64_t seed;
    uint32_t replay; /* count the frames anew */
    int64_t delay_ns, jitter_ns;
    uint32_t jitter_kind, loss_every; /* each so many frames one is lost; 0: none */
    double loss;
    double burst_enter, burst_leave, burst_loss; /* Gilbert-Elliott: into the bad state, out of it, lost in it */
    double duplicate, corrupt, reorder;
    int64_t reorder_ns;             /* so much later than its turn */
    uint64_t rate_bps, queue_bytes; /* 0: no limit */
    uint32_t queue_packets;
    int64_t outage_up_ns, outage_down_ns; /* nothing passes for (down) after each (up), though the link looks up */
} core_impair;
/* Why a frame was lost on a link. */
enum core_link_drop {
    CORE_LINK_DROP_LOSS,
    CORE_LINK_DROP_BURST,
    CORE_LINK_DROP_EVERY,
    CORE_LINK_DROP_OUTAGE,
    CORE_LINK_DROP_QUEUE,   /* the queue before the rate limit is full */
    CORE_LINK_DROP_BACKLOG, /* too much is on its way, or waits for the receiver */
    CORE_LINK_DROP_CUT,     /* on its way when the link went down */
    CORE_LINK_DROP_COUNT = 7
};
typedef struct {
    uint64_t frames, bytes; /* offered by the sender */
    uint64_t delivered, delivered_bytes;
    uint64_t duplicated, corrupted, reordered;
    uint64_t waiting, waiting_bytes; /* on their way now */
    uint64_t drops[7];               /* by core_link_drop */
} core_link_counts;
const char *core_link_drop_name(uint32_t why);
core_link *core_link_new(core_io *io);
void core_link_free(core_link *link);
int core_link_insert(core_link *link, core_port *port);
core_port *core_link_end(core_link *link, uint32_t end);
void core_link_set_up(core_link *link, int up);
void core_link_set_alive(core_link *link, uint32_t end, int alive);
int core_link_is_up(core_link *link);
/* direction 0: from end 0 to end 1; 1: back. In force when these return. */
int core_link_impair(core_link *link, uint32_t direction, const core_impair *config);
void core_link_get_counts(core_link *link, uint32_t direction, core_link_counts *counts);
/* Whether a frame passes a direction without being copied or looked at. */
int core_link_is_direct(core_link *link, uint32_t direction);
/* link_impair.c, alone: the fate of (count) frames of (size) bytes, one each (gap_ns): a core_link_drop, or -1 and when
 * it arrives after it was sent. For tests. */
int core_impair_try(const core_impair *config, uint32_t count, uint32_t size, int64_t gap_ns, int8_t *drops,
                    int64_t *delays_ns);
/* place 0: where frames get in, 1: where they get out; sense: 1 inbound, 2 outbound. */
int core_link_tap(core_link *link, uint32_t direction, uint32_t place, core_capture *capture, uint32_t interface,
                  uint32_t sense);
void core_link_untap(core_link *link, core_capture *capture);
/* capture.c, capture_file.c */
enum core_captured {
    CORE_CAPTURED_IN = 1,
    CORE_CAPTURED_OUT = 2,
    CORE_CAPTURED_DUPLICATE = 4,
    CORE_CAPTURED_CORRUPT = 8,
    CORE_CAPTURED_LATE = 16,
    CORE_CAPTURED_NO_CSUM = 32,
    CORE_CAPTURED_DROP_SHIFT = 8 /* the rest: a core_link_drop + 1, 0: not lost */
};
core_capture *core_capture_new(uint64_t buffer_bytes, uint32_t snap_bytes, int for_program);
void core_capture_free(core_capture *c);
int core_capture_interface(core_capture *c, const char *name, const char *comment);
int core_capture_write(core_capture *c, int fd);
int core_capture_close(core_capture *c);
int core_capture_fd(core_capture *c);
int64_t core_capture_take(core_capture *c, uint8_t *data, uint64_t room);
void core_capture_get_counts(core_capture *c, uint32_t interface, uint64_t *seen, uint64_t *dropped);
