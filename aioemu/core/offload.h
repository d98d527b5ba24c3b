/* offload.h: what a port does in software for a peer that does not understand a frame's header: completes checksums, cuts
 * TCP and UDP into segments. Called by port.c in the sender's context. */
#pragma once

#include "port.h"

/* Give (peer) the frame in the form of frames without headers: 1 done with (what it lost is counted), 0 it takes nothing
 * now, or -1 - core_drop: it cannot be done. */
int offload_send(struct core_port *port, struct core_port *peer, uint32_t queue, const struct core_frame *frame);

/* port.c: deliver and count; how many of the first were taken. */
int port_deliver(struct core_port *port, struct core_port *peer, uint32_t queue, const struct core_frame *frames,
                 int count);
