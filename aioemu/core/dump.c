/* dump.c: what passes a port, written to a file as pcap (-object filter-dump). Whoever sends only copies into a buffer;
 * a thread writes. What the buffer has no room for, because the file is slow, is counted and not written. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "port.h"

enum {
    DUMP_BUFFER = 8 << 20, /* bytes: half a second of 100 Mbit/s while the disk does something else */
    DUMP_STACK = 64 * 1024,
    DUMP_WAIT_MS = 100,
};

/* The head of the file, and of each record: libpcap's format, in the host's byte order. */
struct pcap_file {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, snap, link_type;
};

struct pcap_record {
    uint32_t seconds, microseconds, kept, size;
};

struct core_dump {
    struct core_port_watch watch;
    core_port *port;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t news;
    uint8_t *filling, *writing;
    size_t filled;
    bool on;
    _Atomic bool quit;
    int directions; /* 1: what the port sends, 2: what it is given */
    int fd, error;
    uint32_t snap;
    uint64_t frames, lost;
};

static void append(struct core_dump *d, const struct pcap_record *record, const struct core_frame *frame) {
    size_t need = sizeof *record + record->kept;
    if (d->error || d->filled + need > DUMP_BUFFER) {
        d->lost++;
        return;
    }
    memcpy(d->filling + d->filled, record, sizeof *record);
    core_frame_copy(frame, 0, d->filling + d->filled + sizeof *record, record->kept);
    d->filled += need;
    d->frames++;
}

static void passed(struct core_port_watch *watch, bool out, const struct core_frame *frames, int count) {
    struct core_dump *d = (struct core_dump *)watch;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&d->lock);
    bool was_empty = d->filled == 0;
    for (int i = 0; d->on && (d->directions & (out ? 1 : 2)) && i < count; i++) {
        const struct pcap_record record = {
            .seconds = (uint32_t)now.tv_sec,
            .microseconds = (uint32_t)(now.tv_nsec / 1000),
            .kept = frames[i].size < d->snap ? frames[i].size : d->snap,
            .size = frames[i].size,
        };
        append(d, &record, &frames[i]);
    }
    if (was_empty && d->filled) {
        pthread_cond_signal(&d->news);
    }
    pthread_mutex_unlock(&d->lock);
}

/* (fd) does not block: a pipe that nobody reads is waited for until the end. */
static int write_all(int fd, const uint8_t *data, size_t size, const _Atomic bool *quit) {
    while (size) {
        ssize_t done = write(fd, data, size);
        if (done < 0 && errno == EAGAIN && !atomic_load(quit)) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, DUMP_WAIT_MS);
            continue;
        }
        if (done < 0 && errno != EINTR) {
            return -errno;
        }
        if (done > 0) {
            data += done;
            size -= (size_t)done;
        }
    }
    return 0;
}

/* Write one buffer while the other is filled; false at the end. */
static bool write_buffer(struct core_dump *d) {
    pthread_mutex_lock(&d->lock);
    while (!d->filled && !d->quit) {
        pthread_cond_wait(&d->news, &d->lock);
    }
    uint8_t *full = d->filling;
    size_t size = d->filled;
    d->filling = d->writing;
    d->writing = full;
    d->filled = 0;
    pthread_mutex_unlock(&d->lock);
    int rc = write_all(d->fd, full, size, &d->quit);
    if (rc < 0) {
        pthread_mutex_lock(&d->lock);
        d->error = rc;
        pthread_mutex_unlock(&d->lock);
    }
    return size > 0;
}

static void *writer(void *argument) {
    while (write_buffer(argument)) {
    }
    return NULL;
}

static int start_thread(struct core_dump *d) {
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, DUMP_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the reactor's */
    int rc = pthread_create(&d->thread, &attributes, writer, d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -rc;
}

static void free_dump(struct core_dump *d) {
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->news);
    free(d->filling);
    free(d->writing);
    free(d);
}

core_dump *core_dump_new(core_port *port, int fd, uint32_t snap, int directions, int *error) {
    const struct pcap_file head = {.magic = 0xa1b2c3d4, .major = 2, .minor = 4, .snap = snap, .link_type = 1};
    struct core_dump *d = calloc(1, sizeof *d);
    if (!d) {
        *error = -ENOMEM;
        return NULL;
    }
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->news, NULL);
    d->filling = malloc(DUMP_BUFFER);
    d->writing = malloc(DUMP_BUFFER);
    d->port = port;
    d->fd = fd;
    d->snap = snap;
    d->directions = directions;
    d->on = true;
    *error = d->filling && d->writing ? write_all(fd, (const uint8_t *)&head, sizeof head, &d->quit) : -ENOMEM;
    *error = *error < 0 ? *error : start_thread(d);
    if (*error < 0) {
        free_dump(d);
        return NULL;
    }
    d->watch.passed = passed;
    core_port_watch(port, &d->watch);
    return d;
}

void core_dump_set(core_dump *d, int on) {
    pthread_mutex_lock(&d->lock);
    d->on = on;
    pthread_mutex_unlock(&d->lock);
}

int core_dump_counts(core_dump *d, uint64_t *frames, uint64_t *lost) {
    pthread_mutex_lock(&d->lock);
    *frames = d->frames;
    *lost = d->lost;
    int error = d->error;
    pthread_mutex_unlock(&d->lock);
    return error;
}

int core_dump_free(core_dump *d, int port_is_there) {
    if (port_is_there) {
        core_port_unwatch(d->port, &d->watch);
    }
    pthread_mutex_lock(&d->lock);
    d->quit = true;
    pthread_cond_signal(&d->news);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    int error = d->error;
    free_dump(d);
    return error;
}
