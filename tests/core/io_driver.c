/* io_driver.c: an io context driven as its users drive it, for the sanitizers to watch: doorbells from another thread,
 * sources removed while they are rung, timers, posted calls.
 *
 *     io_driver thread|loop ROUNDS
 *
 * Prints nothing when every promise held; else the first that did not, and exit status 1. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io.h"

struct bell {
    struct core_io_source source;
    _Atomic uint32_t rung, served; /* a ring in memory, as a virtqueue is */
    _Atomic bool armed, gone, late;
};

struct ticker {
    struct core_io_timer timer;
    struct core_io *io;
    _Atomic int fired;
    int64_t order;
};

struct driver {
    struct core_io *io;
    _Atomic bool stop;
    bool has_thread;
};

static void fail(const char *promise) {
    fprintf(stdout, "broken: %s\n", promise);
    exit(1);
}

static bool bell_poll(struct core_io_source *s) {
    struct bell *b = (struct bell *)s;
    if (atomic_load(&b->gone)) {
        atomic_store(&b->late, true);
    }
    uint32_t rung = atomic_load(&b->rung);
    if (rung == atomic_load(&b->served)) {
        return false;
    }
    atomic_store(&b->armed, s->poll == NULL);
    atomic_store(&b->served, rung);
    return true;
}

static bool bell_arm(struct core_io_source *s) {
    struct bell *b = (struct bell *)s;
    atomic_store(&b->armed, true);
    return atomic_load(&b->rung) != atomic_load(&b->served);
}

static void bell_ready(struct core_io_source *s, uint32_t events) {
    uint64_t count;
    (void)events;
    (void)!read(s->fd, &count, sizeof count);
    bell_poll(s);
}

static void ring(struct bell *b) {
    uint64_t one = 1;
    atomic_fetch_add(&b->rung, 1);
    if (atomic_load(&b->armed)) {
        (void)!write(b->source.fd, &one, sizeof one);
    }
}

static void *reactor(void *argument) {
    struct driver *d = argument;
    struct pollfd wait = {.fd = core_io_fd(d->io), .events = POLLIN};
    while (!atomic_load(&d->stop)) {
        if (poll(&wait, 1, -1) > 0) {
            core_io_run(d->io, 500000);
        }
    }
    return NULL;
}

static void wait_served(struct bell *b, const char *promise) {
    int64_t end = core_monotonic_ns() + 20000000000ll;
    while (atomic_load(&b->served) != atomic_load(&b->rung)) {
        if (core_monotonic_ns() > end) {
            fail(promise);
        }
        sched_yield();
    }
}

static void init_bell(struct bell *b, bool polled) {
    memset(b, 0, sizeof *b);
    b->source = (struct core_io_source){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .events = EPOLLIN};
    b->source.ready = bell_ready;
    if (polled) {
        b->source.poll = bell_poll;
        b->source.arm = bell_arm;
    }
    atomic_store(&b->armed, true);
}

/* Every ring of a doorbell is served, whether it came as an event or was seen by polling. */
static void doorbells(struct driver *d, int rounds, bool polled) {
    struct bell *b = malloc(sizeof *b);
    if (!b) {
        fail("memory");
    }
    init_bell(b, polled);
    if (core_io_add(d->io, &b->source) < 0) {
        fail("add");
    }
    for (int i = 0; i < rounds; i++) {
        ring(b);
        if (i % 3 == 0) {
            wait_served(b, "a ring is served");
        }
        if (i % 64 == 1) {
            usleep(i % 128 ? 20 : 200);
        }
    }
    wait_served(b, "the last ring is served");
    core_io_remove(&b->source);
    atomic_store(&b->gone, true);
    ring(b);
    core_io_sync(d->io);
    if (atomic_load(&b->late)) {
        fail("nothing is called after remove");
    }
    close(b->source.fd);
    free(b);
}

static void removal_races(struct driver *d, int rounds) {
    for (int i = 0; i < rounds; i++) {
        struct bell *b = malloc(sizeof *b);
        if (!b) {
            fail("memory");
        }
        init_bell(b, i % 2);
        core_io_add(d->io, &b->source);
        ring(b);
        core_io_remove(&b->source);
        int fd = b->source.fd;
        memset(b, 0xee, sizeof *b);
        free(b);
        close(fd);
    }
}

static void count_call(void *arg) {
    uint32_t *seen = arg;
    seen[0] = seen[0] * 31 + seen[1]++;
}

static void calls(struct driver *d, int rounds) {
    uint32_t seen[2] = {0, 0}, expected[2] = {0, 0};
    for (int i = 0; i < rounds; i++) {
        core_io_post(d->io, count_call, seen);
        count_call(expected);
    }
    core_io_sync(d->io);
    core_io_enter(d->io);
    if (memcmp(seen, expected, sizeof seen) != 0) {
        fail("posted calls have run after sync, in order");
    }
    core_io_leave(d->io);
}

static void tick(struct core_io_timer *t) {
    struct ticker *k = (struct ticker *)t;
    if (core_monotonic_ns() < t->due_ns) {
        fail("a timer does not fire early");
    }
    if (atomic_fetch_add(&k->fired, 1) < 3) {
        core_io_timer_set(k->io, t, core_monotonic_ns() + 100000);
    }
}

static void timers(struct driver *d) {
    struct ticker ticks[4] = {0}, never = {.timer.fire = tick, .io = d->io};
    for (int i = 0; i < 4; i++) {
        ticks[i].timer.fire = tick;
        ticks[i].io = d->io;
        core_io_timer_set(d->io, &ticks[i].timer, core_monotonic_ns() + (4 - i) * 200000);
    }
    core_io_timer_set(d->io, &never.timer, core_monotonic_ns() + 1000000000000ll);
    core_io_timer_clear(d->io, &never.timer);
    int64_t end = core_monotonic_ns() + 20000000000ll;
    for (int i = 0; i < 4; i++) {
        while (atomic_load(&ticks[i].fired) < 4) {
            if (core_monotonic_ns() > end) {
                fail("a timer fires");
            }
            usleep(100);
        }
        core_io_timer_clear(d->io, &ticks[i].timer);
    }
    core_io_sync(d->io);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        return 2;
    }
    struct driver d = {.io = core_io_new(), .has_thread = strcmp(argv[1], "thread") == 0};
    int rounds = atoi(argv[2]);
    pthread_t loop;
    core_io_set_poll(d.io, 32768, 0, 0, 0);
    if (d.has_thread ? core_io_thread_start(d.io, "test") : pthread_create(&loop, NULL, reactor, &d)) {
        fail("a thread");
    }
    doorbells(&d, rounds, true);
    doorbells(&d, rounds, false);
    removal_races(&d, rounds);
    calls(&d, rounds);
    timers(&d);
    if (!d.has_thread) {
        atomic_store(&d.stop, true);
        core_io_post(d.io, count_call, (uint32_t[2]){0});
        pthread_join(loop, NULL);
    }
    core_io_free(d.io);
    return 0;
}
