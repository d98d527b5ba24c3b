/* link_impair.h: what happens to the frames of one direction of a link, and when they arrive. Pure arithmetic: no lock,
 * no clock, no memory of a frame. */
#pragma once

#include "core.h"

enum { IMPAIR_QUEUE_MAX = 65536 }; /* frames before a rate limit: more than any switch has for a port */

/* One frame that waits for its turn before the rate limit, until `leaves_ns`. */
struct impair_slot {
    int64_t leaves_ns;
    uint32_t size;
};

struct core_impair_state {
    core_impair config;
    uint64_t index; /* of the next frame: with the seed it decides, so that a replay loses the same ones */
    bool burst;     /* the Gilbert-Elliott chain is in its bad state */
    int64_t start_ns;
    int64_t line_free_ns; /* when the rate-limited line has sent everything so far */
    int64_t last_due_ns;
    struct impair_slot *slots; /* a ring of config.queue_packets, where there is a rate */
    uint32_t head, count;
    uint64_t waiting_bytes;
};

struct impair_verdict {
    int drop; /* a core_link_drop, or -1 */
    int64_t due_ns, copy_due_ns;
    bool duplicate, corrupt, late;
    uint64_t corrupt_at; /* modulo the frame's bits */
};

/* Take over (config) at (now_ns): 0 or -errno. */
int impair_set(struct core_impair_state *s, const core_impair *config, int64_t now_ns);
void impair_free(struct core_impair_state *s);
bool impair_is_none(const core_impair *config);
/* Decide on the next frame, of (size) bytes, offered at (now_ns). */
void impair_judge(struct core_impair_state *s, int64_t now_ns, uint32_t size, struct impair_verdict *v);
