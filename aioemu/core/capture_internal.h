/* capture_internal.h: a capture, as the two files that work on it see it. */
#pragma once

#include "capture.h"

enum { CAPTURE_INTERFACES = 1024 };

/* In the buffer: this head, then the bytes kept. What a program takes is the same. */
struct capture_record {
    uint32_t total; /* bytes with the head, a multiple of 8; 0: go on at the start of the buffer */
    uint32_t interface;
    int64_t time_ns; /* since 1970 */
    int64_t delay_ns;
    uint32_t size, kept;
    uint32_t flags; /* core_captured */
    uint16_t gso_type, gso_size;
    uint8_t data[];
};

struct capture_interface {
    char *name, *comment;
};

struct core_capture {
    pthread_mutex_t lock;
    pthread_cond_t news;
    uint8_t *buffer;
    uint64_t size, head, tail; /* head, tail: counted on for ever */
    uint32_t snap_bytes;
    int64_t last_ns;
    bool asleep; /* who takes waits for news */
    bool closed;
    int event_fd;
    uint32_t interfaces;
    struct capture_interface names[CAPTURE_INTERFACES];
    struct {
        uint64_t seen, dropped;
    } counts[CAPTURE_INTERFACES];
    /* capture_file.c */
    pthread_t writer;
    bool writing;
    int file, error;
    uint32_t described; /* interfaces that are in the file */
    uint8_t *out;
    uint64_t out_size;
};

const struct capture_record *capture_next(const core_capture *c, uint64_t *at, uint64_t head);
