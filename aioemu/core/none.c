/* none.c: no processor at all: a machine whose devices a client drives (accel qtest, -M none). */
#include <errno.h>

#include "core.h"

static void none_close(struct core_machine *m) {
    (void)m;
}

static int none_vcpu_open(struct core_vcpu *v) {
    (void)v;
    return -ENODEV;
}

static void none_vcpu_close(struct core_vcpu *v) {
    (void)v;
}

const struct core_accel core_accel_none = {
    .name = "none",
    .close = none_close,
    .vcpu_open = none_vcpu_open,
    .vcpu_close = none_vcpu_close,
};

int core_none_attach(core_machine *m) {
    if (m->accel) {
        return -EBUSY;
    }
    m->accel = &core_accel_none;
    return 0;
}
