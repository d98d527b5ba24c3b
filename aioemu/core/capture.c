/* capture.c: a bounded buffer of records between the places that record and the one that takes: the thread that writes
 * the file (capture_file.c), or a program. Records are in the order of their times, because the time is taken with the
 * lock held. */
#include "capture_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { ALIGN = 8, MIN_BUFFER = 1 << 16 };

static int64_t wall_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t padded(uint64_t size) {
    return (size + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

/* (size) contiguous bytes at the head, or NULL: the end of the buffer is left out when they do not fit there. */
static uint8_t *reserve(core_capture *c, uint64_t size) {
    uint64_t at = c->head % c->size, left = c->size - at;
    uint64_t skip = left < size ? left : 0;
    if (c->closed || c->head + skip + size - c->tail > c->size) {
        return NULL;
    }
    if (skip) {
        struct capture_record *hole = (struct capture_record *)(c->buffer + at);
        hole->total = 0; /* there is always room for a length: records are aligned */
        c->head += skip;
    }
    return c->buffer + c->head % c->size;
}

/* With the lock. */
static void wake(core_capture *c) {
    if (c->asleep) {
        c->asleep = false;
        if (c->event_fd >= 0) {
            (void)!write(c->event_fd, &(uint64_t){1}, sizeof(uint64_t));
        } else {
            pthread_cond_signal(&c->news);
        }
    }
}

static uint32_t flags_of(const struct core_frame *frame, const struct core_tap *tap, const struct capture_note *note) {
    uint32_t flags = tap->direction;
    if (note) {
        flags |= note->duplicate ? CORE_CAPTURED_DUPLICATE : 0;
        flags |= note->corrupt ? CORE_CAPTURED_CORRUPT : 0;
        flags |= note->late ? CORE_CAPTURED_LATE : 0;
        flags |= note->drop >= 0 ? (uint32_t)(note->drop + 1) << CORE_CAPTURED_DROP_SHIFT : 0;
    }
    flags |= core_frame_hdr(frame)->flags & CORE_NET_HDR_F_NEEDS_CSUM ? CORE_CAPTURED_NO_CSUM : 0;
    return flags;
}

void capture_record(const struct core_tap *tap, const struct core_frame *frame, const struct capture_note *note) {
    core_capture *c = tap->capture;
    const struct core_net_hdr *hdr = core_frame_hdr(frame);
    uint32_t kept = frame->size < c->snap_bytes ? frame->size : c->snap_bytes;
    uint64_t total = padded(sizeof(struct capture_record) + kept);
    pthread_mutex_lock(&c->lock);
    struct capture_record *r = total <= c->size / 2 ? (struct capture_record *)reserve(c, total) : NULL;
    c->counts[tap->interface].seen++;
    if (r) {
        r->total = (uint32_t)total;
        r->interface = tap->interface;
        r->kept = core_frame_copy(frame, 0, r->data, kept);
        r->size = frame->size;
        r->flags = flags_of(frame, tap, note);
        r->gso_type = hdr->gso_type;
        r->gso_size = hdr->gso_size;
        r->delay_ns = note ? note->delay_ns : 0;
        r->time_ns = wall_ns();
        r->time_ns = r->time_ns > c->last_ns ? r->time_ns : c->last_ns; /* the wall clock may be set back */
        c->last_ns = r->time_ns;
        c->head += total;
        wake(c);
    } else {
        c->counts[tap->interface].dropped++;
    }
    pthread_mutex_unlock(&c->lock);
}

/* The record at (*at), or NULL: that is the end. Whoever takes needs no lock to read up to a head that it saw with the
 * lock: nobody writes there before the tail is moved. */
const struct capture_record *capture_next(const core_capture *c, uint64_t *at, uint64_t head) {
    if (*at == head) {
        return NULL;
    }
    const struct capture_record *r = (const struct capture_record *)(c->buffer + *at % c->size);
    if (r->total == 0) {
        *at += c->size - *at % c->size;
        r = (const struct capture_record *)c->buffer;
    }
    return r;
}

/* ---- for a program -------------------------------------------------------------------------------------------------- */

/* Take records, as they are in the buffer, for up to (room) bytes: how many bytes; 0 none, and the fd will be rung. */
int64_t core_capture_take(core_capture *c, uint8_t *data, uint64_t room) {
    uint64_t done = 0, count;
    pthread_mutex_lock(&c->lock);
    if (c->event_fd >= 0) {
        (void)!read(c->event_fd, &count, sizeof count);
    }
    const struct capture_record *r;
    while ((r = capture_next(c, &c->tail, c->head)) && done + r->total <= room) {
        memcpy(data + done, r, r->total);
        done += r->total;
        c->tail += r->total;
    }
    c->asleep = r == NULL;
    if (r && c->event_fd >= 0) {
        (void)!write(c->event_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
    pthread_mutex_unlock(&c->lock);
    return (int64_t)done;
}

int core_capture_fd(core_capture *c) {
    return c->event_fd;
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

core_capture *core_capture_new(uint64_t buffer_bytes, uint32_t snap_bytes, int for_program) {
    core_capture *c = buffer_bytes < MIN_BUFFER ? NULL : calloc(1, sizeof *c);
    if (!c) {
        return NULL;
    }
    c->size = padded(buffer_bytes);
    c->snap_bytes = snap_bytes;
    c->file = -1;
    c->asleep = true;
    c->event_fd = for_program ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    c->buffer = malloc(c->size);
    if (!c->buffer || (for_program && c->event_fd < 0)) {
        free(c->buffer);
        free(c);
        return NULL;
    }
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->news, NULL);
    return c;
}

/* One more place: its number, -ENOSPC. */
int core_capture_interface(core_capture *c, const char *name, const char *comment) {
    pthread_mutex_lock(&c->lock);
    int number = -ENOSPC;
    if (c->interfaces < CAPTURE_INTERFACES) {
        number = (int)c->interfaces;
        struct capture_interface *i = &c->names[c->interfaces];
        i->name = strdup(name);
        i->comment = strdup(comment);
        c->interfaces += i->name && i->comment;
        number = i->name && i->comment ? number : -ENOMEM;
    }
    pthread_mutex_unlock(&c->lock);
    return number;
}

void core_capture_get_counts(core_capture *c, uint32_t interface, uint64_t *seen, uint64_t *dropped) {
    pthread_mutex_lock(&c->lock);
    *seen = interface < CAPTURE_INTERFACES ? c->counts[interface].seen : 0;
    *dropped = interface < CAPTURE_INTERFACES ? c->counts[interface].dropped : 0;
    pthread_mutex_unlock(&c->lock);
}

/* Nothing records to it any more, and its file was closed. */
void core_capture_free(core_capture *c) {
    if (!c) {
        return;
    }
    (void)core_capture_close(c);
    for (uint32_t i = 0; i < CAPTURE_INTERFACES; i++) {
        free(c->names[i].name);
        free(c->names[i].comment);
    }
    if (c->event_fd >= 0) {
        close(c->event_fd);
    }
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->news);
    free(c->buffer);
    free(c);
}
