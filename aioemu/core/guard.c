/* guard.c: one handler of SIGBUS for the process. While a thread copies under guard it takes it out of the copy;
 * otherwise it does what would have been done without it. */
#define _GNU_SOURCE
#include "guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static struct sigaction previous;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local sigjmp_buf *volatile way_out; /* of the copy that this thread is in */

static void arrived(int number, siginfo_t *info, void *context) {
    sigjmp_buf *out = way_out;
    if (out) {
        way_out = NULL;
        siglongjmp(*out, 1);
    }
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(number, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(number);
    } else if (previous.sa_handler == SIG_DFL || info->si_code > 0) {
        const struct sigaction plain = {.sa_handler = SIG_DFL};
        sigaction(number, &plain, NULL);
        if (info->si_code <= 0) { /* it was sent; a fault comes again by itself */
            raise(number);
        }
    }
}

static void take(void) {
    struct sigaction action = {.sa_sigaction = arrived, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous);
}

bool guard_works(void) {
    struct sigaction now;
    sigset_t blocked;
    pthread_once(&once, take);
    return sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == arrived &&
           pthread_sigmask(SIG_SETMASK, NULL, &blocked) == 0 && !sigismember(&blocked, SIGBUS);
}

bool guard_copy(void *to, const void *from, size_t size) {
    sigjmp_buf out;
    if (sigsetjmp(out, 0)) {
        return false;
    }
    way_out = &out;
    atomic_signal_fence(memory_order_seq_cst);
    memcpy(to, from, size);
    atomic_signal_fence(memory_order_seq_cst);
    way_out = NULL;
    return true;
}
