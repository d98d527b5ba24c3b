/* tcg_helper.c: the thread that interrupts the one that runs the guest: when a timer is due, when a slice ends, and
 * when somebody signals an eventfd that stands for an interrupt line. It sleeps otherwise; no signals, no polling. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "tcg.h"

enum { TAG_TIMER = -1, TAG_BELL = -2, BATCH = 16 };

/* ---- the timer: intc.lock held --------------------------------------------------------------------------------------- */

static void set_timer(struct tcg *tcg, int64_t in_ns) {
    struct itimerspec spec = {.it_value = {.tv_sec = in_ns / 1000000000, .tv_nsec = in_ns % 1000000000}};
    timerfd_settime(tcg->timer_fd, 0, &spec, NULL);
}

void tcg_arm(void *opaque, int64_t deadline_ns) {
    struct tcg *tcg = opaque;
    if (!tcg->clock_runs || (tcg->armed_ns != INTC_NEVER && tcg->armed_ns <= deadline_ns)) {
        return;
    }
    int64_t in_ns = deadline_ns - intc_now(&tcg->intc);
    tcg->armed_ns = deadline_ns;
    set_timer(tcg, in_ns > 0 ? in_ns : 1);
}

void tcg_disarm(struct tcg *tcg) {
    if (tcg->armed_ns != INTC_NEVER) {
        tcg->armed_ns = INTC_NEVER;
        set_timer(tcg, 0);
    }
}

static void on_timer(struct tcg *tcg) {
    uint64_t times;
    (void)!read(tcg->timer_fd, &times, sizeof times);
    pthread_mutex_lock(&tcg->intc.lock);
    tcg->armed_ns = INTC_NEVER;
    if (tcg->clock_runs && !tcg->asleep) {
        int64_t now = intc_now(&tcg->intc);
        int64_t next = intc_poll(&tcg->intc, now);
        if (tcg->slice_end_ns && now >= tcg->slice_end_ns && tcg->current) {
            tcg->slice_end_ns = 0;
            tcg->api.vcpu_kick(tcg->current->cpu);
        }
        if (next != INTC_NEVER) {
            tcg_arm(tcg, next);
        }
        if (tcg->slice_end_ns) {
            tcg_arm(tcg, tcg->slice_end_ns);
        }
    }
    pthread_mutex_unlock(&tcg->intc.lock);
}

/* ---- eventfds as interrupt lines ---------------------------------------------------------------------------------------- */

static bool has_events(int fd) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, 0) == 1 && (ready.revents & POLLIN);
}

static void on_eventfd(struct tcg *tcg, const struct tcg_irqfd *irqfd) {
    uint64_t count;
    pthread_mutex_lock(&tcg->intc.lock);
    if (irqfd->used && has_events(irqfd->fd) && read(irqfd->fd, &count, sizeof count) == sizeof count) {
        intc_drive(&tcg->intc, INTC_EVENTFD, irqfd->gsi, true);
        if (irqfd->resample_fd < 0) {
            intc_drive(&tcg->intc, INTC_EVENTFD, irqfd->gsi, false);
        }
    }
    pthread_mutex_unlock(&tcg->intc.lock);
}

/* The guest has finished a level-triggered interrupt: its eventfd's level falls and its owner may raise it again. */
void tcg_finished(void *opaque, uint32_t gsi) {
    struct tcg *tcg = opaque;
    if (!(tcg->intc.driven[INTC_EVENTFD] >> gsi & 1)) {
        return;
    }
    intc_drive(&tcg->intc, INTC_EVENTFD, gsi, false);
    for (uint32_t i = 0; i < TCG_MAX_IRQFDS; i++) {
        struct tcg_irqfd *irqfd = &tcg->irqfd[i];
        uint64_t one = 1;
        if (irqfd->used && irqfd->gsi == gsi && irqfd->resample_fd >= 0) {
            (void)!write(irqfd->resample_fd, &one, sizeof one);
        }
    }
}

static int add_irqfd(struct tcg *tcg, int fd, int resample_fd, uint32_t gsi) {
    for (uint32_t i = 0; i < TCG_MAX_IRQFDS; i++) {
        if (tcg->irqfd[i].used) {
            continue;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = i};
        if (epoll_ctl(tcg->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
            return -errno;
        }
        tcg->irqfd[i] = (struct tcg_irqfd){.fd = fd, .resample_fd = resample_fd, .gsi = gsi, .used = true};
        return 0;
    }
    return -ENOSPC;
}

static int remove_irqfd(struct tcg *tcg, int fd, uint32_t gsi) {
    for (uint32_t i = 0; i < TCG_MAX_IRQFDS; i++) {
        struct tcg_irqfd *irqfd = &tcg->irqfd[i];
        if (irqfd->used && irqfd->fd == fd && irqfd->gsi == gsi) {
            irqfd->used = false;
            epoll_ctl(tcg->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
            intc_drive(&tcg->intc, INTC_EVENTFD, gsi, false);
            return 0;
        }
    }
    return -ENOENT;
}

int tcg_irqfd(struct core_machine *m, int fd, int resample_fd, uint32_t gsi, bool add) {
    struct tcg *tcg = tcg_of(m);
    if (gsi >= IOAPIC_PINS) {
        return -EINVAL;
    }
    pthread_mutex_lock(&tcg->intc.lock);
    int rc = add ? add_irqfd(tcg, fd, resample_fd, gsi) : remove_irqfd(tcg, fd, gsi);
    pthread_mutex_unlock(&tcg->intc.lock);
    return rc;
}

/* ---- the thread ----------------------------------------------------------------------------------------------------------- */

static void *helper_main(void *argument) {
    struct tcg *tcg = argument;
    while (!atomic_load(&tcg->quit)) {
        struct epoll_event events[BATCH];
        int n = epoll_wait(tcg->epoll_fd, events, BATCH, -1);
        for (int i = 0; i < n; i++) {
            int64_t tag = (int64_t)events[i].data.u64;
            if (tag == TAG_TIMER) {
                on_timer(tcg);
            } else if (tag >= 0 && tag < TCG_MAX_IRQFDS) {
                on_eventfd(tcg, &tcg->irqfd[tag]);
            }
        }
    }
    return NULL;
}

static int watch(struct tcg *tcg, int fd, int tag) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(int64_t)tag};
    return epoll_ctl(tcg->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int start(struct tcg *tcg) {
    sigset_t all, old;
    pthread_attr_t attr;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, TCG_HELPER_STACK);
    int rc = pthread_create(&tcg->helper, &attr, helper_main, tcg);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    tcg->helper_runs = rc == 0;
    return -rc;
}

int tcg_helper_open(struct tcg *tcg) {
    tcg->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    tcg->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    tcg->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (tcg->epoll_fd < 0 || tcg->timer_fd < 0 || tcg->bell_fd < 0) {
        return -errno;
    }
    int rc = watch(tcg, tcg->timer_fd, TAG_TIMER);
    if (rc == 0) {
        rc = watch(tcg, tcg->bell_fd, TAG_BELL);
    }
    return rc < 0 ? rc : start(tcg);
}

static void close_fd(int fd) {
    if (fd >= 0) {
        close(fd);
    }
}

void tcg_helper_close(struct tcg *tcg) {
    if (tcg->helper_runs) {
        uint64_t one = 1;
        atomic_store(&tcg->quit, true);
        (void)!write(tcg->bell_fd, &one, sizeof one);
        pthread_join(tcg->helper, NULL);
    }
    close_fd(tcg->epoll_fd);
    close_fd(tcg->timer_fd);
    close_fd(tcg->bell_fd);
}
