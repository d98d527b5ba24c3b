/* machine.c: a machine's threads and the gate they stop at. Control thread only, except where said. */
#define _GNU_SOURCE
#include "core.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "threads.h"

static void quit_threads(core_machine *m);

core_machine *core_machine_new(uint32_t max_vcpus) {
    if (max_vcpus > CORE_MAX_VCPUS) {
        return NULL;
    }
    core_machine *m = calloc(1, sizeof *m);
    if (!m) {
        return NULL;
    }
    m->max_vcpus = max_vcpus;
    m->vcpus = calloc(max_vcpus + 1, sizeof(struct core_vcpu *));
    m->threads = calloc(max_vcpus + 1, sizeof(struct core_thread *));
    m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!m->vcpus || !m->threads || m->event_fd < 0) {
        if (m->event_fd >= 0) {
            close(m->event_fd);
        }
        free(m->vcpus);
        free(m->threads);
        free(m);
        return NULL;
    }
    pthread_mutex_init(&m->gate, NULL);
    pthread_cond_init(&m->open, NULL);
    pthread_mutex_init(&m->bus, NULL);
    pthread_mutex_init(&m->lines, NULL);
    atomic_store(&m->target, CORE_PAUSED);
    core_clock_stop(m);
    return m;
}

void core_machine_free(core_machine *m) {
    if (!m) {
        return;
    }
    quit_threads(m);
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        if (m->accel) {
            m->accel->vcpu_close(m->vcpus[i]);
        }
        free(m->vcpus[i]);
    }
    if (m->accel) {
        m->accel->close(m);
    }
    for (uint32_t i = 0; i < m->thread_count; i++) {
        free(m->threads[i]);
    }
    core_ram_free(m);
    core_tables_free(m);
    close(m->event_fd);
    pthread_mutex_destroy(&m->gate);
    pthread_cond_destroy(&m->open);
    pthread_mutex_destroy(&m->bus);
    pthread_mutex_destroy(&m->lines);
    free(m->vcpus);
    free(m->threads);
    free(m);
}

int core_machine_event_fd(core_machine *m) {
    return m->event_fd;
}

const char *core_accel_name(core_machine *m) {
    return m->accel ? m->accel->name : "";
}

void core_ring(core_machine *m) {
    if (!atomic_exchange(&m->rung, true) && !atomic_load(&m->polling)) {
        uint64_t one = 1;
        /* A non-blocking eventfd refuses only at 2^64-2: it is readable then, which is all that is wanted. */
        (void)!write(m->event_fd, &one, sizeof one);
    }
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

static struct core_thread *thread_for(core_machine *m) {
    if (m->accel->one_thread && m->thread_count) {
        return m->threads[0];
    }
    struct core_thread *t = calloc(1, sizeof *t);
    if (!t) {
        return NULL;
    }
    t->machine = m;
    t->index = m->thread_count;
    m->threads[m->thread_count++] = t;
    return t;
}

int core_vcpu_add(core_machine *m, uint32_t apic_id) {
    if (!m->accel) {
        return -ENODEV;
    }
    if (m->vcpu_count == m->max_vcpus) {
        return -ENOSPC;
    }
    struct core_vcpu *v = calloc(1, sizeof *v);
    if (!v) {
        return -ENOMEM;
    }
    v->machine = m;
    v->index = m->vcpu_count;
    v->apic_id = apic_id;
    v->thread = thread_for(m);
    int rc = v->thread ? m->accel->vcpu_open(v) : -ENOMEM;
    if (rc < 0) {
        if (v->thread && !m->accel->one_thread) {
            free(m->threads[--m->thread_count]);
            m->threads[m->thread_count] = NULL;
        }
        free(v);
        return rc;
    }
    m->vcpus[m->vcpu_count++] = v;
    return (int)v->index;
}

int core_vcpu_count(core_machine *m) {
    return (int)m->vcpu_count;
}

/* One thread less may be in the guest; the last one tells whoever asked for the pause. With the gate locked. */
static void leave_locked(core_machine *m) {
    if (--m->active == 0 && atomic_load(&m->target) != CORE_RUNNING) {
        atomic_store(&m->paused_news, true);
        core_ring(m);
    }
}

void core_gate_leave(core_machine *m) {
    pthread_mutex_lock(&m->gate);
    leave_locked(m);
    pthread_mutex_unlock(&m->gate);
}

void core_gate_enter(core_machine *m) {
    pthread_mutex_lock(&m->gate);
    m->active++;
    pthread_mutex_unlock(&m->gate);
}

/* Wait at the gate while the machine is paused or this thread has stopped. False when the machine is torn down. */
static bool wait_at_gate(struct core_thread *t) {
    core_machine *m = t->machine;
    pthread_mutex_lock(&m->gate);
    leave_locked(m);
    if (!t->arrived) {
        t->arrived = true;
        pthread_cond_broadcast(&m->open);
    }
    while (atomic_load(&m->target) == CORE_PAUSED ||
           (atomic_load(&t->stopped) && atomic_load(&m->target) != CORE_QUIT)) {
        pthread_cond_wait(&m->open, &m->gate);
    }
    m->active++;
    pthread_mutex_unlock(&m->gate);
    return atomic_load(&m->target) != CORE_QUIT;
}

static void report_stop(struct core_thread *t, const core_event *stop) {
    t->stop = *stop;
    t->stop.kind = CORE_EVENT_STOPPED;
    t->stop.thread = t->index;
    atomic_store_explicit(&t->stopped, true, memory_order_release);
    atomic_store(&t->attention, true);
    atomic_store(&t->stop_news, true);
    core_ring(t->machine);
}

static void *thread_main(void *argument) {
    struct core_thread *t = argument;
    core_machine *m = t->machine;
    const struct core_accel *accel = m->accel;
    struct core_vcpu *v = m->vcpus[accel->one_thread ? 0 : t->index];
    atomic_store(&t->tid, (int)syscall(SYS_gettid));
    bool alive = wait_at_gate(t);
    while (alive) {
        if (atomic_exchange(&t->attention, false)) {
            if (atomic_load(&m->target) != CORE_RUNNING || atomic_load(&t->stopped)) {
                if (accel->settle) {
                    accel->settle(v);
                }
                alive = wait_at_gate(t);
                continue;
            }
        }
        if (!atomic_load_explicit(&v->first_entry_ns, memory_order_relaxed)) {
            atomic_store(&v->first_entry_ns, (uint64_t)core_monotonic_ns());
        }
        core_event stop = {.vcpu = v->index};
        if (accel->run(v, &stop)) {
            report_stop(t, &stop);
        }
    }
    core_gate_leave(m);
    return NULL;
}

/* vCPU threads take no signal but the kick, so the program's handlers run where the program expects them. */
static int spawn(struct core_thread *t) {
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, core_kick_signal());
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, CORE_THREAD_STACK);
    int rc = pthread_create(&t->handle, &attr, thread_main, t);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0) {
        t->started = true;
    }
    return -rc;
}

/* Make the threads of vCPUs that have none yet; on return they stand at the gate and wait for core_machine_resume. */
int core_machine_start(core_machine *m) {
    for (uint32_t i = 0; i < m->thread_count; i++) {
        struct core_thread *t = m->threads[i];
        if (t->started) {
            continue;
        }
        pthread_mutex_lock(&m->gate);
        m->active++;
        pthread_mutex_unlock(&m->gate);
        int rc = spawn(t);
        pthread_mutex_lock(&m->gate);
        if (rc < 0) {
            m->active--;
            pthread_mutex_unlock(&m->gate);
            return rc;
        }
        while (!t->arrived) {
            pthread_cond_wait(&m->open, &m->gate);
        }
        pthread_mutex_unlock(&m->gate);
    }
    return 0;
}

static void attend(core_machine *m) {
    for (uint32_t i = 0; i < m->thread_count; i++) {
        struct core_thread *t = m->threads[i];
        if (t->started) {
            atomic_store(&t->attention, true);
            m->accel->kick(t);
        }
    }
}

int core_machine_resume(core_machine *m) {
    pthread_mutex_lock(&m->gate);
    atomic_store(&m->target, CORE_RUNNING);
    for (uint32_t i = 0; i < m->thread_count; i++) {
        atomic_store(&m->threads[i]->stopped, false);
    }
    pthread_cond_broadcast(&m->open);
    pthread_mutex_unlock(&m->gate);
    return 0;
}

/* Ask every thread to the gate. CORE_EVENT_PAUSED follows; 1 when they all stand there already. */
int core_machine_pause(core_machine *m) {
    pthread_mutex_lock(&m->gate);
    atomic_store(&m->target, CORE_PAUSED);
    int idle = m->active == 0;
    pthread_mutex_unlock(&m->gate);
    attend(m);
    return idle;
}

int core_machine_is_paused(core_machine *m) {
    pthread_mutex_lock(&m->gate);
    int idle = m->active == 0;
    pthread_mutex_unlock(&m->gate);
    return idle;
}

static void quit_threads(core_machine *m) {
    pthread_mutex_lock(&m->gate);
    atomic_store(&m->target, CORE_QUIT);
    pthread_cond_broadcast(&m->open);
    pthread_mutex_unlock(&m->gate);
    if (m->accel) {
        attend(m);
    }
    for (uint32_t i = 0; i < m->thread_count; i++) {
        struct core_thread *t = m->threads[i];
        core_mailbox_cancel(t);
        if (t->started) {
            pthread_join(t->handle, NULL);
            t->started = false;
        }
    }
}

int core_vcpu_thread_id(core_machine *m, uint32_t vcpu) {
    return vcpu < m->vcpu_count ? atomic_load(&m->vcpus[vcpu]->thread->tid) : -EINVAL;
}

/* ---- statistics --------------------------------------------------------------------------------------------------- */

uint64_t core_vcpu_exits(core_machine *m, uint32_t vcpu, uint32_t kind) {
    if (vcpu >= m->vcpu_count || kind >= CORE_EXIT_COUNT) {
        return 0;
    }
    return atomic_load_explicit(&m->vcpus[vcpu]->exits[kind], memory_order_relaxed);
}

uint64_t core_vcpu_first_entry_ns(core_machine *m, uint32_t vcpu) {
    return vcpu < m->vcpu_count ? atomic_load(&m->vcpus[vcpu]->first_entry_ns) : 0;
}

const char *core_exit_name(uint32_t kind) {
    static const char *const names[CORE_EXIT_COUNT] = {"pio-read",    "pio-write", "mmio-read", "mmio-write", "hlt",
                                                       "interrupted", "system",    "other",     "handed-over"};
    return kind < CORE_EXIT_COUNT ? names[kind] : "";
}
