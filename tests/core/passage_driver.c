/* passage_driver.c: ports whose senders are never all gone at once: two threads, each of which stays in the receiver until
 * the other one is inside as well. Parting, impairing, putting a link in between and watching must return all the same.
 *
 *     passage_driver ROUNDS
 *
 * Prints nothing when every change waited for who was inside, and for nobody else. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io.h"
#include "link.h"
#include "port.h"

enum { SENDERS = 2, LIMIT_S = 60, PATIENCE_NS = 20 * 1000 * 1000 };

struct relay {
    struct core_port port;
    _Atomic uint32_t turn[SENDERS]; /* how often each was inside */
    _Atomic bool open;              /* false: nobody waits for the other */
};

struct sender {
    struct core_port *port;
    struct relay *relay;
    uint32_t index;
    pthread_t thread;
};

static _Thread_local uint32_t self;
static _Atomic bool stop;

/* Stay until the other sender has come in after this one did, or cannot: a change keeps it out. */
static int relay_deliver(struct core_port *port, uint32_t queue, const struct core_frame *frames, int count) {
    struct relay *r = (struct relay *)port;
    (void)queue;
    (void)frames;
    uint32_t other = atomic_load(&r->turn[1 - self]);
    atomic_fetch_add(&r->turn[self], 1);
    int64_t until = core_monotonic_ns() + PATIENCE_NS;
    while (atomic_load(&r->open) && atomic_load(&r->turn[1 - self]) == other && core_monotonic_ns() < until) {
        sched_yield();
    }
    return count;
}

static void relay_destroy(struct core_port *port) {
    (void)port;
}

static const struct core_port_ops relay_ops = {.name = "relay", .deliver = relay_deliver, .destroy = relay_destroy};

static void *send(void *arg) {
    const struct sender *s = arg;
    uint8_t bytes[60] = {0};
    struct core_net_hdr hdr = {0};
    const struct iovec iov[2] = {{&hdr, sizeof hdr}, {bytes, sizeof bytes}};
    const struct core_frame frame = {.iov = iov, .count = 2, .size = sizeof bytes};
    self = s->index;
    while (!atomic_load(&stop)) {
        core_port_send(s->port, 0, &frame, 1);
    }
    return NULL;
}

static void passed(struct core_port_watch *watch, bool out, const struct core_frame *frames, int count) {
    (void)watch;
    (void)out;
    (void)frames;
    (void)count;
}

static void part(struct core_port *port, struct relay *r) {
    struct core_port *peer = core_port_peer(port);
    core_port_part(port);
    uint32_t turns = atomic_load(&r->turn[0]) + atomic_load(&r->turn[1]);
    usleep(100);
    if (turns != atomic_load(&r->turn[0]) + atomic_load(&r->turn[1])) {
        puts("broken: a frame came after parting");
        exit(1);
    }
    core_port_join(port, peer);
}

static void change(struct core_io *io, struct core_port *port, struct relay *r) {
    struct core_port_watch watch = {.passed = passed};
    core_port_watch(port, &watch);
    core_port_unwatch(port, &watch);
    core_link *link = core_link_new(io);
    if (!link || core_link_insert(link, port)) {
        puts("broken: a link in between");
        exit(1);
    }
    core_impair lossy = {.duplicate = 1.0};
    core_link_impair(link, 0, &lossy);
    core_link_impair(link, 0, &(core_impair){0});
    core_link_free(link);
    core_port_join(port, &r->port);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 10;
    struct core_port port;
    struct relay relay = {.open = true};
    core_port_init(&port, &relay_ops, CORE_TAKES_ALL);
    core_port_init(&relay.port, &relay_ops, CORE_TAKES_ALL);
    core_port_join(&port, &relay.port);
    struct core_io *io = core_io_new();
    struct sender senders[SENDERS];
    alarm(LIMIT_S); /* a change that waits for a moment without senders waits for ever */
    core_io_thread_start(io, "links");
    for (uint32_t i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.port = &port, .relay = &relay, .index = i};
        pthread_create(&senders[i].thread, NULL, send, &senders[i]);
    }
    for (int n = 0; n < rounds; n++) {
        part(&port, &relay);
        change(io, &port, &relay);
    }
    atomic_store(&stop, true);
    atomic_store(&relay.open, false);
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(senders[i].thread, NULL);
    }
    core_port_part(&port);
    core_io_thread_stop(io);
    core_io_free(io);
    return 0;
}
