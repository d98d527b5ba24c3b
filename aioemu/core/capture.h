/* capture.h: what passes a place on a link, recorded for a file or a program. One capture takes from any number of places,
 * each an interface of it, in the order of time. */
#pragma once

#include "port.h"

/* Where a lane records to. */
struct core_tap {
    core_capture *capture; /* NULL: nothing */
    uint32_t interface;
    uint32_t direction; /* 1 inbound, 2 outbound: as pcapng's epb_flags */
};

/* What became of a frame, where it is known when it is recorded. */
struct capture_note {
    int drop;         /* a core_link_drop, or -1 */
    int64_t delay_ns; /* until it arrives */
    bool duplicate, corrupt, late;
};

/* Any thread. Never blocks for long: what the buffer has no room for is counted and lost. note: may be NULL. */
void capture_record(const struct core_tap *tap, const struct core_frame *frame, const struct capture_note *note);
