/* netq.c: a virtio network card's data path: its bells in an io context, waking and holding it. netq.h says who may do
 * what. The driver is not trusted: what it gets wrong is counted, or breaks its rings. */
#include "netq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FROM(type, member, pointer) ((type *)((uint8_t *)(pointer) - offsetof(type, member)))

static void drain(const struct core_io_source *bell) {
    uint64_t count;
    (void)!read(bell->fd, &count, sizeof count);
}

/* ---- bells: callbacks of the io context ------------------------------------------------------------------------------ */

static bool tx_poll(struct core_io_source *bell) {
    return net_transmit(FROM(struct net_tx, bell, bell));
}

static void tx_ready(struct core_io_source *bell, uint32_t events) {
    (void)events;
    drain(bell);
    (void)tx_poll(bell);
}

/* Ask for the next notification, unless the peer or the machine stands in the way: then going on asks. */
static bool tx_arm(struct core_io_source *bell) {
    struct net_tx *tx = FROM(struct net_tx, bell, bell);
    if (atomic_load(&tx->blocked) || atomic_load(&tx->net->held) || !vq_open(tx->q)) {
        return false;
    }
    bool waits = vq_listen(tx->q);
    vq_close(tx->q);
    return waits && virtio_runs(tx->net->virtio);
}

/* The driver gave buffers: the peer may go on. */
static void rx_ready(struct core_io_source *bell, uint32_t events) {
    struct net_rx *rx = FROM(struct net_rx, bell, bell);
    (void)events;
    drain(bell);
    if (atomic_exchange(&rx->starved, false)) {
        core_port_ready(&rx->net->port, rx->index);
    }
}

/* ---- the port ------------------------------------------------------------------------------------------------------ */

/* Inside the io context: the peer, or the machine, goes on. */
static void wake(void *argument) {
    struct core_net *net = argument;
    pthread_mutex_lock(&net->wake_lock);
    net->waking = false;
    bool started = net->io != NULL;
    pthread_mutex_unlock(&net->wake_lock);
    for (uint32_t i = 0; started && i < net->max_pairs; i++) {
        atomic_store(&net->all[i].tx.blocked, false);
        (void)net_transmit(&net->all[i].tx);
    }
}

/* What a budget leaves over is polled for, because the context looks once more before it sleeps. */
static void wake_soon(struct core_net *net) {
    pthread_mutex_lock(&net->wake_lock);
    if (net->io && !net->waking) {
        net->waking = core_io_post(net->io, wake, net) == 0;
    }
    pthread_mutex_unlock(&net->wake_lock);
}

static void net_ready(struct core_port *port, uint32_t queue) {
    (void)queue;
    wake_soon((struct core_net *)port);
}

enum { CONFIG_STATUS = 6, LINK_UP = 1, ANNOUNCE = 2 }; /* 5.1.4 */

/* Whether the driver sees its link up: a card that was never joined looks so, one that lost its peer does not. */
int core_net_link(core_net *net) {
    net->was_joined = net->was_joined || core_port_peer(&net->port);
    return core_port_is_up(&net->port) && (!net->was_joined || core_port_carrier(&net->port));
}

/* Bring the status in the configuration up to date; the driver is told of a change. */
void core_net_refresh(core_net *net) {
    uint8_t before[2] = {0, 0};
    const uint8_t now[2] = {(uint8_t)((core_net_link(net) ? LINK_UP : 0) | (net->announces ? ANNOUNCE : 0)), 0};
    if (core_virtio_get_config(&net->virtio->chip, CONFIG_STATUS, before, sizeof before) == 0 && before[0] != now[0]) {
        (void)core_virtio_set_config(&net->virtio->chip, CONFIG_STATUS, now, sizeof now, true);
    }
}

/* Ask the driver to announce where it is (5.1.6.5.4), or take that back. */
void core_net_announce(core_net *net, int on) {
    net->announces = on != 0;
    core_net_refresh(net);
}

static void net_carrier(struct core_port *port, bool up) {
    (void)up;
    core_net_refresh((struct core_net *)port);
}

static void close_bell(struct core_io_source *bell) {
    if (bell->fd >= 0) {
        close(bell->fd);
        bell->fd = -1;
    }
}

/* The machine is gone: stop, and let go of the descriptors; whoever has the card may still look at it. */
void core_net_shut(core_net *net) {
    core_net_stop(net);
    for (uint32_t i = 0; i < net->max_pairs; i++) {
        close_bell(&net->all[i].tx.bell);
        close_bell(&net->all[i].rx.bell);
    }
}

static void net_destroy(struct core_port *port) {
    struct core_net *net = (struct core_net *)port;
    core_net_shut(net);
    for (uint32_t i = 0; i < net->max_pairs; i++) {
        struct net_pair *pair = &net->all[i];
        free(pair->tx.chain.segments);
        free(pair->rx.chain.segments);
    }
    pthread_rwlock_destroy(&net->filter_lock);
    pthread_mutex_destroy(&net->wake_lock);
    free(net->iovecs);
    free(net->all);
    free(net);
}

static const struct core_port_ops net_ops = {
    .name = "virtio-net", .deliver = net_deliver, .ready = net_ready, .carrier = net_carrier, .destroy = net_destroy};

/* ---- life ------------------------------------------------------------------------------------------------------------ */

/* Senders of many queues take it one after another for ever: a writer must not wait for a moment without any. */
static void init_lock(pthread_rwlock_t *lock) {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

static int init_pair(struct core_net *net, uint32_t index) {
    struct net_rx *rx = &net->all[index].rx;
    struct net_tx *tx = &net->all[index].tx;
    rx->net = tx->net = net;
    rx->index = tx->index = index;
    rx->q = &net->virtio->queues[2 * index];
    tx->q = &net->virtio->queues[2 * index + 1];
    tx->iovecs = net->iovecs + (size_t)index * NET_IOVECS;
    rx->bell =
        (struct core_io_source){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .events = EPOLLIN, .ready = rx_ready};
    tx->bell = (struct core_io_source){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                                       .events = EPOLLIN,
                                       .ready = tx_ready,
                                       .poll = tx_poll,
                                       .arm = tx_arm};
    return rx->bell.fd >= 0 && tx->bell.fd >= 0 ? 0 : -ENOMEM;
}

/* The data path of a card with (pairs) pairs of queues, the first of (virtio), which must outlive its use. NULL: no
 * memory or descriptors. */
core_net *core_net_new(core_chip *virtio, uint32_t pairs) {
    struct core_virtio *v = (struct core_virtio *)virtio;
    if (pairs == 0 || pairs > NET_MAX_PAIRS || 2 * pairs > v->queue_count) {
        return NULL;
    }
    struct core_net *net = calloc(1, sizeof *net);
    struct net_pair *all = calloc(pairs, sizeof *all);
    struct iovec *iovecs = calloc((size_t)pairs * NET_IOVECS, sizeof *iovecs);
    if (!net || !all || !iovecs) {
        free(net);
        free(all);
        free(iovecs);
        return NULL;
    }
    core_port_init(&net->port, &net_ops, 0);
    init_lock(&net->filter_lock);
    pthread_mutex_init(&net->wake_lock, NULL);
    net->virtio = v;
    net->all = all;
    net->iovecs = iovecs;
    net->max_pairs = pairs;
    atomic_init(&net->pairs, 1);
    int rc = 0;
    for (uint32_t i = 0; i < pairs; i++) {
        rc |= init_pair(net, i);
    }
    if (rc) {
        net_destroy(&net->port);
        return NULL;
    }
    return net;
}

core_port *core_net_port(core_net *net) {
    return &net->port;
}

void core_net_set_pairs(core_net *net, uint32_t pairs) {
    atomic_store(&net->pairs, pairs >= 1 && pairs <= net->max_pairs ? pairs : 1);
    wake_soon(net);
}

/* What the driver understands in a header: feature bits of GUEST_*, those in force. */
void core_net_set_features(core_net *net, uint64_t guest_offloads) {
    const uint64_t uso = NET_F_GUEST_USO4 | NET_F_GUEST_USO6;
    uint32_t takes = 0;
    if (guest_offloads & NET_F_GUEST_CSUM) {
        takes |= CORE_TAKES_CSUM;
        takes |= guest_offloads & NET_F_GUEST_TSO4 ? CORE_TAKES_TSO4 : 0;
        takes |= guest_offloads & NET_F_GUEST_TSO6 ? CORE_TAKES_TSO6 : 0;
        takes |= guest_offloads & NET_F_GUEST_ECN ? CORE_TAKES_ECN : 0;
        takes |= guest_offloads & NET_F_GUEST_UFO ? CORE_TAKES_UFO : 0;
        takes |= (guest_offloads & uso) == uso ? CORE_TAKES_USO : 0;
    }
    core_port_set_takes(&net->port, takes);
}

int core_net_bell(core_net *net, uint32_t queue) {
    if (queue / 2 >= net->max_pairs) {
        return -EINVAL;
    }
    const struct net_pair *pair = &net->all[queue / 2];
    return queue % 2 ? pair->tx.bell.fd : pair->rx.bell.fd;
}

static int add_pair(struct core_io *io, struct net_pair *pair) {
    int rc = core_io_add(io, &pair->rx.bell);
    return rc < 0 ? rc : core_io_add(io, &pair->tx.bell);
}

int core_net_start(core_net *net, core_io *io) {
    int rc = net->io ? -EALREADY : 0;
    for (uint32_t i = 0; rc == 0 && i < net->max_pairs; i++) {
        if (atomic_load(&net->all[i].rx.q->ready) || atomic_load(&net->all[i].tx.q->ready)) {
            rc = add_pair(io, &net->all[i]);
        }
    }
    if (rc < 0) {
        core_net_stop(net);
        return rc;
    }
    pthread_mutex_lock(&net->wake_lock);
    net->io = io;
    pthread_mutex_unlock(&net->wake_lock);
    wake_soon(net);
    core_port_ready(&net->port, CORE_PORT_ALL_QUEUES);
    return 0;
}

/* When this returns nothing of the card runs any more; the peer does not wait for it. */
void core_net_stop(core_net *net) {
    pthread_mutex_lock(&net->wake_lock);
    struct core_io *io = net->io;
    net->io = NULL;
    pthread_mutex_unlock(&net->wake_lock);
    for (uint32_t i = 0; i < net->max_pairs; i++) {
        core_io_remove(&net->all[i].rx.bell);
        core_io_remove(&net->all[i].tx.bell);
        atomic_store(&net->all[i].tx.blocked, false);
        atomic_store(&net->all[i].rx.starved, false);
    }
    if (io) {
        core_io_sync(io); /* a wake-up that was posted has run */
        core_port_ready(&net->port, CORE_PORT_ALL_QUEUES);
    }
}

/* Stand still: nothing is taken or given, senders wait; or go on. */
void core_net_hold(core_net *net, int hold) {
    atomic_store(&net->held, hold != 0);
    if (hold) {
        for (uint32_t i = 0; i < net->max_pairs; i++) { /* who is in the middle of it comes out */
            pthread_mutex_lock(&net->all[i].rx.q->lock);
            pthread_mutex_unlock(&net->all[i].rx.q->lock);
            pthread_mutex_lock(&net->all[i].tx.q->lock);
            pthread_mutex_unlock(&net->all[i].tx.q->lock);
        }
        return;
    }
    wake_soon(net);
    for (uint32_t i = 0; i < net->max_pairs; i++) {
        if (atomic_exchange(&net->all[i].rx.starved, false)) {
            core_port_ready(&net->port, i);
        }
    }
}
