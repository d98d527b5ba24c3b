/* capture_file.c: the thread that writes a capture's records as pcapng (draft-ietf-opsawg-pcapng). A disk that is slow or
 * full costs records, which are counted, never the links their speed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture_internal.h"

enum {
    OUT_BYTES = 1 << 20,
    BLOCK_MAX = (1 << 17) + 1024, /* the largest frame with its options */
    COMMENT_MAX = 160,
    TEXT_MAX = 256,
    SECTION_BLOCK = 0x0a0d0d0a, /* 4.1 */
    INTERFACE_BLOCK = 1,        /* 4.2 */
    STATISTICS_BLOCK = 5,       /* 4.6 */
    PACKET_BLOCK = 6,           /* 4.3 */
    OPT_END = 0,
    OPT_COMMENT = 1,
    SHB_USERAPPL = 4,
    IF_NAME = 2,
    IF_TSRESOL = 9,
    EPB_FLAGS = 2,
    EPB_DROPCOUNT = 4,
    ISB_IFRECV = 4,
    ISB_IFDROP = 5,
    LINKTYPE_ETHERNET = 1,
};

static void put(core_capture *c, const void *data, uint64_t size) {
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

static void put32(core_capture *c, uint32_t value) {
    put(c, &value, sizeof value);
}

static void pad(core_capture *c) {
    while (c->out_size % 4) {
        c->out[c->out_size++] = 0;
    }
}

static void option(core_capture *c, uint16_t code, const void *data, uint16_t size) {
    put(c, &code, sizeof code);
    put(c, &size, sizeof size);
    put(c, data, size);
    pad(c);
}

static void text(core_capture *c, uint16_t code, const char *string) {
    size_t size = strlen(string);
    option(c, code, string, (uint16_t)(size < TEXT_MAX ? size : TEXT_MAX));
}

static uint64_t begin(core_capture *c, uint32_t type) {
    uint64_t at = c->out_size;
    put32(c, type);
    put32(c, 0);
    return at;
}

static void end(core_capture *c, uint64_t at) {
    uint32_t total = (uint32_t)(c->out_size - at + 4);
    put32(c, total);
    memcpy(c->out + at + 4, &total, sizeof total);
}

static void put_section(core_capture *c) {
    uint64_t at = begin(c, SECTION_BLOCK);
    put32(c, 0x1a2b3c4d);
    put32(c, 1); /* version 1.0, little endian */
    put(c, &(int64_t){-1}, sizeof(int64_t));
    text(c, SHB_USERAPPL, "aioemu");
    put32(c, OPT_END);
    end(c, at);
}

static void put_interface(core_capture *c, const struct capture_interface *i) {
    uint64_t at = begin(c, INTERFACE_BLOCK);
    put32(c, LINKTYPE_ETHERNET);
    put32(c, c->snap_bytes);
    text(c, IF_NAME, i->name);
    if (*i->comment) {
        text(c, OPT_COMMENT, i->comment);
    }
    option(c, IF_TSRESOL, &(uint8_t){9}, 1); /* nanoseconds */
    put32(c, OPT_END);
    end(c, at);
}

/* What a reader of the file cannot see in the bytes. */
static int comment_on(const struct capture_record *r, char *to) {
    int n = 0;
    uint32_t drop = r->flags >> CORE_CAPTURED_DROP_SHIFT;
    *to = 0;
    if (r->gso_type) {
        n += snprintf(to + n, (size_t)(COMMENT_MAX - n), "to be segmented, %u bytes each; ", r->gso_size);
    }
    if (r->flags & CORE_CAPTURED_NO_CSUM) {
        n += snprintf(to + n, (size_t)(COMMENT_MAX - n), "checksum not filled in; ");
    }
    if (drop) {
        n += snprintf(to + n, (size_t)(COMMENT_MAX - n), "lost: %s; ", core_link_drop_name(drop - 1));
    } else if (r->delay_ns) {
        n += snprintf(to + n, (size_t)(COMMENT_MAX - n), "delayed %.6f s; ", (double)r->delay_ns * 1e-9);
    }
    n += r->flags & CORE_CAPTURED_DUPLICATE ? snprintf(to + n, (size_t)(COMMENT_MAX - n), "doubled; ") : 0;
    n += r->flags & CORE_CAPTURED_CORRUPT ? snprintf(to + n, (size_t)(COMMENT_MAX - n), "damaged; ") : 0;
    n += r->flags & CORE_CAPTURED_LATE ? snprintf(to + n, (size_t)(COMMENT_MAX - n), "late; ") : 0;
    return n ? n - 2 : 0;
}

static void put_packet(core_capture *c, const struct capture_record *r) {
    char comment[COMMENT_MAX];
    int length = comment_on(r, comment);
    uint64_t at = begin(c, PACKET_BLOCK), time = (uint64_t)r->time_ns;
    put32(c, r->interface);
    put32(c, (uint32_t)(time >> 32));
    put32(c, (uint32_t)time);
    put32(c, r->kept);
    put32(c, r->size);
    put(c, r->data, r->kept);
    pad(c);
    option(c, EPB_FLAGS, &(uint32_t){r->flags & 3}, 4);
    if (length) {
        option(c, OPT_COMMENT, comment, (uint16_t)length);
    }
    put32(c, OPT_END);
    end(c, at);
}

static void put_statistics(core_capture *c, uint32_t interface) {
    uint64_t at = begin(c, STATISTICS_BLOCK), time = (uint64_t)c->last_ns;
    put32(c, interface);
    put32(c, (uint32_t)(time >> 32));
    put32(c, (uint32_t)time);
    option(c, ISB_IFRECV, &c->counts[interface].seen, 8);
    option(c, ISB_IFDROP, &c->counts[interface].dropped, 8);
    put32(c, OPT_END);
    end(c, at);
}

/* ---- the thread ------------------------------------------------------------------------------------------------------ */

/* Without the lock. */
static void write_out(core_capture *c) {
    uint64_t done = 0;
    while (done < c->out_size && !c->error) {
        ssize_t n = write(c->file, c->out + done, c->out_size - done);
        if (n < 0 && errno != EINTR) {
            c->error = errno;
        }
        done += n > 0 ? (uint64_t)n : 0;
    }
    c->out_size = 0;
}

/* Put what there is, up to a buffer full; false: nothing. With the lock, which is let go of meanwhile. */
static bool gather(core_capture *c) {
    while (c->described < c->interfaces && c->out_size + BLOCK_MAX < OUT_BYTES) {
        put_interface(c, &c->names[c->described++]);
    }
    const struct capture_record *r;
    uint64_t at = c->tail, head = c->described < c->interfaces ? at : c->head;
    pthread_mutex_unlock(&c->lock);
    while (c->out_size + BLOCK_MAX < OUT_BYTES && (r = capture_next(c, &at, head))) {
        put_packet(c, r);
        at += r->total;
    }
    pthread_mutex_lock(&c->lock);
    c->tail = at;
    return c->out_size > 0;
}

static void *write_file(void *arg) {
    core_capture *c = arg;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        if (gather(c)) {
            pthread_mutex_unlock(&c->lock);
            write_out(c);
            pthread_mutex_lock(&c->lock);
        } else if (c->closed) {
            break;
        } else {
            c->asleep = true;
            pthread_cond_wait(&c->news, &c->lock);
        }
    }
    for (uint32_t i = 0; i < c->interfaces; i++) {
        put_statistics(c, i);
        if (c->out_size + BLOCK_MAX > OUT_BYTES) {
            write_out(c);
        }
    }
    pthread_mutex_unlock(&c->lock);
    write_out(c);
    return NULL;
}

/* Write to (fd), which is its own from now on, until it is closed. 0 or -errno. */
int core_capture_write(core_capture *c, int fd) {
    c->out = malloc(OUT_BYTES);
    if (!c->out) {
        return -ENOMEM;
    }
    put_section(c);
    pthread_mutex_lock(&c->lock);
    gather(c);
    pthread_mutex_unlock(&c->lock);
    c->file = fd;
    write_out(c); /* a file that cannot be written to is known at once, and one that can be is whole */
    int rc = c->error ? -c->error : -pthread_create(&c->writer, NULL, write_file, c);
    c->writing = rc == 0;
    if (rc < 0) {
        free(c->out);
        c->out = NULL;
        c->file = -1;
    }
    return rc;
}

/* Take no more, write what is left, close the file: 0, or -errno of the first write that failed. Blocks. */
int core_capture_close(core_capture *c) {
    pthread_mutex_lock(&c->lock);
    c->closed = true;
    pthread_cond_signal(&c->news);
    pthread_mutex_unlock(&c->lock);
    if (c->writing) {
        c->writing = false;
        pthread_join(c->writer, NULL);
        if (close(c->file) < 0 && !c->error) {
            c->error = errno;
        }
        free(c->out);
        c->out = NULL;
    }
    return -c->error;
}
