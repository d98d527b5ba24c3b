/* tcg.h: what the files of the software processor share.
 *
 * One machine has one engine, one thread that runs its vCPUs in turn (the machine's vCPU thread) and one helper
 * thread that only sleeps: on a timer, and on the eventfds given to irqfd. Lock order: the machine's `lines`, then
 * the controllers' lock (intc.lock), which also guards the turn and the timer; nothing is called out from under it
 * but the engine's "any thread" functions and system calls that do not wait.
 */
#pragma once

#include "../../engine/include/aioemu_engine.h"
#include "intc.h"

enum {
    TCG_SLICE_NS = 1000 * 1000,      /* a vCPU's turn while others could run */
    TCG_STOCK_SLICE_NS = 100 * 1000, /* the same where PAUSE cannot be seen */
    TCG_SPIN_SLICE_NS = 30 * 1000,   /* and while another spins, waiting for it: doubles each time that was in vain */
    TCG_SPIN_NS = 20 * 1000,         /* a turn that ended in PAUSE after less than this was nothing but spinning */
    TCG_CODE_CACHE = 96u << 20,      /* bytes of translations: a Linux boot to a shell fills a third; touched as used */
    TCG_TSC_HZ = 1000 * 1000 * 1000, /* the guest's TSC is the machine's clock in nanoseconds */
    TCG_MAX_IRQFDS = 256,
    TCG_MAX_CPUID = 256,
    TCG_MAX_BREAKPOINTS = 256,
    TCG_HELPER_STACK = 64 * 1024,
};

/* What the engine's library exports (engine/include/aioemu_engine.h); optional ones may be NULL. */
struct tcg_api {
    bool is_stock; /* a stock Unicorn with tcg_stock.c around it: slower, fewer features */
    uint32_t (*engine_api_version)(void);
    int (*engine_create)(const struct aioemu_engine_config *config, aioemu_engine **engine);
    void (*engine_destroy)(aioemu_engine *engine);
    int (*engine_map)(aioemu_engine *engine, uint64_t gpa, uint64_t size, void *host, uint32_t flags);
    int (*engine_unmap)(aioemu_engine *engine, uint64_t gpa, uint64_t size);
    void (*engine_dma_written)(aioemu_engine *engine, uint64_t gpa, uint64_t len);
    int (*vcpu_create)(aioemu_engine *engine, void *opaque, aioemu_vcpu **vcpu);
    int (*vcpu_run)(aioemu_vcpu *vcpu, struct aioemu_exit *exit);
    void (*vcpu_kick)(aioemu_vcpu *vcpu);
    void (*vcpu_request_interrupt)(aioemu_vcpu *vcpu);
    void (*vcpu_request_nmi)(aioemu_vcpu *vcpu);
    int (*vcpu_has_work)(aioemu_vcpu *vcpu);
    int (*vcpu_set_step)(aioemu_vcpu *vcpu, int on);
    int (*vcpu_breakpoint)(aioemu_vcpu *vcpu, uint64_t gva, int insert);
    int (*vcpu_translate)(aioemu_vcpu *vcpu, uint64_t gva, uint64_t *gpa);
    int (*x86_get_state)(aioemu_vcpu *vcpu, struct aioemu_x86_state *state);
    int (*x86_set_state)(aioemu_vcpu *vcpu, const struct aioemu_x86_state *state);
    int (*x86_reset)(aioemu_vcpu *vcpu, int init);
    int (*x86_sipi)(aioemu_vcpu *vcpu, uint8_t vector);
    uint64_t (*x86_tsc_offset)(aioemu_vcpu *vcpu);
};

/* What other threads leave for the vCPU's own thread; TCG_SIPI with the vector in bits 15:8. */
enum tcg_event { TCG_INIT = 1, TCG_SIPI = 2 };

struct tcg_vcpu {
    struct tcg *tcg;
    struct core_vcpu *vcpu;
    aioemu_vcpu *cpu;
    uint32_t events;            /* enum tcg_event; intc.lock */
    uint32_t spins;             /* turns in a row that it only spun; intc.lock */
    bool waits_for_sipi;        /* after INIT */
    bool shut_down;             /* a triple fault; until it gets a new state */
    _Atomic uint64_t apic_page; /* where its local APIC answers, or UINT64_MAX */
    uint64_t spec_ctrl, mcg_status;
    uint64_t
        tsc_adjust; /* what WRMSR of IA32_TSC_ADJUST added to the counter; WRMSR of the TSC is the engine's offset */
    core_cpuid *cpuid;
    uint32_t cpuid_count;
    uint64_t breakpoint[TCG_MAX_BREAKPOINTS];
    uint32_t breakpoint_count;
    struct aioemu_x86_state power_on;
    struct aioemu_x86_state override; /* set while its engine was inside an access: in force when that is done */
    bool overridden;
};

struct tcg_irqfd {
    int fd, resample_fd;
    uint32_t gsi;
    bool used;
};

struct tcg {
    struct core_machine *machine;
    struct tcg_api api;
    void *library;
    aioemu_engine *engine;
    struct core_intc intc;
    struct tcg_vcpu *cpu[INTC_MAX_CPUS];
    uint32_t cpu_count;
    /* the turn; intc.lock */
    uint32_t turn;            /* index of the vCPU that ran last */
    struct tcg_vcpu *current; /* in the engine now */
    int64_t turn_began_ns;
    int64_t slice_end_ns; /* 0: nobody else waits */
    bool special;         /* some vCPU has events */
    bool asleep;
    _Atomic uint32_t wake;     /* futex: counts reasons to look again */
    _Atomic bool in_engine;    /* the thread is inside the engine's run function */
    _Atomic bool any_override; /* some vCPU is overridden */
    /* the helper */
    pthread_t helper;
    bool helper_runs;
    int timer_fd, bell_fd, epoll_fd;
    bool clock_runs;  /* intc.lock */
    int64_t armed_ns; /* what the timer is set for, INTC_NEVER = not; intc.lock */
    _Atomic bool quit;
    struct tcg_irqfd irqfd[TCG_MAX_IRQFDS]; /* intc.lock */
};

static inline struct tcg *tcg_of(const struct core_machine *m) {
    return m->accel_data;
}

/* tcg_engine.c: open the library. -ELIBACC: not there or not loadable; -ELIBBAD: not the engine of this version. */
int tcg_engine_open(const char *path, void **library, struct tcg_api *api);

/* tcg_callbacks.c: what the engine asks while the guest runs. */
void tcg_callbacks_fill(struct aioemu_callbacks *callbacks);

/* tcg_msr.c: the registers that the engine does not keep. 0, or nonzero for #GP. */
int tcg_msr_read(void *opaque, uint32_t msr, uint64_t *value);
int tcg_msr_write(void *opaque, uint32_t msr, uint64_t value);
int tcg_set_msrs(struct core_vcpu *v, const core_msr *msrs, int count);
int tcg_get_msrs(struct core_vcpu *v, core_msr *msrs, int count);
/* The local APIC moved or was switched. */
void tcg_apic_moved(struct tcg_vcpu *c);

/* tcg_cpuid.c */
int tcg_set_cpuid(struct core_vcpu *v, const core_cpuid *entries, int count);
void tcg_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);

/* tcg_state.c: processor state; the machine is paused. */
int tcg_get_state(struct core_vcpu *v, core_cpu_state *state);
int tcg_set_state(struct core_vcpu *v, const core_cpu_state *state);
int tcg_reset(struct core_vcpu *v);
/* The engine's state of a vCPU, also when a new one waits; and its replacement. */
int tcg_load_state(struct tcg_vcpu *c, struct aioemu_x86_state *s);
int tcg_store_state(struct tcg_vcpu *c, const struct aioemu_x86_state *s);
/* Put the states in force that could not be while the engine was inside an access. */
void tcg_apply_overrides(struct tcg *tcg);

/* tcg_turn.c: which vCPU runs next, and sleeping when none can. */
int tcg_run(struct core_vcpu *v, core_event *stop);
void tcg_kick(struct core_thread *t);
void tcg_signal(void *opaque, uint32_t cpu, enum intc_signal what, uint8_t vector);
void tcg_look_again(struct tcg *tcg);

/* tcg_helper.c: the timer and the eventfds. */
int tcg_helper_open(struct tcg *tcg);
void tcg_helper_close(struct tcg *tcg);
/* Wake the helper at (deadline) unless it wakes earlier. intc.lock held. */
void tcg_arm(void *opaque, int64_t deadline_ns);
void tcg_disarm(struct tcg *tcg);
int tcg_irqfd(struct core_machine *m, int fd, int resample_fd, uint32_t gsi, bool add);
void tcg_finished(void *opaque, uint32_t gsi);
