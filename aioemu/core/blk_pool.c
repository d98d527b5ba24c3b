/* blk_pool.c: threads that wait for a disk in the stead of the I/O thread. They are made when there is work that no idle
 * one could take, touch nothing of a request but its call, and end with the disk. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blk.h"

enum { POOL_STACK = 64 * 1024 };

struct blk_pool {
    struct core_io_source source; /* rung when something is done */
    struct core_blk *blk;
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    struct blk_list todo, done;
    _Atomic bool news; /* `done` is not empty */
    pthread_t threads[BLK_THREADS];
    uint32_t count, idle, todo_count;
    bool quit;
};

static int64_t work(const struct blk_req *r) {
    ssize_t rc;
    do {
        switch (r->op) {
        case BLK_OP_READ: rc = preadv(r->op_fd, r->part, (int)r->part_count, (off_t)r->op_offset); break;
        case BLK_OP_WRITE: rc = pwritev(r->op_fd, r->part, (int)r->part_count, (off_t)r->op_offset); break;
        default: rc = fdatasync(r->op_fd);
        }
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc;
}

static void *run(void *argument) {
    struct blk_pool *p = argument;
    uint64_t one = 1;
    pthread_mutex_lock(&p->lock);
    while (!p->quit) {
        struct blk_req *r = blk_list_take(&p->todo);
        if (!r) {
            p->idle++;
            pthread_cond_wait(&p->work, &p->lock);
            p->idle--;
            continue;
        }
        p->todo_count--;
        pthread_mutex_unlock(&p->lock);
        int64_t result = work(r);
        pthread_mutex_lock(&p->lock);
        r->result = result;
        blk_list_add(&p->done, r);
        if (!atomic_exchange(&p->news, true)) {
            (void)!write(p->source.fd, &one, sizeof one);
        }
        pthread_cond_signal(&p->finished);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- the disk's side ------------------------------------------------------------------------------------------------- */

static bool reap(struct blk_pool *p) {
    if (!atomic_load_explicit(&p->news, memory_order_acquire)) {
        return false;
    }
    pthread_mutex_lock(&p->lock);
    struct blk_req *r = p->done.first;
    p->done = (struct blk_list){0};
    atomic_store(&p->news, false);
    pthread_mutex_unlock(&p->lock);
    p->blk->now_ns = core_monotonic_ns();
    while (r) {
        struct blk_req *next = r->next;
        p->blk->in_native--;
        blk_done(r, r->result);
        r = next;
    }
    blk_settle(p->blk);
    return true;
}

static void pool_ready(struct core_io_source *s, uint32_t events) {
    uint64_t count;
    (void)events;
    (void)!read(s->fd, &count, sizeof count);
    reap((struct blk_pool *)s);
}

static bool pool_poll(struct core_io_source *s) {
    return reap((struct blk_pool *)s);
}

static bool pool_arm(struct core_io_source *s) {
    return atomic_load(&((struct blk_pool *)s)->news);
}

void blk_pool_wait(struct blk_pool *p) {
    pthread_mutex_lock(&p->lock);
    while (!p->done.first) {
        pthread_cond_wait(&p->finished, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    reap(p);
}

static int start_thread(struct blk_pool *p) {
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, POOL_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&p->threads[p->count], &attributes, run, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    p->count += rc == 0;
    return -rc;
}

int blk_pool_run(struct blk_pool *p, struct blk_req *r) {
    pthread_mutex_lock(&p->lock);
    int rc = 0;
    if (p->idle <= p->todo_count && p->count < BLK_THREADS) {
        rc = start_thread(p);
        rc = p->count ? 0 : rc;
    }
    if (rc == 0) {
        p->todo_count++;
        blk_list_add(&p->todo, r);
        pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

struct blk_pool *blk_pool_new(struct core_blk *b) {
    struct blk_pool *p = calloc(1, sizeof *p);
    if (!p) {
        return NULL;
    }
    p->blk = b;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->source = (struct core_io_source){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                        .events = EPOLLIN,
                                        .ready = pool_ready,
                                        .poll = pool_poll,
                                        .arm = pool_arm};
    if (p->source.fd < 0 || core_io_add(b->io, &p->source) < 0) {
        blk_pool_free(p);
        return NULL;
    }
    return p;
}

void blk_pool_free(struct blk_pool *p) {
    core_io_remove(&p->source);
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->count; i++) {
        pthread_join(p->threads[i], NULL);
    }
    if (p->source.fd >= 0) {
        close(p->source.fd);
    }
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->finished);
    free(p);
}
