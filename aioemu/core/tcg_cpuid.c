/* tcg_cpuid.c: what the software processor says it can do (Intel SDM vol. 2A, CPUID).
 *
 * Only what the engine executes rightly is here: up to SSE4.2, no AVX. Left out although it would work: ERMS (byte
 * moves are the slow ones here), PKU and 57-bit paging (dearer to run than without), MONITOR (there is no cheaper way
 * to wait than HLT), x2APIC. The time stamp counter and the APIC timer have stated rates, so that no guest measures.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tcg.h"

enum {
    INDEXED = 1,
    VENDOR_B = 0x756e6547, /* GenuineIntel: leaves 15H and 16H mean something to guests with this vendor only */
    VENDOR_C = 0x6c65746e,
    VENDOR_D = 0x49656e69,
    SIGNATURE = 0x000106ca, /* family 6, model 28: executes in order; guests need no defence against speculation */
    LINE = 64,
    CACHE_SELF = 1 << 8,
    OSXSAVE = 1 << 27,
    APIC = 1 << 9,
    HYPERVISOR = 0x40000000,
    PHYSICAL_BITS = 40,
    VIRTUAL_BITS = 48,
};

#define BIT(n)     (1u << (n))
#define WAYS(ways) (((ways) - 1u) << 22 | (LINE - 1))

static const uint32_t FEATURES_1D = BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) |
                                    BIT(11) | BIT(12) | BIT(13) | BIT(14) | BIT(15) | BIT(16) | BIT(17) | BIT(19) |
                                    BIT(23) | BIT(24) | BIT(25) | BIT(26) | BIT(27); /* FPU .. SS without VME, PSN */
static const uint32_t FEATURES_1C = BIT(0) | BIT(1) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) |
                                    BIT(24) | BIT(25) | BIT(26) | BIT(30) | BIT(31);
/* SSE3 PCLMULQDQ SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT TSC-deadline AES XSAVE RDRAND hypervisor */
static const uint32_t FEATURES_7B = BIT(0) | BIT(1) | BIT(3) | BIT(7) | BIT(8) | BIT(19) | BIT(20) | BIT(23) | BIT(24);
/* FSGSBASE TSC_ADJUST BMI1 SMEP BMI2 ADX SMAP CLFLUSHOPT CLWB */
static const uint32_t FEATURES_7D = BIT(26) | BIT(27) | BIT(29) | BIT(31); /* IBRS/IBPB STIBP ARCH_CAPABILITIES SSBD */
static const uint32_t FEATURES_81C = BIT(0) | BIT(5);                      /* LAHF LZCNT */
static const uint32_t FEATURES_81D = BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29); /* SYSCALL NX 1G RDTSCP LM */

/* What is left of them on a stock library, which emulates a Nehalem and lets nobody answer WRMSR. */
static const uint32_t STOCK_1C = BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23) | BIT(31);
static const uint32_t STOCK_81C = BIT(0);
static const uint32_t STOCK_81D = BIT(11) | BIT(20) | BIT(29);

static const char brand[48] = "aioemu software processor";
static const char hypervisor[12] = "aioemu tcg";

static const core_cpuid fixed[] = {
    {0x0, 0, 0, 0x16, VENDOR_B, VENDOR_C, VENDOR_D},
    {0x1, 0, 0, SIGNATURE, LINE / 8 << 8, FEATURES_1C, FEATURES_1D},
    {0x2, 0, 0, 0xff01, 0, 0, 0},                                  /* caches: see leaf 4 */
    {0x4, 0, INDEXED, 1 | 1 << 5 | CACHE_SELF, WAYS(8), 63, 0},    /* L1 data, 32 KiB */
    {0x4, 1, INDEXED, 2 | 1 << 5 | CACHE_SELF, WAYS(8), 63, 0},    /* L1 code, 32 KiB */
    {0x4, 2, INDEXED, 3 | 2 << 5 | CACHE_SELF, WAYS(8), 511, 0},   /* L2, 256 KiB */
    {0x4, 3, INDEXED, 3 | 3 << 5 | CACHE_SELF, WAYS(16), 8191, 0}, /* L3, 8 MiB */
    {0x6, 0, 0, BIT(2), 0, 0, 0},                                  /* ARAT: the APIC timer never stops */
    {0x7, 0, INDEXED, 0, FEATURES_7B, 0, FEATURES_7D},
    {0xd, 0, INDEXED, 3, 576, 576, 0},           /* x87 and SSE: legacy area and header */
    {0xd, 1, INDEXED, BIT(0) | BIT(2), 0, 0, 0}, /* XSAVEOPT, XGETBV(1) */
    {0x15, 0, 0, 1, TCG_TSC_HZ / (1000000000 / LAPIC_TICK_NS), 1000000000 / LAPIC_TICK_NS, 0},
    {0x16, 0, 0, TCG_TSC_HZ / 1000000, TCG_TSC_HZ / 1000000, 100, 0},
    {0x80000000, 0, 0, 0x80000008, VENDOR_B, VENDOR_C, VENDOR_D},
    {0x80000001, 0, 0, 0, 0, FEATURES_81C, FEATURES_81D},
    {0x80000006, 0, 0, 0, 0, 256 << 16 | 6 << 12 | LINE, 0},
    {0x80000007, 0, 0, 0, 0, 0, BIT(8)}, /* the counter keeps its rate and stops only with the machine */
    {0x80000008, 0, 0, VIRTUAL_BITS << 8 | PHYSICAL_BITS, 0, 0, 0},
};

enum { FIXED = sizeof fixed / sizeof *fixed, NAMES = 4 };

/* The leaves that hold text: processor brand and hypervisor. */
static void text_leaf(uint32_t n, core_cpuid *leaf) {
    if (n == 3) {
        *leaf = (core_cpuid){.function = HYPERVISOR, .eax = HYPERVISOR};
        memcpy(&leaf->ebx, hypervisor, sizeof hypervisor);
    } else {
        *leaf = (core_cpuid){.function = 0x80000002 + n};
        memcpy(&leaf->eax, brand + 16 * n, 16);
    }
}

/* Every leaf a guest can be given; how many, or -E2BIG. */
int core_tcg_supported_cpuid(core_cpuid *entries, int max) {
    if (max < FIXED + NAMES) {
        return -E2BIG;
    }
    memcpy(entries, fixed, sizeof fixed);
    for (uint32_t n = 0; n < NAMES; n++) {
        text_leaf(n, &entries[FIXED + n]);
    }
    return FIXED + NAMES;
}

int tcg_set_cpuid(struct core_vcpu *v, const core_cpuid *entries, int count) {
    struct tcg_vcpu *c = v->accel;
    if (count < 0 || count > TCG_MAX_CPUID) {
        return -E2BIG;
    }
    core_cpuid *copy = calloc((size_t)count + 1, sizeof *copy);
    if (!copy) {
        return -ENOMEM;
    }
    memcpy(copy, entries, (size_t)count * sizeof *copy);
    free(c->cpuid);
    c->cpuid = copy;
    c->cpuid_count = (uint32_t)count;
    return 0;
}

static void reduce_to_stock(uint32_t leaf, uint32_t regs[4]) {
    if (leaf == 1) {
        regs[2] &= STOCK_1C;
    } else if (leaf == 7 || leaf == 0xd) {
        memset(regs, 0, 4 * sizeof *regs);
    } else if (leaf == 0x80000001) {
        regs[2] &= STOCK_81C;
        regs[3] &= STOCK_81D;
    }
}

/* The engine's own answer is used for one bit: whether the guest switched XSAVE on in CR4. */
void tcg_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]) {
    const struct tcg_vcpu *c = opaque;
    uint32_t engine_ecx = regs[2];
    memset(regs, 0, 4 * sizeof *regs);
    for (uint32_t i = 0; i < c->cpuid_count; i++) {
        const core_cpuid *e = &c->cpuid[i];
        if (e->function == leaf && (!(e->flags & INDEXED) || e->index == subleaf)) {
            memcpy(regs, &e->eax, 4 * sizeof *regs);
            break;
        }
    }
    if (c->tcg->api.is_stock) {
        reduce_to_stock(leaf, regs);
    }
    if (leaf == 1) {
        regs[2] = (regs[2] & ~(uint32_t)OSXSAVE) | (engine_ecx & OSXSAVE);
        regs[3] &= ~(lapic_is_on(c->tcg->intc.cpu[c->vcpu->index]) ? 0u : (uint32_t)APIC);
    }
}
