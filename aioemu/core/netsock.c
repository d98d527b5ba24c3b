/* netsock.c: the port of a socket: attaching and detaching a descriptor, waiting for room and for the NIC. */
#include "netsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const struct core_net_hdr plain; /* what comes out of a socket is whole */

static struct core_netsock *netsock_of(struct core_port *port) {
    return (struct core_netsock *)port;
}

int core_netsock_pass(struct core_netsock *s, const struct iovec *frames, int count) {
    struct iovec iov[NETSOCK_BATCH][2];
    struct core_frame batch[NETSOCK_BATCH];
    for (int i = 0; i < count; i++) {
        iov[i][0] = (struct iovec){.iov_base = (void *)&plain, .iov_len = CORE_NET_HDR_SIZE};
        iov[i][1] = frames[i];
        batch[i] = (struct core_frame){.iov = iov[i], .count = 2, .size = (uint32_t)frames[i].iov_len};
    }
    int taken = count ? core_port_send(&s->port, 0, batch, count) : 0;
    s->blocked = taken < count;
    return taken;
}

/* ---- in the io context ---------------------------------------------------------------------------------------------- */

static void drop_reference(struct core_netsock *s) {
    if (atomic_fetch_sub(&s->references, 1) == 1) {
        pthread_mutex_destroy(&s->lock);
        free(s);
    }
}

/* The connection is over: say so, once. The descriptor stays Python's to close. */
static void finish(struct core_netsock *s, int error) {
    if (s->ended || !s->kind) {
        return;
    }
    s->ended = true;
    s->end = error;
    core_io_remove(&s->source);
    core_io_timer_clear(s->io, &s->retry);
    pthread_mutex_lock(&s->lock);
    s->fd = -1;
    s->waits = s->broken = false;
    s->rest_at = s->rest_end = 0;
    pthread_mutex_unlock(&s->lock);
    core_port_ready(&s->port, CORE_PORT_ALL_QUEUES); /* what waited is dropped now */
    (void)!write(s->news, &(uint64_t){1}, sizeof(uint64_t));
}

/* Wait for what is to be waited for: input unless the NIC is full, room where a frame waits for it. */
static void update(struct core_netsock *s) {
    if (!s->kind || s->ended) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    bool waits = s->waits, broken = s->broken, sleeps = s->retry_ns != 0;
    pthread_mutex_unlock(&s->lock);
    if (broken) {
        finish(s, -EPIPE);
        return;
    }
    if (waits && sleeps) {
        core_io_timer_set(s->io, &s->retry, core_monotonic_ns() + s->retry_ns);
    }
    core_io_change(&s->source, (s->blocked ? 0 : EPOLLIN) | (waits && !sleeps ? EPOLLOUT : 0));
}

static void receive(struct core_netsock *s) {
    int rc = s->kind->receive(s);
    if (rc != 0) {
        finish(s, rc > 0 ? 0 : rc);
    }
}

/* There is room again, perhaps: the NIC may send. */
static void go_on(struct core_netsock *s) {
    pthread_mutex_lock(&s->lock);
    bool waited = s->waits;
    int rc = waited ? core_netsock_send_rest(s) : -EAGAIN;
    s->waits = waited && rc == -EAGAIN;
    s->broken = s->broken || (rc < 0 && rc != -EAGAIN);
    pthread_mutex_unlock(&s->lock);
    if (rc == 0) {
        core_port_ready(&s->port, CORE_PORT_ALL_QUEUES);
    }
}

static void socket_ready(struct core_io_source *source, uint32_t events) {
    struct core_netsock *s = (struct core_netsock *)((char *)source - offsetof(struct core_netsock, source));
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        go_on(s);
    }
    if (!s->blocked) {
        receive(s);
    } else if (events & EPOLLERR) {
        int error; /* taking it off is all that a datagram socket needs */
        (void)!getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
    }
    if ((events & EPOLLHUP) && (s->blocked || s->kind == &core_netsock_dgram)) {
        finish(s, -EPIPE); /* what waits for the NIC is lost with its sender */
    }
    update(s);
}

static void retry(struct core_io_timer *timer) {
    struct core_netsock *s = (struct core_netsock *)((char *)timer - offsetof(struct core_netsock, retry));
    go_on(s);
    update(s);
}

static void on_update(void *arg) {
    struct core_netsock *s = arg;
    if (!atomic_load(&s->closed)) {
        update(s);
    }
    drop_reference(s);
}

static void on_unblock(void *arg) {
    struct core_netsock *s = arg;
    if (!atomic_load(&s->closed) && s->kind && !s->ended && s->blocked) {
        s->blocked = false;
        receive(s);
        update(s);
    }
    drop_reference(s);
}

/* ---- from other contexts -------------------------------------------------------------------------------------------- */

static void post(struct core_netsock *s, void (*fn)(void *)) {
    atomic_fetch_add(&s->references, 1);
    if (core_io_post(s->io, fn, s) < 0) {
        atomic_fetch_sub(&s->references, 1); /* not the last: the owner has one */
    }
}

static int drop_all(struct core_netsock *s, const struct core_frame *frames, int count, enum core_drop why) {
    for (int i = 0; i < count; i++) {
        core_port_drop_in(&s->port, why, frames[i].size);
    }
    return count;
}

static int netsock_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    struct core_netsock *s = netsock_of(port);
    (void)queue;
    int taken = 0;
    bool tell = false;
    pthread_mutex_lock(&s->lock);
    if (s->fd < 0 || s->broken) {
        taken = drop_all(s, frames, count, CORE_DROP_LINK_DOWN);
    } else if (!s->waits) {
        while (taken < count && !s->waits && !s->broken) {
            int batch = count - taken < NETSOCK_BATCH ? count - taken : NETSOCK_BATCH;
            taken += s->kind->send(s, frames + taken, batch);
        }
        tell = s->waits || s->broken;
        if (s->broken) {
            taken += drop_all(s, frames + taken, count - taken, CORE_DROP_LINK_DOWN);
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (tell) {
        post(s, on_update);
    }
    return taken;
}

static void netsock_ready(struct core_port *port, uint32_t queue) {
    (void)queue;
    post(netsock_of(port), on_unblock);
}

/* ---- life: control thread ---------------------------------------------------------------------------------------- */

static void release(struct core_netsock *s) {
    core_io_remove(&s->source);
    core_io_timer_clear(s->io, &s->retry);
    pthread_mutex_lock(&s->lock);
    s->fd = -1;
    s->waits = s->broken = false;
    s->rest_at = s->rest_end = 0;
    pthread_mutex_unlock(&s->lock);
    s->kind = NULL;
    s->blocked = false;
    free(s->buffer);
    s->buffer = NULL;
}

static void netsock_destroy(struct core_port *port) {
    struct core_netsock *s = netsock_of(port);
    core_io_enter(s->io);
    atomic_store(&s->closed, true);
    release(s);
    core_io_leave(s->io);
    free(s->rest);
    s->rest = NULL;
    close(s->news);
    drop_reference(s);
}

static int netsock_drive(struct core_port *port, core_io *io) {
    struct core_netsock *s = netsock_of(port);
    core_io_enter(s->io);
    bool active = s->kind && !s->ended;
    core_io_remove(&s->source);
    core_io_timer_clear(s->io, &s->retry);
    core_io_leave(s->io);
    s->io = io;
    core_io_enter(io);
    int rc = active ? core_io_add(io, &s->source) : 0;
    update(s);
    core_io_leave(io);
    return rc;
}

static const struct core_port_ops netsock_ops = {
    .name = "socket",
    .deliver = netsock_deliver,
    .ready = netsock_ready,
    .drive = netsock_drive,
    .destroy = netsock_destroy,
};

core_port *core_netsock_new(core_io *io) {
    struct core_netsock *s = calloc(1, sizeof *s);
    if (!s) {
        return NULL;
    }
    s->rest = malloc(NETSOCK_LENGTH + CORE_FRAME_MAX);
    s->news = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!s->rest || s->news < 0) {
        free(s->rest);
        if (s->news >= 0) {
            close(s->news);
        }
        free(s);
        return NULL;
    }
    core_port_init(&s->port, &netsock_ops, 0);
    pthread_mutex_init(&s->lock, NULL);
    atomic_init(&s->references, 1);
    s->io = io;
    s->fd = -1;
    s->retry.fire = retry;
    return &s->port;
}

int core_netsock_news_fd(core_port *port) {
    return netsock_of(port)->news;
}

static int attach(struct core_netsock *s, const struct netsock_kind *kind, int fd, const uint8_t *to,
                  uint32_t to_size) {
    s->buffer = malloc(kind->buffer_size);
    if (!s->buffer) {
        return -ENOMEM;
    }
    s->start = s->fill = 0;
    s->ended = s->blocked = false;
    s->end = 0;
    s->retry_ns = 0;
    if (to_size) {
        memcpy(&s->to, to, to_size);
    }
    s->to_size = to_size;
    s->kind = kind;
    s->source = (struct core_io_source){.fd = fd, .events = EPOLLIN, .ready = socket_ready};
    int rc = core_io_add(s->io, &s->source);
    if (rc < 0) {
        release(s);
        return rc;
    }
    pthread_mutex_lock(&s->lock);
    s->fd = fd;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int core_netsock_attach(core_port *port, int fd, int stream, const uint8_t *to, uint32_t to_size) {
    struct core_netsock *s = netsock_of(port);
    const struct netsock_kind *kind = stream ? &core_netsock_stream : &core_netsock_dgram;
    if (to_size > sizeof s->to) {
        return -EINVAL;
    }
    core_io_enter(s->io);
    int rc = s->kind ? -EBUSY : attach(s, kind, fd, to, to_size);
    core_io_leave(s->io);
    return rc;
}

int core_netsock_detach(core_port *port) {
    struct core_netsock *s = netsock_of(port);
    uint64_t rung;
    core_io_enter(s->io);
    int end = s->end;
    release(s);
    (void)!read(s->news, &rung, sizeof rung);
    core_port_ready(port, CORE_PORT_ALL_QUEUES);
    core_io_leave(s->io);
    return end;
}

int core_netsock_ended(core_port *port) {
    struct core_netsock *s = netsock_of(port);
    core_io_enter(s->io);
    int ended = s->ended;
    core_io_leave(s->io);
    return ended;
}
