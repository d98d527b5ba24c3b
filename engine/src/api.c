/* api.c: the vCPU functions that are the same for every guest, most of them for any thread. */
#include "aioemu/priv.h"

#include <errno.h>
#include <stdlib.h>

uint32_t aioemu_engine_api_version(void) {
    return AIOEMU_ENGINE_API_VERSION;
}

const char *aioemu_engine_version(void) {
    return AIOEMU_ENGINE_VERSION;
}

/* Set (event) and have the vCPU look at it before its next translation block. */
void aioemu_raise(struct aioemu_vcpu *vcpu, uint32_t event) {
    __atomic_fetch_or(&vcpu->events, event, __ATOMIC_SEQ_CST);
    __atomic_store_n(vcpu->leave, UINT16_MAX, __ATOMIC_SEQ_CST);
}

void aioemu_vcpu_kick(aioemu_vcpu *vcpu) {
    aioemu_raise(vcpu, AIOEMU_EVENT_KICK);
}

void aioemu_vcpu_request_interrupt(aioemu_vcpu *vcpu) {
    aioemu_raise(vcpu, AIOEMU_EVENT_IRQ);
}

void aioemu_vcpu_cancel_interrupt(aioemu_vcpu *vcpu) {
    __atomic_fetch_and(&vcpu->events, ~AIOEMU_EVENT_IRQ, __ATOMIC_SEQ_CST);
}

void aioemu_vcpu_request_nmi(aioemu_vcpu *vcpu) {
    aioemu_raise(vcpu, AIOEMU_EVENT_NMI);
}

int aioemu_vcpu_has_work(aioemu_vcpu *vcpu) {
    return vcpu->engine->ops->has_work(vcpu);
}

int aioemu_vcpu_create(aioemu_engine *engine, void *opaque, aioemu_vcpu **result) {
    struct aioemu_vcpu *vcpu;
    struct aioemu_catch frame;
    int err;

    if (engine->dead) {
        return -EIO;
    }
    if (engine->vcpu_count == AIOEMU_MAX_VCPUS) {
        return -ENOSPC;
    }
    vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu) {
        return -ENOMEM;
    }
    vcpu->engine = engine;
    vcpu->opaque = opaque;
    vcpu->index = engine->vcpu_count;
    aioemu_catch_push(&frame);
    err = sigsetjmp(frame.env, 0) ? -ENOMEM : engine->ops->vcpu_create(vcpu);
    aioemu_catch_pop(&frame);
    if (err) {
        free(vcpu);
        return err;
    }
    *result = vcpu;
    return 0;
}

static void run(struct aioemu_engine *engine, struct aioemu_vcpu *vcpu, struct aioemu_exit *exit) {
    struct aioemu_catch frame;

    aioemu_catch_push(&frame);
    while (sigsetjmp(frame.env, 0)) {
        if (!engine->ops->recover(vcpu)) {
            engine->dead = frame.what;
            vcpu->inside = false;
            break;
        }
    }
    if (!engine->dead) {
        engine->ops->run(vcpu, exit);
    } else {
        *exit = (struct aioemu_exit){.reason = AIOEMU_EXIT_ERROR, .message = engine->dead};
    }
    aioemu_catch_pop(&frame);
}

/* Run as the engine's only vCPU, and outlive what the emulator cannot. */
int aioemu_vcpu_run(aioemu_vcpu *vcpu, struct aioemu_exit *exit) {
    struct aioemu_engine *engine = vcpu->engine;
    struct aioemu_vcpu *nobody = NULL;

    if (!__atomic_compare_exchange_n(&engine->running, &nobody, vcpu, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        return -EBUSY;
    }
    run(engine, vcpu, exit);
    __atomic_store_n(&engine->running, NULL, __ATOMIC_SEQ_CST);
    return 0;
}

int aioemu_vcpu_set_step(aioemu_vcpu *vcpu, int on) {
    return vcpu->engine->ops->step(vcpu, on);
}

int aioemu_vcpu_breakpoint(aioemu_vcpu *vcpu, uint64_t gva, int insert) {
    return vcpu->engine->ops->breakpoint(vcpu, gva, insert);
}

int aioemu_vcpu_translate(aioemu_vcpu *vcpu, uint64_t gva, uint64_t *gpa) {
    return vcpu->engine->ops->translate(vcpu, gva, gpa);
}
