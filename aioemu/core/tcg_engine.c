/* tcg_engine.c: find the software processor's library and its exports. Its author is trusted, its path is the user's. */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "tcg_stock.h"

struct export {
    const char *name;
    size_t offset;
    bool optional;
};

#define REQUIRED(member) {"aioemu_" #member, offsetof(struct tcg_api, member), false}
#define OPTIONAL(member) {"aioemu_" #member, offsetof(struct tcg_api, member), true}

static const struct export exports[] = {
    REQUIRED(engine_api_version), REQUIRED(engine_create),    REQUIRED(engine_destroy),
    REQUIRED(engine_map),         REQUIRED(engine_unmap),     REQUIRED(engine_dma_written),
    REQUIRED(vcpu_create),        REQUIRED(vcpu_run),         REQUIRED(vcpu_kick),
    REQUIRED(vcpu_has_work),      REQUIRED(vcpu_request_nmi), REQUIRED(vcpu_request_interrupt),
    REQUIRED(vcpu_set_step),      REQUIRED(vcpu_breakpoint),  REQUIRED(vcpu_translate),
    REQUIRED(x86_get_state),      REQUIRED(x86_set_state),    REQUIRED(x86_reset),
    REQUIRED(x86_sipi),           OPTIONAL(x86_tsc_offset),
};

static int resolve(void *library, struct tcg_api *api) {
    for (size_t i = 0; i < sizeof exports / sizeof *exports; i++) {
        void *symbol = dlsym(library, exports[i].name);
        if (!symbol && !exports[i].optional) {
            return -ELIBBAD;
        }
        memcpy((char *)api + exports[i].offset, &symbol, sizeof symbol);
    }
    return api->engine_api_version() == AIOEMU_ENGINE_API_VERSION ? 0 : -ELIBBAD;
}

/* The library stays in the process once loaded (it is shared by the machines that follow), and keeps its names to
 * itself: another copy of the same emulator may be in the process. */
int tcg_engine_open(const char *path, void **library, struct tcg_api *api) {
    void *handle = dlopen(path, RTLD_LOCAL | RTLD_NOW | RTLD_NODELETE);
    if (!handle) {
        return -ELIBACC;
    }
    int rc = dlsym(handle, exports[0].name) ? resolve(handle, api) : stock_open(handle, api);
    if (rc < 0) {
        dlclose(handle);
        return rc;
    }
    *library = handle;
    return 0;
}
