/* slirp.h: user networking: libslirp's binary interface as far as it is used, and what slirp*.c share.
 *
 * The library is not needed to build and need not be there: it is opened when the first -netdev user asks for it. The
 * declarations below are of its published interface (libslirp.h of 4.7.0, SlirpConfig version 1, which every later 4.x
 * accepts).
 *
 * Each instance is used by one thread at a time (its io context); the library's only statics are a clock and what it
 * remembers of the host's name servers. What it calls back only queues. The guest is hostile, and the library has been
 * wrong before: slirp_guard.c and slirp_fragments.c stand before it.
 */
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "io.h"
#include "port.h"

struct slirp_instance; /* the library's Slirp */

typedef ssize_t (*slirp_write_fn)(const void *data, size_t size, void *opaque);
typedef void (*slirp_timer_fn)(void *opaque);
typedef int (*slirp_add_poll_fn)(int fd, int events, void *opaque);
typedef int (*slirp_revents_fn)(int index, void *opaque);

enum { SLIRP_IN = 1, SLIRP_OUT = 2, SLIRP_PRI = 4, SLIRP_ERR = 8, SLIRP_HUP = 16 };
enum { SLIRP_FWD_UDP = 1, SLIRP_FWD_V6ONLY = 2 };
enum { SLIRP_CONFIG_VERSION = 1, SLIRP_MAJOR = 4, SLIRP_MINOR_MIN = 7 };

struct slirp_callbacks {
    slirp_write_fn send_packet;
    void (*guest_error)(const char *message, void *opaque);
    int64_t (*clock_get_ns)(void *opaque);
    void *(*timer_new)(slirp_timer_fn fire, void *fire_opaque, void *opaque);
    void (*timer_free)(void *timer, void *opaque);
    void (*timer_mod)(void *timer, int64_t due_ms, void *opaque);
    void (*register_poll_fd)(int fd, void *opaque);
    void (*unregister_poll_fd)(int fd, void *opaque);
    void (*notify)(void *opaque);
    void *later[8]; /* of later versions of the configuration: not looked at */
};

struct slirp_config {
    uint32_t version;
    int restricted;
    bool in_enabled;
    struct in_addr vnetwork, vnetmask, vhost;
    bool in6_enabled;
    struct in6_addr vprefix_addr6;
    uint8_t vprefix_len;
    struct in6_addr vhost6;
    const char *vhostname, *tftp_server_name, *tftp_path, *bootfile;
    struct in_addr vdhcp_start, vnameserver;
    struct in6_addr vnameserver6;
    const char **vdnssearch;
    const char *vdomainname;
    size_t if_mtu, if_mru;
    bool disable_host_loopback, enable_emu;
    void *later[16]; /* of later versions: not looked at */
};

struct slirp_library {
    void *handle;
    struct slirp_instance *(*make)(const struct slirp_config *, const struct slirp_callbacks *, void *opaque);
    void (*cleanup)(struct slirp_instance *);
    void (*pollfds_fill)(struct slirp_instance *, uint32_t *timeout_ms, slirp_add_poll_fn, void *opaque);
    void (*pollfds_poll)(struct slirp_instance *, int failed, slirp_revents_fn, void *opaque);
    void (*input)(struct slirp_instance *, const uint8_t *frame, int size);
    int (*add_hostxfwd)(struct slirp_instance *, const struct sockaddr *, socklen_t, const struct sockaddr *, socklen_t,
                        int flags);
    int (*remove_hostxfwd)(struct slirp_instance *, const struct sockaddr *, socklen_t, int flags);
    int (*add_exec)(struct slirp_instance *, const char *command, struct in_addr *, int port);
    int (*add_unix)(struct slirp_instance *, const char *path, struct in_addr *, int port);
    char *(*connection_info)(struct slirp_instance *);
    const char *(*version_string)(void);
    /* GLib's, which comes with it */
    unsigned int (*log_set_handler)(const char *domain, int levels, void (*)(const char *, int, const char *, void *),
                                    void *opaque);
    void (*log_remove_handler)(const char *domain, unsigned int id);
    void (*free)(void *memory);
};

/* slirp_library.c: 0, -ELIBACC it is not there, -ELIBBAD it is another version. */
int core_slirp_open(struct slirp_library *library);

/* slirp_guard.c */
enum {
    GUARD_SOCKETS = 512,   /* host descriptors that a guest's flows may hold: more than a desktop has; */
    GUARD_SHARE = 4,       /* and at most this part of what the process may have */
    GUARD_DATAGRAMS = 16,  /* that are put together from fragments at a time: 1 MiB in all */
    GUARD_STRANGERS = 256, /* frames a second from addresses that never said where they are: the answers wait 1 s */
    GUARD_NEIGHBOURS = 16, /* addresses whose place the library remembers (its ARP and its NDP table) */
    GUARD_FRAME_MAX = 65535 + 14, /* bytes: one IP packet */
};

struct core_slirp_guard {
    int sockets, sockets_max; /* that the library has now, and may have */
    int high_fd;              /* a descriptor with this number: the process has few left */
    int64_t crowded_until_ns; /* so long no flow is opened, because of that */
    int64_t strangers_since_ns;
    uint32_t strangers;
    uint8_t known4[GUARD_NEIGHBOURS][4], known6[GUARD_NEIGHBOURS][16];
    uint32_t next4, next6;
};

/* Whether the library may see the frame, which may be changed: GUARD_PASS, GUARD_FRAGMENT when it is one, or the reason to
 * drop it (a core_drop). */
enum { GUARD_PASS = -1, GUARD_FRAGMENT = -2 };
int core_slirp_guard(struct core_slirp_guard *g, uint8_t *frame, uint32_t size, int64_t now_ns);

void core_slirp_guard_init(struct core_slirp_guard *g);
/* The library has a descriptor more. */
void core_slirp_guard_opened(struct core_slirp_guard *g, int fd, int64_t now_ns);

/* slirp_fragments.c */
#define GUARD_DATAGRAM_NS 30000000000LL /* how long the rest may take (RFC 1122, 3.3.2: 60 s at most) */
struct core_slirp_datagram;
struct slirp_frame;
/* Add a fragment, which the guard has seen: 0, and the (packet) once it is whole; -1: it is dropped. */
int core_slirp_reassemble(struct core_slirp_datagram **all, const uint8_t *frame, int64_t now_ns,
                          struct slirp_frame **packet);

/* slirp.c */
enum {
    SLIRP_INBOX_BYTES = 1 << 20,  /* frames of the guest that wait for their turn: then its NIC waits */
    SLIRP_OUTBOX_BYTES = 4 << 20, /* frames that wait for the guest: more than the windows of sixteen connections */
    SLIRP_WAKES = 4,              /* more than it has timers */
    SLIRP_HELD_NS = 100000000,    /* how often a timer looks whether time goes on */
    SLIRP_BATCH = 64,             /* frames given to the NIC at once */
};

struct slirp_frame {
    struct slirp_frame *next;
    uint32_t size;
    uint8_t data[];
};

struct slirp_queue {
    struct slirp_frame *first, **end;
    uint32_t bytes;
};

/* What is known of one host descriptor. */
struct slirp_watch {
    uint8_t events; /* that the epoll set has for it */
    bool registered;
    uint32_t turn; /* when the library last waited for it */
};

/* A timer of the library's: it makes one, for its router advertisements. */
struct slirp_wake {
    struct core_io_timer timer;
    struct core_slirp *owner;
    slirp_timer_fn fire;
    void *opaque;
};

struct core_slirp {
    struct core_port port;
    struct core_io *io;
    struct slirp_library library;
    struct slirp_callbacks callbacks;
    struct slirp_instance *instance;
    unsigned int log_handler;
    _Atomic uint32_t references; /* the owner, and each posted call */
    /* deliver's side */
    pthread_mutex_t lock;
    struct slirp_queue inbox;
    bool starved; /* the NIC waits for room */
    _Atomic bool posted, closed;
    /* in the io context */
    struct core_slirp_guard guard;
    struct core_slirp_datagram *datagrams; /* NULL until there is a fragment */
    struct slirp_queue outbox;
    bool blocked;               /* the NIC takes no more: wait for its ready */
    bool held;                  /* the guest's time stands still, and with it the library's */
    int64_t held_ns, behind_ns; /* since when (CLOCK_MONOTONIC); how much its clock is behind that */
    struct core_io_source source;
    struct core_io_timer timer;
    struct slirp_wake wakes[SLIRP_WAKES];
    int wake_count;
    /* slirp_poll.c */
    int epoll; /* holds every descriptor that the library waits for */
    struct pollfd *polls, *polls_before;
    int poll_count, poll_count_before, poll_room, poll_room_before;
    struct slirp_watch *watches; /* by descriptor */
    int watch_count;
    uint32_t turn;
};

static inline struct core_slirp *core_slirp_of(struct core_port *port) {
    return (struct core_slirp *)port;
}

/* slirp_poll.c, in the io context: wait for what the library waits for now; let it look at what is ready. */
void core_slirp_settle(struct core_slirp *s);
void core_slirp_look(struct core_slirp *s);
void core_slirp_register(int fd, void *opaque);
void core_slirp_unregister(int fd, void *opaque);
void *core_slirp_timer_new(slirp_timer_fn fire, void *fire_opaque, void *opaque);
void core_slirp_timer_free(void *timer, void *opaque);
void core_slirp_timer_mod(void *timer, int64_t due_ms, void *opaque);

/* slirp.c: a call into the library from the control thread, between the two. */
/* slirp.c, in the io context: do what is to be done; give the NIC what waits for it. A call into the library from the
 * control thread stands between enter and leave. */
void core_slirp_work(struct core_slirp *s);
void core_slirp_flush(struct core_slirp *s);
void core_slirp_enter(struct core_slirp *s);
void core_slirp_leave(struct core_slirp *s);
