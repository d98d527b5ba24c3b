/* x86_string.c: REP MOVS and REP STOS, as many iterations at once as plain memory lets. Facts: Intel SDM vol. 2.
 *
 * Called before each iteration that the translated code makes; what needs more than bytes in memory (the last iteration,
 * a page with translations or without a mapping, a device, an element across two pages) is left to that.
 */
#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/cpu_ldst.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"

#include <string.h>

/* How many elements from (address) on are within its page. */
static uint64_t in_page(uint64_t address, uint32_t shift) {
    return (TARGET_PAGE_SIZE - (address & ~TARGET_PAGE_MASK)) >> shift;
}

static uint64_t less(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* Iterations that may be made here: upwards, and one remains. */
static uint64_t wanted(const CPUX86State *env) {
    return env->df == 1 ? env->regs[R_ECX] - 1 : 0;
}

/* In the order of the iterations: what is copied may be copied again where (to) is within the source. */
static void copy(uint8_t *to, const uint8_t *from, uint64_t size, uint32_t width) {
    if (to <= from || to >= from + size) {
        memmove(to, from, size);
        return;
    }
    for (uint64_t at = 0; at < size; at += width) {
        uint64_t element;
        memcpy(&element, from + at, width);
        memcpy(to + at, &element, width);
    }
}

void helper_aioemu_rep_movs(CPUX86State *env, uint32_t shift) {
    uint64_t from = env->regs[R_ESI], to = env->regs[R_EDI];
    uint64_t count = less(wanted(env), less(in_page(from, shift), in_page(to, shift)));
    if (count == 0) {
        return;
    }
    int mmu = cpu_mmu_index(env, false);
    const uint8_t *source = tlb_vaddr_to_host(env, from, MMU_DATA_LOAD, mmu);
    uint8_t *target = source ? tlb_vaddr_to_host(env, to, MMU_DATA_STORE, mmu) : NULL;
    if (!target) {
        return;
    }
    copy(target, source, count << shift, 1u << shift);
    env->regs[R_ESI] += count << shift;
    env->regs[R_EDI] += count << shift;
    env->regs[R_ECX] -= count;
}

void helper_aioemu_rep_stos(CPUX86State *env, uint32_t shift) {
    uint64_t to = env->regs[R_EDI], value = env->regs[R_EAX];
    uint64_t count = less(wanted(env), in_page(to, shift));
    uint8_t *target = count ? tlb_vaddr_to_host(env, to, MMU_DATA_STORE, cpu_mmu_index(env, false)) : NULL;
    if (!target) {
        return;
    }
    uint64_t size = count << shift;
    memcpy(target, &value, 1u << shift);
    for (uint64_t done = 1u << shift; done < size; done += less(done, size - done)) {
        memcpy(target + done, target, less(done, size - done));
    }
    env->regs[R_EDI] += size;
    env->regs[R_ECX] -= count;
}
