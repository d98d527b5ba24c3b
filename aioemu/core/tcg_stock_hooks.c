/* tcg_stock_hooks.c: what a stock Unicorn calls while the guest runs: ports, CPUID, time, SYSCALL, faults, blocks.
 *
 * A hook sees the processor between two instructions (its program counter at the one that called) and may change it
 * through the image. Runs on the machine's vCPU thread; the guest chose every value.
 */
#include <errno.h>

#include "tcg_stock.h"

enum {
    HOOK_INTR = 1,
    HOOK_INSN = 2,
    HOOK_BLOCK = 8,
    HOOK_MEM_WRITE = 2048,
    HOOK_INSN_INVALID = 16384,
    INS_CPUID = 113,
    INS_IN = 218,
    INS_OUT = 500,
    INS_RDTSC = 608,
    INS_RDTSCP = 609,
    INS_SYSCALL = 699,
    INS_SYSENTER = 700,

    GPR_RAX = 0,
    GPR_RCX = 1,
    GPR_RDX = 2,
    GPR_RBX = 3,
    GPR_RSP = 4,
    GPR_R11 = 11,
    REG_RAX = 35,
    REG_RBX = 37,
    REG_RCX = 38,
    REG_RDX = 40,
    MSR_STAR = 0xc0000081,
    MSR_LSTAR = 0xc0000082,
    MSR_CSTAR = 0xc0000083,
    MSR_FMASK = 0xc0000084,
    MSR_SYSENTER_CS = 0x174,
    CODE64 = 0x00a09b00, /* flat, present, accessed, ring 0 */
    CODE32 = 0x00c09b00,
    STACK0 = 0x00c09300,
    INSTRUCTION = 2, /* bytes of SYSCALL and SYSENTER: the library adds them to what the hook leaves */
};

struct msr {
    uint32_t index;
    uint64_t value;
};

static void stop(struct stock *stock) {
    stock->stopping = true;
    stock->api.emu_stop(stock->uc);
}

/* An interrupt waits and can be taken, or the thread is wanted: leave before this block. */
static void on_block(uc_engine *uc, uint64_t address, uint32_t size, void *data) {
    struct stock *stock = data;
    struct stock_vcpu *v = stock->loaded;
    uint32_t events = atomic_load_explicit(&v->events, memory_order_relaxed);
    (void)uc;
    (void)address;
    (void)size;
    if (!events) {
        return;
    }
    if (!(events & STOCK_KICK)) {
        stock_fetch(v);
        bool open = (stock_reg(v, UC_REG_RFLAGS) & 0x200) && !(*env32(v, ENV_HFLAGS) & HF_SHADOW);
        bool nmi = (events & STOCK_NMI) && !(*env32(v, ENV_HFLAGS2) & HF2_NMI);
        if (!open && !nmi) {
            return;
        }
    }
    stop(stock);
}

static void raise(struct stock_vcpu *v, uint8_t vector, enum stock_cause cause, uint32_t error) {
    stock_deliver(v, vector, cause, error);
    stock_store(v);
    if (v->shutdown) {
        stop(v->stock);
    }
}

static void on_exception(uc_engine *uc, uint32_t vector, void *data) {
    struct stock_vcpu *v = ((struct stock *)data)->loaded;
    (void)uc;
    stock_fetch(v);
    bool software = *env32(v, ENV_IS_INT);
    raise(v, (uint8_t)vector, software ? CAUSE_SOFTWARE : CAUSE_EXCEPTION, *env32(v, ENV_ERROR_CODE));
}

static bool on_invalid(uc_engine *uc, void *data) {
    struct stock_vcpu *v = ((struct stock *)data)->loaded;
    (void)uc;
    stock_fetch(v);
    raise(v, 6, CAUSE_EXCEPTION, 0);
    return true;
}

static uint32_t on_in(uc_engine *uc, uint32_t port, int size, void *data) {
    struct stock *stock = data;
    (void)uc;
    return stock->cb.pio_read(stock->loaded->opaque, (uint16_t)port, (unsigned)size);
}

static void on_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *data) {
    struct stock *stock = data;
    (void)uc;
    stock->cb.pio_write(stock->loaded->opaque, (uint16_t)port, (unsigned)size, value);
}

static int on_cpuid(uc_engine *uc, void *data) {
    static const int order[] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX};
    struct stock *stock = data;
    uint32_t regs[4] = {0};
    uint32_t leaf = (uint32_t)stock_reg(stock->loaded, REG_RAX), sub = (uint32_t)stock_reg(stock->loaded, REG_RCX);
    stock->cb.cpuid(stock->loaded->opaque, leaf, sub, regs);
    for (int i = 0; i < 4; i++) {
        uint64_t value = regs[i];
        stock->api.reg_write(uc, order[i], &value);
    }
    return 1;
}

static int on_counter(uc_engine *uc, void *data) {
    struct stock *stock = data;
    uint64_t now = stock->cb.counter(stock->loaded->opaque);
    uint64_t low = (uint32_t)now, high = now >> 32;
    stock->api.reg_write(uc, REG_RAX, &low);
    stock->api.reg_write(uc, REG_RDX, &high);
    return 1;
}

static uint64_t read_msr(struct stock_vcpu *v, uint32_t index) {
    struct msr msr = {.index = index};
    v->stock->api.reg_read(v->stock->uc, UC_REG_MSR, &msr);
    return msr.value;
}

static void enter_kernel(struct stock_vcpu *v, uint16_t selector, bool bits64) {
    struct stock_segment *cs = env_segment(v, ENV_SEGMENTS, SEG_CS), *ss = env_segment(v, ENV_SEGMENTS, SEG_SS);
    *cs = (struct stock_segment){.selector = selector, .limit = UINT32_MAX, .flags = bits64 ? CODE64 : CODE32};
    *ss = (struct stock_segment){.selector = selector + 8u, .limit = UINT32_MAX, .flags = STACK0};
    uint32_t *hflags = env32(v, ENV_HFLAGS);
    *hflags &= ~(uint32_t)(HF_CPL | HF_ADDSEG | HF_CS64);
    *hflags |= HF_CS32 | HF_SS32 | (bits64 ? HF_CS64 : 0);
}

/* AMD APM vol. 3, SYSCALL; legacy mode has none here. */
static void on_syscall(uc_engine *uc, void *data) {
    struct stock_vcpu *v = ((struct stock *)data)->loaded;
    (void)uc;
    stock_fetch(v);
    if (!(*env64(v, ENV_EFER) & 1) || !(*env32(v, ENV_HFLAGS) & HF_LMA)) {
        raise(v, 6, CAUSE_EXCEPTION, 0);
        *env64(v, ENV_RIP) -= INSTRUCTION;
        stock_store(v);
        return;
    }
    uint64_t flags = stock_reg(v, UC_REG_RFLAGS), mask = read_msr(v, MSR_FMASK);
    bool from64 = *env32(v, ENV_HFLAGS) & HF_CS64;
    *env64(v, ENV_GPR + 8 * GPR_RCX) = *env64(v, ENV_RIP) + INSTRUCTION;
    *env64(v, ENV_GPR + 8 * GPR_R11) = flags & ~0x10000ull;
    *env64(v, ENV_EFLAGS) &= ~(mask | 0x10000);
    if (mask & 0x400) {
        *env32(v, ENV_DF) = 1;
    }
    enter_kernel(v, (uint16_t)(read_msr(v, MSR_STAR) >> 32) & 0xfffc, true);
    *env64(v, ENV_RIP) = read_msr(v, from64 ? MSR_LSTAR : MSR_CSTAR) - INSTRUCTION;
    stock_store(v);
}

/* SDM vol. 2, SYSENTER. */
static void on_sysenter(uc_engine *uc, void *data) {
    struct stock_vcpu *v = ((struct stock *)data)->loaded;
    uint16_t selector = (uint16_t)read_msr(v, MSR_SYSENTER_CS) & 0xfffc;
    (void)uc;
    stock_fetch(v);
    if (!selector) {
        raise(v, 13, CAUSE_EXCEPTION, 0);
        *env64(v, ENV_RIP) -= INSTRUCTION;
        stock_store(v);
        return;
    }
    *env64(v, ENV_EFLAGS) &= ~0x30200ull;
    enter_kernel(v, selector, *env32(v, ENV_HFLAGS) & HF_LMA);
    *env64(v, ENV_GPR + 8 * GPR_RSP) = read_msr(v, MSR_SYSENTER_CS + 1);
    *env64(v, ENV_RIP) = read_msr(v, MSR_SYSENTER_CS + 2) - INSTRUCTION;
    stock_store(v);
}

/* Never called: that it exists makes the library check every store for code it has translated. */
static void on_write(uc_engine *uc, int type, uint64_t address, int size, int64_t value, void *data) {
    (void)uc;
    (void)type;
    (void)address;
    (void)size;
    (void)value;
    (void)data;
}

struct hook {
    int type;
    void *callback;
    int instruction;
};

int stock_hooks(struct stock *stock) {
    const struct hook hooks[] = {
        {HOOK_INTR, on_exception, 0},
        {HOOK_INSN_INVALID, on_invalid, 0},
        {HOOK_BLOCK, on_block, 0},
        {HOOK_INSN, on_in, INS_IN},
        {HOOK_INSN, on_out, INS_OUT},
        {HOOK_INSN, on_cpuid, INS_CPUID},
        {HOOK_INSN, on_counter, INS_RDTSC},
        {HOOK_INSN, on_counter, INS_RDTSCP},
        {HOOK_INSN, on_syscall, INS_SYSCALL},
        {HOOK_INSN, on_sysenter, INS_SYSENTER},
    };
    size_t handle;
    int error = 0;
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks && !error; i++) {
        error = stock->api.hook_add(stock->uc, &handle, hooks[i].type, hooks[i].callback, stock, 1, 0,
                                    hooks[i].instruction);
    }
    if (!error) {
        error = stock->api.hook_add(stock->uc, &handle, HOOK_MEM_WRITE, on_write, stock, UINT64_MAX, UINT64_MAX);
    }
    return error ? -ELIBBAD : 0;
}
