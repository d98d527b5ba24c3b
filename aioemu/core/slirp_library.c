/* slirp_library.c: finds libslirp when somebody asks for it. Its version must be one whose interface is known. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

#include "slirp.h"

struct entry {
    const char *name;
    size_t offset;
};

#define ENTRY(function, member) {function, offsetof(struct slirp_library, member)}

static const struct entry entries[] = {
    ENTRY("slirp_new", make),
    ENTRY("slirp_cleanup", cleanup),
    ENTRY("slirp_pollfds_fill", pollfds_fill),
    ENTRY("slirp_pollfds_poll", pollfds_poll),
    ENTRY("slirp_input", input),
    ENTRY("slirp_add_hostxfwd", add_hostxfwd),
    ENTRY("slirp_remove_hostxfwd", remove_hostxfwd),
    ENTRY("slirp_add_exec", add_exec),
    ENTRY("slirp_add_unix", add_unix),
    ENTRY("slirp_connection_info", connection_info),
    ENTRY("slirp_version_string", version_string),
    ENTRY("g_log_set_handler", log_set_handler),
    ENTRY("g_log_remove_handler", log_remove_handler),
    ENTRY("g_free", free),
};

static bool resolve(struct slirp_library *library) {
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        void *symbol = dlsym(library->handle, entries[i].name);
        if (!symbol) {
            return false;
        }
        *(void **)((char *)library + entries[i].offset) = symbol;
    }
    return true;
}

static bool version_fits(const struct slirp_library *library) {
    int major = 0, minor = 0;
    return sscanf(library->version_string(), "%d.%d", &major, &minor) == 2 && major == SLIRP_MAJOR &&
           minor >= SLIRP_MINOR_MIN;
}

int core_slirp_open(struct slirp_library *library) {
    /* never closed again: GLib cannot be unloaded */
    library->handle = dlopen("libslirp.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library->handle) {
        return -ELIBACC;
    }
    return resolve(library) && version_fits(library) ? 0 : -ELIBBAD;
}

int core_slirp_check(char *version, int room) {
    struct slirp_library library;
    int rc = core_slirp_open(&library);
    if (rc == 0) {
        snprintf(version, (size_t)room, "%s", library.version_string());
    }
    return rc;
}
