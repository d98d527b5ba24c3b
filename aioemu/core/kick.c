/* kick.c: the signal that takes a vCPU thread out of the guest. Its handler does nothing: the interruption is the point. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>

#include "threads.h"

static void kick_arrived(int signal_number) {
    (void)signal_number;
}

/* A real-time signal from the middle of the range: the C library uses the first two, programs mostly the ends. */
int core_kick_signal(void) {
    int number = SIGRTMIN + 11;
    struct sigaction now;
    if (sigaction(number, NULL, &now) == 0 && now.sa_handler != kick_arrived) {
        struct sigaction action = {.sa_handler = kick_arrived};
        sigemptyset(&action.sa_mask);
        sigaction(number, &action, NULL);
    }
    return number;
}
