/* slirp.c: the port of user networking: a guest's frames wait in an inbox until the io context takes them to the library,
 * what it answers waits in an outbox until the NIC takes it. Both are bounded. */
#include "slirp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const struct core_net_hdr plain; /* what the library makes is whole */

/* ---- queues ----------------------------------------------------------------------------------------------------- */

static void queue_init(struct slirp_queue *q) {
    q->first = NULL;
    q->end = &q->first;
    q->bytes = 0;
}

static void put(struct slirp_queue *q, struct slirp_frame *frame) {
    frame->next = NULL;
    *q->end = frame;
    q->end = &frame->next;
    q->bytes += (uint32_t)sizeof *frame + frame->size;
}

static void put_back(struct slirp_queue *q, struct slirp_frame *frame) {
    q->end = q->first ? q->end : &frame->next;
    frame->next = q->first;
    q->first = frame;
    q->bytes += (uint32_t)sizeof *frame + frame->size;
}

static struct slirp_frame *take(struct slirp_queue *q) {
    struct slirp_frame *frame = q->first;
    if (frame) {
        q->first = frame->next;
        q->end = q->first ? q->end : &q->first;
        q->bytes -= (uint32_t)sizeof *frame + frame->size;
    }
    return frame;
}

static void empty(struct slirp_queue *q) {
    for (struct slirp_frame *frame; (frame = take(q));) {
        free(frame);
    }
}

/* ---- to the guest ----------------------------------------------------------------------------------------------- */

/* The library sends a frame. Lost where there is no room, as on any wire: its connections send again. */
static ssize_t send_packet(const void *data, size_t size, void *opaque) {
    struct core_slirp *s = opaque;
    struct slirp_frame *frame = NULL;
    if (size <= CORE_FRAME_MAX && s->outbox.bytes + size <= SLIRP_OUTBOX_BYTES) {
        frame = malloc(sizeof *frame + size);
    }
    if (!frame) {
        core_port_drop_out(&s->port, CORE_DROP_QUEUE_FULL, 1);
        return (ssize_t)size;
    }
    frame->size = (uint32_t)size;
    memcpy(frame->data, data, size);
    put(&s->outbox, frame);
    return (ssize_t)size;
}

/* Give the NIC one batch: whether it took all of it. */
static bool send_batch(struct core_slirp *s) {
    struct iovec iov[SLIRP_BATCH][2];
    struct core_frame frames[SLIRP_BATCH];
    struct slirp_frame *held[SLIRP_BATCH];
    int count = 0;
    for (struct slirp_frame *f; count < SLIRP_BATCH && (f = take(&s->outbox)); count++) {
        held[count] = f;
        iov[count][0] = (struct iovec){.iov_base = (void *)&plain, .iov_len = CORE_NET_HDR_SIZE};
        iov[count][1] = (struct iovec){.iov_base = f->data, .iov_len = f->size};
        frames[count] = (struct core_frame){.iov = iov[count], .count = 2, .size = f->size};
    }
    int taken = core_port_send(&s->port, 0, frames, count);
    for (int i = 0; i < taken; i++) {
        free(held[i]);
    }
    for (int i = count; i-- > taken;) {
        put_back(&s->outbox, held[i]);
    }
    return taken == count;
}

void core_slirp_flush(struct core_slirp *s) {
    while (!s->blocked && s->outbox.first) {
        s->blocked = !send_batch(s);
    }
}

/* ---- from the guest --------------------------------------------------------------------------------------------- */

static void drop_reference(struct core_slirp *s) {
    if (atomic_fetch_sub(&s->references, 1) == 1) {
        empty(&s->inbox);
        pthread_mutex_destroy(&s->lock);
        free(s);
    }
}

/* Give the library one frame, if it may have it. */
static int show(struct core_slirp *s, struct slirp_frame *frame, int64_t now_ns) {
    int fault = core_slirp_guard(&s->guard, frame->data, frame->size, now_ns);
    if (fault == GUARD_PASS) {
        s->library.input(s->instance, frame->data, (int)frame->size);
    }
    return fault;
}

static int show_fragment(struct core_slirp *s, const struct slirp_frame *frame, int64_t now_ns) {
    struct slirp_frame *packet = NULL;
    if (core_slirp_reassemble(&s->datagrams, frame->data, now_ns, &packet) < 0) {
        return CORE_DROP_FILTERED;
    }
    int fault = packet ? show(s, packet, now_ns) : GUARD_PASS;
    free(packet);
    return fault;
}

static void input(struct core_slirp *s, struct slirp_queue *frames) {
    int64_t now_ns = core_monotonic_ns();
    for (struct slirp_frame *frame; (frame = take(frames)); free(frame)) {
        int fault = show(s, frame, now_ns);
        if (fault == GUARD_FRAGMENT) {
            fault = show_fragment(s, frame, now_ns);
        }
        if (fault >= 0) {
            core_port_drop_in(&s->port, (enum core_drop)fault, frame->size);
        }
    }
}

/* Everything that is to be done: in the io context. */
void core_slirp_work(struct core_slirp *s) {
    if (s->held) {
        return;
    }
    struct slirp_queue frames;
    pthread_mutex_lock(&s->lock);
    frames = s->inbox;
    frames.end = frames.first ? frames.end : &frames.first;
    queue_init(&s->inbox);
    bool tell = s->starved;
    s->starved = false;
    pthread_mutex_unlock(&s->lock);
    input(s, &frames);
    core_slirp_look(s);
    core_slirp_settle(s);
    core_slirp_flush(s);
    if (tell) {
        core_port_ready(&s->port, CORE_PORT_ALL_QUEUES);
    }
}

static void turn(void *arg) {
    struct core_slirp *s = arg;
    atomic_store(&s->posted, false);
    if (!atomic_load(&s->closed)) {
        core_slirp_work(s);
    }
    drop_reference(s);
}

static void unblock(void *arg) {
    struct core_slirp *s = arg;
    if (!atomic_load(&s->closed)) {
        s->blocked = false;
        core_slirp_flush(s);
    }
    drop_reference(s);
}

static void post(struct core_slirp *s, void (*fn)(void *)) {
    atomic_fetch_add(&s->references, 1);
    if (core_io_post(s->io, fn, s) < 0) {
        atomic_fetch_sub(&s->references, 1); /* not the last: the owner has one */
    }
}

static int slirp_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    struct core_slirp *s = core_slirp_of(port);
    (void)queue;
    int taken = 0;
    pthread_mutex_lock(&s->lock);
    for (; taken < count && s->inbox.bytes < SLIRP_INBOX_BYTES; taken++) {
        struct slirp_frame *frame = malloc(sizeof *frame + frames[taken].size);
        if (!frame) {
            core_port_drop_in(port, CORE_DROP_QUEUE_FULL, frames[taken].size);
            continue;
        }
        frame->size = core_frame_copy(&frames[taken], 0, frame->data, frames[taken].size);
        put(&s->inbox, frame);
    }
    s->starved = s->starved || taken < count;
    pthread_mutex_unlock(&s->lock);
    if (!atomic_exchange(&s->posted, true)) {
        post(s, turn);
    }
    return taken;
}

static void slirp_ready(struct core_port *port, uint32_t queue) {
    (void)queue;
    post(core_slirp_of(port), unblock);
}

/* ---- what the io context and the library call ---------------------------------------------------------------------- */

static void sockets_ready(struct core_io_source *source, uint32_t events) {
    (void)events;
    core_slirp_work((struct core_slirp *)((char *)source - offsetof(struct core_slirp, source)));
}

static void time_is_up(struct core_io_timer *timer) {
    core_slirp_work((struct core_slirp *)((char *)timer - offsetof(struct core_slirp, timer)));
}

static int64_t clock_get_ns(void *opaque) {
    const struct core_slirp *s = opaque;
    return (s->held ? s->held_ns : core_monotonic_ns()) - s->behind_ns;
}

static void guest_error(const char *message, void *opaque) {
    (void)message; /* the guest's business, and as many as it likes */
    (void)opaque;
}

static void notify(void *opaque) {
    (void)opaque; /* every call into the library is followed by settle */
}

/* The library's own messages would go to standard error, at a guest's will. */
static void swallow(const char *domain, int level, const char *message, void *opaque) {
    (void)domain;
    (void)level;
    (void)message;
    (void)opaque;
}

static const struct slirp_callbacks callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_new = core_slirp_timer_new,
    .timer_free = core_slirp_timer_free,
    .timer_mod = core_slirp_timer_mod,
    .register_poll_fd = core_slirp_register,
    .unregister_poll_fd = core_slirp_unregister,
    .notify = notify,
};

/* ---- life ------------------------------------------------------------------------------------------------------- */

void core_slirp_enter(struct core_slirp *s) {
    core_io_enter(s->io);
}

void core_slirp_leave(struct core_slirp *s) {
    core_slirp_settle(s);
    core_slirp_flush(s);
    core_io_leave(s->io);
}

static void slirp_destroy(struct core_port *port) {
    struct core_slirp *s = core_slirp_of(port);
    core_io_enter(s->io);
    atomic_store(&s->closed, true);
    core_io_remove(&s->source);
    core_io_timer_clear(s->io, &s->timer);
    if (s->instance) {
        s->library.cleanup(s->instance);
    }
    if (s->log_handler) {
        s->library.log_remove_handler("Slirp", s->log_handler);
    }
    empty(&s->outbox);
    core_io_leave(s->io);
    close(s->epoll);
    free(s->polls);
    free(s->polls_before);
    free(s->datagrams);
    free(s->watches);
    drop_reference(s);
}

static const struct core_port_ops slirp_ops = {
    .name = "user",
    .deliver = slirp_deliver,
    .ready = slirp_ready,
    .destroy = slirp_destroy,
};

static void copy_options(struct slirp_config *config, const core_slirp_options *options) {
    *config = (struct slirp_config){
        .version = SLIRP_CONFIG_VERSION,
        .restricted = options->restricted,
        .in_enabled = options->ipv4 != 0,
        .in6_enabled = options->ipv6 != 0,
        .vprefix_len = options->prefix6_len,
        .vhostname = options->hostname,
        .tftp_server_name = options->tftp_server_name,
        .tftp_path = options->tftp,
        .bootfile = options->bootfile,
        .vdnssearch = options->dnssearch,
        .vdomainname = options->domainname,
    };
    memcpy(&config->vnetwork, options->net, 4);
    memcpy(&config->vnetmask, options->mask, 4);
    memcpy(&config->vhost, options->host, 4);
    memcpy(&config->vdhcp_start, options->dhcp, 4);
    memcpy(&config->vnameserver, options->dns, 4);
    memcpy(&config->vprefix_addr6, options->prefix6, 16);
    memcpy(&config->vhost6, options->host6, 16);
    memcpy(&config->vnameserver6, options->dns6, 16);
}

/* Start the library. It keeps the pointer to the callbacks and none to the configuration. */
static int start(struct core_slirp *s, const core_slirp_options *options) {
    struct slirp_config config;
    copy_options(&config, options);
    s->callbacks = callbacks;
    int rc = core_slirp_open(&s->library);
    if (rc < 0) {
        return rc;
    }
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0) {
        return -errno;
    }
    s->source = (struct core_io_source){.fd = s->epoll, .events = EPOLLIN, .ready = sockets_ready};
    s->timer.fire = time_is_up;
    core_io_enter(s->io);
    s->log_handler = s->library.log_set_handler("Slirp", -4, swallow, NULL); /* every level */
    s->instance = s->library.make(&config, &s->callbacks, s);
    rc = s->instance ? core_io_add(s->io, &s->source) : -EINVAL;
    if (rc == 0) {
        core_slirp_settle(s);
    }
    core_io_leave(s->io);
    return rc;
}

core_port *core_slirp_new(const core_slirp_options *options, core_io *io, int *error) {
    struct core_slirp *s = calloc(1, sizeof *s);
    if (!s) {
        *error = -ENOMEM;
        return NULL;
    }
    core_port_init(&s->port, &slirp_ops, 0);
    atomic_init(&s->references, 1);
    pthread_mutex_init(&s->lock, NULL);
    queue_init(&s->inbox);
    queue_init(&s->outbox);
    s->io = io;
    s->epoll = -1;
    core_slirp_guard_init(&s->guard);
    *error = start(s, options);
    if (*error < 0) {
        slirp_destroy(&s->port);
        return NULL;
    }
    return &s->port;
}
