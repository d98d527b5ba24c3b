/* throttle.h: limits on a disk's requests, shared by the disks of a group, as the C request engine asks for them. */
#pragma once

#include "core.h"

struct core_io;

/* Waiting requests of a direction may be tried again; called inside the member's io context. */
typedef void core_throttle_go(void *arg, bool is_write);

/* A member that lives in (io); NULL: no memory. From the control thread, as core_throttle_leave. */
core_throttle_member *core_throttle_join(core_throttle *t, struct core_io *io, core_throttle_go *go, void *arg);
