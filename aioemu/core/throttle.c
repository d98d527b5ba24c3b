/* throttle.c: leaky buckets, one set for all disks of a group, and whose turn it is when they are full.
 *
 * The rules are QEMU's (docs/throttle.txt): a bucket of bytes or requests leaks at the limit; a request goes when no
 * bucket of its direction is over its size, and may overflow it, so large requests pass. Members that have to wait take
 * turns, one request each. Any thread; a member's requests only from inside its io context. */
#include "throttle.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "io.h"

enum { TOTAL, READ, WRITE, KINDS };                        /* of the buckets of bytes; those of requests follow */
enum { BUCKETS = CORE_THROTTLE_BUCKETS, WAITING_MAX = 2 }; /* directions */
#define NS_PER_S 1e9

struct bucket {
    double level, burst_level;
};

struct core_throttle_member {
    core_throttle *group;
    core_throttle_member *next[2]; /* in the list of those who wait, by direction */
    bool waiting[2];
    struct core_io *io;
    struct core_io_timer timer[2];
    core_throttle_go *go;
    void *arg;
    int fd; /* rung instead, for a member that has no io context */
};

struct core_throttle {
    pthread_mutex_t lock;
    core_throttle_limits limits;
    struct bucket buckets[BUCKETS];
    core_throttle_member *first[2], *last[2]; /* who waits; the first has the turn */
    int64_t leaked_ns;
};

core_throttle *core_throttle_new(void) {
    core_throttle *t = calloc(1, sizeof(*t));
    if (t && pthread_mutex_init(&t->lock, NULL)) {
        free(t);
        return NULL;
    }
    return t;
}

void core_throttle_free(core_throttle *t) {
    if (t) {
        pthread_mutex_destroy(&t->lock);
        free(t);
    }
}

/* ---- buckets; with the lock held ---- */

static double most(double a, double b) {
    return a > b ? a : b;
}

static void leak(core_throttle *t, int64_t now_ns) {
    double seconds = (double)(now_ns - t->leaked_ns) / NS_PER_S;
    if (seconds <= 0) {
        return;
    }
    t->leaked_ns = now_ns;
    for (int i = 0; i < BUCKETS; i++) {
        struct bucket *b = &t->buckets[i];
        b->level = most(b->level - t->limits.average[i] * seconds, 0);
        b->burst_level = most(b->burst_level - t->limits.maximum[i] * seconds, 0);
    }
}

/* Nanoseconds until the bucket is no more than full. Without bursts it holds a tenth of a second's worth. */
static double bucket_wait(const core_throttle *t, int i) {
    double average = t->limits.average[i], maximum = t->limits.maximum[i], length = t->limits.burst_length[i];
    if (average <= 0) {
        return 0;
    }
    double over = t->buckets[i].level - (maximum > 0 ? maximum * length : average / 10);
    if (over > 0) {
        return over * NS_PER_S / average;
    }
    over = t->buckets[i].burst_level - maximum / 10;
    return maximum > 0 && length > 1 && over > 0 ? over * NS_PER_S / maximum : 0;
}

static int64_t group_wait(const core_throttle *t, bool is_write) {
    int kind = is_write ? WRITE : READ;
    double bytes = most(bucket_wait(t, TOTAL), bucket_wait(t, kind));
    double requests = most(bucket_wait(t, KINDS + TOTAL), bucket_wait(t, KINDS + kind));
    double wait = most(bytes, requests);
    return wait > 0 ? (int64_t)most(wait, 1) : 0;
}

static void count(core_throttle *t, int i, double amount) {
    t->buckets[i].level += amount;
    if (t->limits.burst_length[i] > 1) {
        t->buckets[i].burst_level += amount;
    }
}

static void account(core_throttle *t, bool is_write, uint64_t bytes) {
    int kind = is_write ? WRITE : READ;
    double large = (double)t->limits.request_size, units = 1;
    if (large > 0 && (double)bytes > large) {
        units = (double)bytes / large;
    }
    count(t, TOTAL, (double)bytes);
    count(t, kind, (double)bytes);
    count(t, KINDS + TOTAL, units);
    count(t, KINDS + kind, units);
}

/* ---- turns; with the lock held ---- */

static void queue(core_throttle *t, core_throttle_member *m, bool is_write) {
    if (m->waiting[is_write]) {
        return;
    }
    m->waiting[is_write] = true;
    m->next[is_write] = NULL;
    if (t->last[is_write]) {
        t->last[is_write]->next[is_write] = m;
    } else {
        t->first[is_write] = m;
    }
    t->last[is_write] = m;
}

static void unqueue(core_throttle *t, core_throttle_member *m, bool is_write) {
    core_throttle_member *before = NULL;
    for (core_throttle_member *each = t->first[is_write]; each; before = each, each = each->next[is_write]) {
        if (each != m) {
            continue;
        }
        if (before) {
            before->next[is_write] = m->next[is_write];
        } else {
            t->first[is_write] = m->next[is_write];
        }
        if (t->last[is_write] == m) {
            t->last[is_write] = before;
        }
        m->waiting[is_write] = false;
        return;
    }
}

static void go_read(void *arg) {
    core_throttle_member *m = arg;
    m->go(m->arg, false);
}

static void go_write(void *arg) {
    core_throttle_member *m = arg;
    m->go(m->arg, true);
}

/* Have the first of those who wait try again. Where memory is short it does when its timer says so. */
static void wake_first(core_throttle *t, bool is_write) {
    core_throttle_member *m = t->first[is_write];
    if (!m) {
        return;
    }
    if (m->io) {
        (void)core_io_post(m->io, is_write ? go_write : go_read, m);
    } else {
        uint64_t one = 1;
        (void)!write(m->fd, &one, sizeof(one)); /* full: it is rung already */
    }
}

/* ---- what others call ---- */

int core_throttle_set(core_throttle *t, const core_throttle_limits *limits) {
    for (int i = 0; i < BUCKETS; i++) {
        if (!(limits->average[i] >= 0 && limits->maximum[i] >= 0 && limits->burst_length[i] >= 1)) {
            return -EINVAL;
        }
    }
    pthread_mutex_lock(&t->lock);
    t->limits = *limits;
    for (int i = 0; i < BUCKETS; i++) {
        t->buckets[i] = (struct bucket){0};
    }
    wake_first(t, false);
    wake_first(t, true);
    pthread_mutex_unlock(&t->lock);
    return 0;
}

static void fire_read(struct core_io_timer *timer) {
    go_read((char *)timer - offsetof(core_throttle_member, timer[0]));
}

static void fire_write(struct core_io_timer *timer) {
    go_write((char *)timer - offsetof(core_throttle_member, timer[1]));
}

core_throttle_member *core_throttle_join(core_throttle *t, struct core_io *io, core_throttle_go *go, void *arg) {
    core_throttle_member *m = calloc(1, sizeof(*m));
    if (m) {
        m->group = t;
        m->io = io;
        m->go = go;
        m->arg = arg;
        m->fd = -1;
        m->timer[0].fire = fire_read;
        m->timer[1].fire = fire_write;
    }
    return m;
}

core_throttle_member *core_throttle_join_fd(core_throttle *t, int fd) {
    core_throttle_member *m = core_throttle_join(t, NULL, NULL, NULL);
    if (m) {
        m->fd = fd;
    }
    return m;
}

void core_throttle_leave(core_throttle_member *m) {
    core_throttle *t = m->group;
    pthread_mutex_lock(&t->lock);
    for (int is_write = 0; is_write < WAITING_MAX; is_write++) {
        bool had_turn = t->first[is_write] == m;
        unqueue(t, m, is_write);
        if (had_turn) {
            wake_first(t, is_write);
        }
    }
    pthread_mutex_unlock(&t->lock);
    if (m->io) {
        core_io_timer_clear(m->io, &m->timer[0]);
        core_io_timer_clear(m->io, &m->timer[1]);
        core_io_sync(m->io); /* what was posted has run */
    }
    free(m);
}

int64_t core_throttle_take(core_throttle_member *m, int is_write, uint64_t bytes, int64_t now_ns) {
    core_throttle *t = m->group;
    bool dir = is_write != 0;
    pthread_mutex_lock(&t->lock);
    leak(t, now_ns);
    bool my_turn = !t->first[dir] || t->first[dir] == m;
    int64_t wait = my_turn ? group_wait(t, dir) : INT64_MAX;
    if (wait) {
        queue(t, m, dir);
    } else {
        account(t, dir, bytes);
        unqueue(t, m, dir);
        wake_first(t, dir);
    }
    pthread_mutex_unlock(&t->lock);
    if (wait && wait != INT64_MAX && m->io) {
        core_io_timer_set(m->io, &m->timer[dir], now_ns + wait);
    }
    return wait;
}

void core_throttle_give_up(core_throttle_member *m, int is_write) {
    core_throttle *t = m->group;
    bool dir = is_write != 0;
    pthread_mutex_lock(&t->lock);
    bool had_turn = t->first[dir] == m;
    unqueue(t, m, dir);
    if (had_turn) {
        wake_first(t, dir);
    }
    pthread_mutex_unlock(&t->lock);
}
