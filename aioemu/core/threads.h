/* threads.h: how a vCPU thread, the gate and the mailbox work together. */
#pragma once

#include "core.h"

enum {
    CORE_THREAD_STACK = 256 * 1024, /* bytes: the deepest path, an engine's block compiler, needs about 100 KiB */
};

/* The signal that takes a thread out of the guest; its handler does nothing. Installed at first use. */
int core_kick_signal(void);

/* This thread sleeps outside the guest (waits for Python): it counts as paused meanwhile. */
void core_gate_leave(struct core_machine *m);
void core_gate_enter(struct core_machine *m);

/* Answer whatever the thread waits for with all ones, now and for ever: the machine is being torn down. */
void core_mailbox_cancel(struct core_thread *t);

void core_ram_free(struct core_machine *m);
void core_tables_free(struct core_machine *m);
