/* tablerun.c: how far a table of 64-bit numbers goes on by equal steps: clusters in a row of an image's table, and empty
 * ones. Pure; any thread. */
#include "core.h"

/* How many of the entries from `at` to `end` are entries[at], + step, + 2 step, ...; at least 1 where at < end. */
uint32_t core_run_length(const uint64_t *entries, uint32_t at, uint32_t end, uint64_t step) {
    uint32_t i = at + 1;
    if (at >= end) {
        return 0;
    }
    for (uint64_t wanted = entries[at] + step; i < end && entries[i] == wanted; i++) {
        wanted += step;
    }
    return i - at;
}
