/* core.h: what the C files of the core share. Python sees only cdef.h. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdef.h"
#include "cdef_blk.h"
#include "cdef_block.h"
#include "cdef_link.h"
#include "cdef_netq.h"
#include "cdef_switch.h"

enum {
    CORE_MAX_VCPUS = 255,   /* xAPIC ids are 8 bits, 255 is broadcast */
    CORE_MAX_GSI = 256,     /* lines: 24 of the I/O APIC, the rest for boards with more */
    CORE_MAX_NOTIFY = 1024, /* native chips that can ring the reactor, per machine */
    CORE_POSTED_RING = 256, /* posted writes in flight per vCPU thread; a full ring makes the vCPU wait */
    CORE_MAX_RAM = 64,      /* memory slots: more than boards and hot-plugged memory need */
    CORE_ACCESS_MAX = 8     /* bytes: the widest single access of the processor */
};

/* ---- chips ---------------------------------------------------------------------------------------------------- */

/* One part of a guest access. A chip may shrink `size` to what it takes at once; the dispatcher brings the rest. */
struct core_part {
    uint64_t offset; /* from the region's base */
    uint64_t value;  /* little endian, `size` bytes wide */
    uint32_t size;
    uint32_t reg; /* which register, when handed over */
    bool is_write;
    bool posted; /* handed over, and the vCPU need not wait */
};

enum { CORE_DONE = 0, CORE_HANDOVER = 1 };

/* Every chip begins with this head. `access` runs on any vCPU thread and on the reactor at once: lock inside. */
struct core_chip_ops {
    const char *name;
    int (*access)(struct core_chip *chip, struct core_part *part);
    void (*reset)(struct core_chip *chip);
    void (*destroy)(struct core_chip *chip);
    int (*state_size)(struct core_chip *chip);                 /* NULL: no state */
    int (*save)(struct core_chip *chip, uint8_t *state);       /* exactly state_size bytes */
    int (*load)(struct core_chip *chip, const uint8_t *state); /* checks every field: -EINVAL */
};

struct core_chip {
    const struct core_chip_ops *ops;
    struct core_machine *machine; /* set when wired or mapped: clock, lines, notifications */
    int32_t gsi;                  /* its interrupt line, -1 = none */
    _Atomic int32_t notify;       /* its notifier, -1 = none */
    _Atomic uint32_t line_level;  /* what it drives on its line now */
};

void core_chip_init(struct core_chip *chip, const struct core_chip_ops *ops);
/* Drive this chip's own line; the machine ORs the chips that share one. Any thread. */
void core_chip_line(struct core_chip *chip, bool level);
/* Tell the reactor that this chip has news (collapses until collected). Any thread. */
void core_chip_notify(struct core_chip *chip);

/* The bus tables are in table.h. */
struct core_table;

/* ---- threads and vCPUs ------------------------------------------------------------------------------------------ */

enum core_target { CORE_PAUSED, CORE_RUNNING, CORE_QUIT };

/* The request a thread hands to the reactor; one at a time. */
enum core_slot_state { CORE_SLOT_IDLE, CORE_SLOT_ASKED, CORE_SLOT_TAKEN, CORE_SLOT_ANSWERED };

struct core_slot {
    _Atomic uint32_t state; /* futex */
    _Atomic bool asleep;    /* waits on the futex, not spinning */
    uint64_t seq;
    core_event event;
    uint64_t answer;
};

struct core_thread {
    struct core_machine *machine;
    uint32_t index;
    pthread_t handle;
    bool started, arrived; /* arrived: at the gate, for the first time; under the gate's lock */
    _Atomic int tid;
    _Atomic bool attention; /* look at the machine's target before entering the guest again */
    _Atomic(struct core_table *) hazard;
    struct core_slot slot;
    core_event posted[CORE_POSTED_RING];
    _Atomic uint32_t posted_head, posted_tail; /* written by the thread / by the reactor; futex on tail */
    core_event stop;                           /* why it left the guest, until collected */
    _Atomic bool stopped, stop_news;
};

struct core_vcpu {
    struct core_machine *machine;
    struct core_thread *thread;
    uint32_t index;
    uint32_t apic_id;
    _Atomic uint64_t exits[CORE_EXIT_COUNT];
    _Atomic uint64_t first_entry_ns; /* CLOCK_MONOTONIC of the first guest entry */
    void *accel;                     /* the accelerator's own state */
};

/* ---- accelerators ----------------------------------------------------------------------------------------------- */

/* What an accelerator provides. Control-thread functions are called only while no vCPU runs, unless said otherwise. */
struct core_accel {
    const char *name;
    bool one_thread; /* every vCPU of the machine runs in turn on one thread */
    void (*close)(struct core_machine *m);
    int (*vcpu_open)(struct core_vcpu *v);
    void (*vcpu_close)(struct core_vcpu *v);
    /* Run the vCPU (or all, when one_thread: v is vCPU 0) until the thread must look up: 0, or 1 with *stop filled. */
    int (*run)(struct core_vcpu *v, core_event *stop);
    void (*settle)(struct core_vcpu *v);           /* finish a half-done access before the thread parks; may be NULL */
    void (*kick)(struct core_thread *t);           /* any thread: make run() return soon */
    int (*reset)(struct core_vcpu *v);             /* power-on state */
    int (*reset_platform)(struct core_machine *m); /* the accelerator's own interrupt controllers and timers */
    int (*translate)(struct core_vcpu *v, uint64_t gva, uint64_t *gpa); /* -EFAULT: not mapped */
    int (*get_state)(struct core_vcpu *v, core_cpu_state *state);
    int (*set_state)(struct core_vcpu *v, const core_cpu_state *state);
    int (*set_cpuid)(struct core_vcpu *v, const core_cpuid *entries, int count);
    int (*set_msrs)(struct core_vcpu *v, const core_msr *msrs, int count); /* how many were accepted */
    int (*get_msrs)(struct core_vcpu *v, core_msr *msrs, int count);
    int (*nmi)(struct core_vcpu *v); /* any time */
    int (*debug)(struct core_vcpu *v, bool single_step, const uint64_t *breakpoints, int count);
    int (*ram_add)(struct core_machine *m, uint32_t slot, uint64_t gpa, uint64_t size, uint8_t *host, uint32_t flags);
    int (*ram_remove)(struct core_machine *m, uint32_t slot, uint64_t gpa, uint64_t size);
    /* [gpa, +size) was written from outside the guest: translations of it are void. Any thread; NULL: none are kept. */
    void (*ram_written)(struct core_machine *m, uint64_t gpa, uint64_t size);
    /* any thread, any time */
    int (*irq)(struct core_machine *m, uint32_t gsi, bool level);
    int (*msi)(struct core_machine *m, uint64_t address, uint32_t data);
    int (*irqfd)(struct core_machine *m, int fd, int resample_fd, uint32_t gsi, bool add);
    /* NULL: the dispatch table does it */
    int (*doorbell)(struct core_machine *m, int space, uint64_t address, uint32_t size, int fd, bool match,
                    uint64_t value, bool add);
    /* Gather writes to [address, +size) and deliver them in order before the next exit is handled; flush delivers them
     * now. Any thread; NULL: cannot. */
    int (*gather)(struct core_machine *m, int space, uint64_t address, uint32_t size, bool on);
    void (*gather_flush)(struct core_machine *m);
    void (*clock)(struct core_machine *m, bool run); /* the guest's own clocks stop and go on with the machine's */
};

extern const struct core_accel core_accel_kvm, core_accel_tcg, core_accel_none;

/* ---- the machine ------------------------------------------------------------------------------------------------ */

struct core_ram {
    uint64_t gpa, size;
    uint8_t *host;
    uint32_t slot, flags;
    bool used;
};

struct core_machine {
    const struct core_accel *accel;
    void *accel_data;
    uint32_t max_vcpus, vcpu_count, thread_count;
    struct core_vcpu **vcpus;
    struct core_thread **threads;
    /* the gate: slow path only */
    pthread_mutex_t gate;
    pthread_cond_t open;
    _Atomic int target; /* core_target */
    int active;         /* threads that may be in the guest */
    _Atomic bool paused_news;
    /* the way to the reactor */
    int event_fd;
    _Atomic bool rung, polling; /* polling: the reactor looks at `rung` itself */
    _Atomic uint64_t notify_bits[CORE_MAX_NOTIFY / 64];
    _Atomic uint64_t notify_held[CORE_MAX_NOTIFY / 64]; /* keep their news until released */
    uint32_t notify_tags[CORE_MAX_NOTIFY];              /* 0: free */
    uint32_t notify_count;
    /* the bus */
    pthread_mutex_t bus; /* writers of the tables */
    _Atomic(struct core_table *) tables[2];
    /* memory */
    struct core_ram ram[CORE_MAX_RAM];
    /* lines */
    pthread_mutex_t lines;
    uint16_t line_count[CORE_MAX_GSI];
    /* virtual clock: CLOCK_MONOTONIC minus the time paused, or owned by a client (accel qtest) */
    _Atomic int64_t clock_offset_ns;
    _Atomic int64_t clock_stopped_ns;
    _Atomic bool clock_stopped;
};

/* machine.c */
void core_ring(struct core_machine *m); /* wake the reactor, once per collect */
int64_t core_monotonic_ns(void);

/* dispatch.c: what an exit handler calls. `data` holds `size` bytes (any 1..8), little endian. Blocks while Python
 * answers. Runs on a vCPU thread. */
void core_dispatch(struct core_vcpu *v, int space, uint64_t address, uint8_t *data, uint32_t size, bool is_write);

/* A write without a vCPU that could wait: what would be handed over is lost. Any thread but a vCPU's. */
void core_deliver(struct core_machine *m, int space, uint64_t address, const uint8_t *data, uint32_t size);

/* mailbox.c */
uint64_t core_ask(struct core_vcpu *v, const core_event *event); /* waits; all ones when the machine is torn down */
void core_post(struct core_vcpu *v, const core_event *event);    /* does not wait unless the ring is full */
