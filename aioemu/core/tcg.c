/* tcg.c: the software processor as an accelerator: the engine of engine/ with the PC's interrupt controllers in C.
 *
 * All vCPUs of a machine run in turn on its one vCPU thread (tcg_turn.c). Guest and library path are not trusted; the
 * library's code is. No state outlives its machine but the loaded library itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tcg_stock.h"

/* ---- vCPUs ---------------------------------------------------------------------------------------------------------------- */

static int make_cpu(struct tcg *tcg, struct tcg_vcpu *c, uint32_t apic_id) {
    int rc = tcg->api.vcpu_create(tcg->engine, c, &c->cpu);
    if (rc == 0) {
        rc = intc_add_cpu(&tcg->intc, apic_id);
    }
    if (rc == 0) {
        rc = tcg_load_state(c, &c->power_on);
    }
    return rc;
}

static int vcpu_open(struct core_vcpu *v) {
    struct tcg *tcg = tcg_of(v->machine);
    if (tcg->cpu_count == INTC_MAX_CPUS) {
        return -ENOSPC;
    }
    struct tcg_vcpu *c = calloc(1, sizeof *c);
    core_cpuid *leaves = calloc(TCG_MAX_CPUID, sizeof *leaves);
    int rc = c && leaves ? core_tcg_supported_cpuid(leaves, TCG_MAX_CPUID) : -ENOMEM;
    if (rc >= 0) {
        c->tcg = tcg;
        c->vcpu = v;
        c->cpuid = leaves;
        c->cpuid_count = (uint32_t)rc;
        c->waits_for_sipi = v->index != 0;
        rc = make_cpu(tcg, c, v->apic_id);
    }
    if (rc < 0) {
        free(leaves);
        free(c);
        return rc;
    }
    v->accel = c;
    pthread_mutex_lock(&tcg->intc.lock);
    tcg->cpu[tcg->cpu_count++] = c;
    tcg_apic_moved(c);
    lapic_update(tcg->intc.cpu[v->index]);
    pthread_mutex_unlock(&tcg->intc.lock);
    return 0;
}

static void vcpu_close(struct core_vcpu *v) {
    struct tcg_vcpu *c = v->accel;
    struct tcg *tcg = c->tcg;
    pthread_mutex_lock(&tcg->intc.lock);
    tcg->cpu_count = 0; /* the machine goes: its vCPUs are closed together */
    pthread_mutex_unlock(&tcg->intc.lock);
    free(c->cpuid);
    free(c);
    v->accel = NULL;
}

static int nmi(struct core_vcpu *v) {
    struct tcg *tcg = tcg_of(v->machine);
    pthread_mutex_lock(&tcg->intc.lock);
    tcg_signal(tcg, v->index, INTC_NMI, 0);
    pthread_mutex_unlock(&tcg->intc.lock);
    return 0;
}

static int translate(struct core_vcpu *v, uint64_t gva, uint64_t *gpa) {
    struct tcg_vcpu *c = v->accel;
    return c->tcg->api.vcpu_translate(c->cpu, gva, gpa);
}

static void drop_breakpoints(struct tcg_vcpu *c) {
    while (c->breakpoint_count) {
        c->tcg->api.vcpu_breakpoint(c->cpu, c->breakpoint[--c->breakpoint_count], 0);
    }
}

static int debug(struct core_vcpu *v, bool single_step, const uint64_t *breakpoints, int count) {
    struct tcg_vcpu *c = v->accel;
    if (count < 0 || count > TCG_MAX_BREAKPOINTS) {
        return -E2BIG;
    }
    drop_breakpoints(c);
    int rc = c->tcg->api.vcpu_set_step(c->cpu, single_step);
    for (int i = 0; rc == 0 && i < count; i++) {
        rc = c->tcg->api.vcpu_breakpoint(c->cpu, breakpoints[i], 1);
        if (rc == 0) {
            c->breakpoint[c->breakpoint_count++] = breakpoints[i];
        }
    }
    return rc;
}

/* ---- the machine ------------------------------------------------------------------------------------------------------------ */

static int ram_add(struct core_machine *m, uint32_t slot, uint64_t gpa, uint64_t size, uint8_t *host, uint32_t flags) {
    struct tcg *tcg = tcg_of(m);
    (void)slot;
    uint32_t how = flags & CORE_RAM_READONLY ? AIOEMU_MEM_READONLY : 0;
    return tcg->api.engine_map(tcg->engine, gpa, size, host, how);
}

static int ram_remove(struct core_machine *m, uint32_t slot, uint64_t gpa, uint64_t size) {
    struct tcg *tcg = tcg_of(m);
    (void)slot;
    return tcg->api.engine_unmap(tcg->engine, gpa, size);
}

static void ram_written(struct core_machine *m, uint64_t gpa, uint64_t size) {
    struct tcg *tcg = tcg_of(m);
    tcg->api.engine_dma_written(tcg->engine, gpa, size);
}

static int irq(struct core_machine *m, uint32_t gsi, bool level) {
    return intc_irq(&tcg_of(m)->intc, gsi, level);
}

static int msi(struct core_machine *m, uint64_t address, uint32_t data) {
    int rc = intc_msi(&tcg_of(m)->intc, address, data);
    return rc < 0 ? rc : 0;
}

static int reset_platform(struct core_machine *m) {
    intc_reset(&tcg_of(m)->intc);
    return 0;
}

/* The clock stops with the machine: nothing is due meanwhile. */
static void clock_runs(struct core_machine *m, bool run) {
    struct tcg *tcg = tcg_of(m);
    pthread_mutex_lock(&tcg->intc.lock);
    tcg->clock_runs = run;
    if (run) {
        int64_t next = intc_poll(&tcg->intc, intc_now(&tcg->intc));
        if (next != INTC_NEVER) {
            tcg_arm(tcg, next);
        }
    } else {
        tcg_disarm(tcg);
    }
    pthread_mutex_unlock(&tcg->intc.lock);
    tcg_look_again(tcg);
}

static void close_machine(struct core_machine *m) {
    struct tcg *tcg = tcg_of(m);
    tcg_helper_close(tcg);
    if (tcg->engine) {
        tcg->api.engine_destroy(tcg->engine);
    }
    intc_close(&tcg->intc);
    free(tcg);
    m->accel_data = NULL;
}

const struct core_accel core_accel_tcg = {
    .name = "tcg",
    .one_thread = true,
    .close = close_machine,
    .vcpu_open = vcpu_open,
    .vcpu_close = vcpu_close,
    .run = tcg_run,
    .kick = tcg_kick,
    .reset = tcg_reset,
    .reset_platform = reset_platform,
    .translate = translate,
    .get_state = tcg_get_state,
    .set_state = tcg_set_state,
    .set_cpuid = tcg_set_cpuid,
    .set_msrs = tcg_set_msrs,
    .get_msrs = tcg_get_msrs,
    .nmi = nmi,
    .debug = debug,
    .ram_add = ram_add,
    .ram_remove = ram_remove,
    .ram_written = ram_written,
    .irq = irq,
    .msi = msi,
    .irqfd = tcg_irqfd,
    .clock = clock_runs,
};

static int make_engine(struct tcg *tcg) {
    struct aioemu_engine_config config = {
        .size = sizeof config,
        .arch = AIOEMU_ARCH_X86_64,
        .code_cache_bytes = TCG_CODE_CACHE,
        .yield_on_pause = tcg->machine->max_vcpus > 1,
    };
    tcg_callbacks_fill(&config.callbacks);
    return tcg->api.is_stock ? stock_create(tcg->library, &config, &tcg->engine)
                             : tcg->api.engine_create(&config, &tcg->engine);
}

/* Give the machine the software processor in (library). Machines that are attached before have their own. */
int core_tcg_attach(core_machine *m, const char *library, uint32_t flags) {
    if (m->accel) {
        return -EBUSY;
    }
    struct tcg *tcg = calloc(1, sizeof *tcg);
    if (!tcg) {
        return -ENOMEM;
    }
    tcg->machine = m;
    tcg->epoll_fd = tcg->timer_fd = tcg->bell_fd = -1;
    tcg->clock_runs = !atomic_load(&m->clock_stopped);
    intc_open(&tcg->intc, m);
    tcg->intc.opaque = tcg;
    tcg->intc.signal = tcg_signal;
    tcg->intc.finished = tcg_finished;
    tcg->intc.armed = tcg_arm;
    m->accel_data = tcg;
    int rc = tcg_engine_open(library, &tcg->library, &tcg->api);
    if (rc == 0) {
        rc = make_engine(tcg);
    }
    if (rc == 0) {
        rc = tcg_helper_open(tcg);
    }
    if (rc == 0) {
        rc = intc_map(&tcg->intc, flags & CORE_TCG_PIT);
    }
    if (rc < 0) {
        close_machine(m);
        return rc;
    }
    m->accel = &core_accel_tcg;
    return 0;
}

/* The interrupt controllers and timers by kind, for saving and inspection; NULL when there is none. */
core_chip *core_tcg_chip(core_machine *m, int kind, uint32_t index) {
    if (m->accel != &core_accel_tcg) {
        return NULL;
    }
    return intc_chip(&tcg_of(m)->intc, kind, index);
}
