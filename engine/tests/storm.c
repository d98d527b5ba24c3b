/* storm.c: stop a vCPU as fast as another thread can, for test_stop.py, where Python's threads are too slow for it. */
#include <pthread.h>
#include <stdatomic.h>

#include "aioemu_engine.h"

struct storm {
    aioemu_vcpu *vcpu;
    void (*kick)(aioemu_vcpu *);
    atomic_int done;
};

static void *kicker(void *arg) {
    struct storm *storm = arg;

    while (!atomic_load(&storm->done)) {
        storm->kick(storm->vcpu);
        for (volatile int i = 0; i < 300; i++) {
        }
    }
    return NULL;
}

/* Run (vcpu) until (stops) runs ended for a kick; how many other reasons came between, or -1. */
int storm(aioemu_vcpu *vcpu, int (*run)(aioemu_vcpu *, struct aioemu_exit *), void (*kick)(aioemu_vcpu *), int stops) {
    struct storm storm = {.vcpu = vcpu, .kick = kick};
    struct aioemu_exit out;
    pthread_t thread;
    int other = 0;

    if (pthread_create(&thread, NULL, kicker, &storm)) {
        return -1;
    }
    while (stops > 0 && other == 0 && run(vcpu, &out) == 0) {
        if (out.reason == AIOEMU_EXIT_KICK) {
            stops--;
        } else {
            other++;
        }
    }
    atomic_store(&storm.done, 1);
    pthread_join(thread, NULL);
    return stops ? -1 : other;
}
