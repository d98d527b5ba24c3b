/* aioemu_engine.h: the software CPU as a hypervisor-style interface.
 *
 * One `aioemu_engine` is one machine: its physical memory map and its cache of translated code. It has one or more
 * `aioemu_vcpu`, which take turns: at most one vCPU of an engine is inside aioemu_vcpu_run() at any moment (on any
 * thread; the caller serialises). Engines share nothing and may run in parallel.
 *
 * Threads. "Any thread" functions may be called at any time from any thread, also from a callback and from a signal
 * handler. All others need the engine to be stopped, or to be called from a callback of the running vCPU, as noted.
 *
 * The guest is not trusted: nothing it does ends or corrupts the process; the worst it gets is AIOEMU_EXIT_SHUTDOWN
 * or AIOEMU_EXIT_ERROR. The caller is trusted. Functions return 0 or -errno unless they say otherwise.
 *
 * Not here: interrupt controllers, timers, firmware, device models. They are the caller's, behind the callbacks.
 */
#ifndef AIOEMU_ENGINE_H
#define AIOEMU_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows only when something below changes its meaning; compare with aioemu_engine_api_version(). */
#define AIOEMU_ENGINE_API_VERSION 1

#define AIOEMU_MAX_VCPUS 64

typedef struct aioemu_engine aioemu_engine;
typedef struct aioemu_vcpu aioemu_vcpu;

enum aioemu_arch {
    AIOEMU_ARCH_X86_64 = 1,
    AIOEMU_ARCH_AARCH64 = 2,
};

/* --- Callbacks: always on the thread that is in aioemu_vcpu_run(), inside a guest instruction. ---
 * They may block, and may call every "any thread" function and those marked "callback". They must return: no longjmp,
 * no aioemu_vcpu_run(). `opaque` is the vCPU's own. `size` is 1, 2, 4 or 8 bytes; wider or misaligned guest accesses
 * arrive in pieces, low address first. Values are zero-extended.
 */
struct aioemu_callbacks {
    /* sizeof(struct aioemu_callbacks): lets members be added at the end. Members beyond it count as NULL. */
    size_t size;

    /* Physical access outside RAM (and a write to read-only RAM). NULL: reads as all ones, writes are lost. */
    uint64_t (*mmio_read)(void *opaque, uint64_t gpa, unsigned size);
    void (*mmio_write)(void *opaque, uint64_t gpa, unsigned size, uint64_t value);

    /* x86 IN/OUT, one call per element for INS/OUTS. Permission was checked before. size is 1, 2 or 4. */
    uint32_t (*pio_read)(void *opaque, uint16_t port, unsigned size);
    void (*pio_write)(void *opaque, uint16_t port, unsigned size, uint32_t value);

    /* x86: the CPU can take the interrupt asked for with aioemu_vcpu_request_interrupt(). Acknowledge at the
     * controller and return the vector, or -1 for none. The request was dropped before this call: if more is pending
     * ask again (from here is fine). */
    int (*interrupt)(void *opaque);

    /* x86 RDMSR/WRMSR of every MSR the engine does not keep itself (see AIOEMU_X86_OWN_MSRS in docs/engine.md: the
     * ones in struct aioemu_x86_state). APICBASE, x2APIC 0x800-0x8ff, TSC_DEADLINE and paravirtual ones come here.
     * 0: done; anything else: the guest gets #GP(0). NULL: #GP(0), and APICBASE reads fee00900. */
    int (*msr_read)(void *opaque, uint32_t msr, uint64_t *value);
    int (*msr_write)(void *opaque, uint32_t msr, uint64_t value);

    /* x86 MOV CR8: the local APIC's TPR bits 7:4. NULL: kept in the state's cr8. */
    uint8_t (*cr8_read)(void *opaque);
    void (*cr8_write)(void *opaque, uint8_t value);

    /* x86 CPUID: regs is eax, ebx, ecx, edx as the engine would answer; change what should differ. Hiding a feature
     * here does not make its instructions fault. NULL: the engine's answer. */
    void (*cpuid)(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);

    /* The guest's time stamp counter now (AArch64: the physical counter CNTPCT, in ticks of counter_hz). NULL: x86 the
     * host's TSC, AArch64 CLOCK_MONOTONIC. The TSC value the guest sees is this plus the state's tsc_offset. */
    uint64_t (*counter)(void *opaque);

    /* AArch64 HVC (kind 2) and SMC (kind 3): x[0..17] may be changed. 0: done; else the guest sees it as undefined. */
    int (*a64_call)(void *opaque, int kind, uint16_t immediate, uint64_t x[18]);

    /* AArch64 timer control: the guest wrote timer (0 physical, 1 virtual)'s CTL (bits 0 ENABLE, 1 IMASK), CVAL or
     * TVAL. cval is absolute on the physical counter; the caller arms its clock and drives the interrupt line. */
    void (*a64_timer)(void *opaque, int timer, uint32_t ctl, uint64_t cval);
};

struct aioemu_engine_config {
    size_t size;               /* sizeof(struct aioemu_engine_config) */
    uint32_t arch;             /* enum aioemu_arch */
    uint32_t code_cache_bytes; /* host code buffer; 0: 256 MiB of address space, touched as used */
    const char *cpu_model;     /* NULL: "max", all the engine has. Others: see docs/engine.md */
    uint64_t counter_hz;       /* AArch64 CNTFRQ; 0: 62.5 MHz */
    uint32_t yield_on_pause;   /* x86 PAUSE / AArch64 YIELD, WFE return AIOEMU_EXIT_YIELD (for vCPUs in turn) */
    uint32_t reserved;
    struct aioemu_callbacks callbacks; /* copied */
};

/* --- Engine --- */
uint32_t aioemu_engine_api_version(void);
const char *aioemu_engine_version(void); /* "2.1.4+aioemu.1": upstream release and patch series level */

/* -ENOMEM, -EINVAL (config), -ENOTSUP (arch not built in, or unknown cpu_model). */
int aioemu_engine_create(const struct aioemu_engine_config *config, aioemu_engine **engine);
/* Every vCPU goes with it. Stopped only. */
void aioemu_engine_destroy(aioemu_engine *engine);

/* --- Memory map. Stopped or callback (then in force for the next translation block). 4 KiB granules. --- */
#define AIOEMU_MEM_READONLY 1u /* guest writes go to mmio_write (flash, ROM) */
/* Guest-physical [gpa, gpa+size) is (host). -EEXIST if it overlaps RAM already there, -EINVAL if misaligned. The same
 * host memory may be mapped at several addresses; each is then a separate page for code tracking (see dma_written). */
int aioemu_engine_map(aioemu_engine *engine, uint64_t gpa, uint64_t size, void *host, uint32_t flags);
/* [gpa, gpa+size) must be exactly one earlier aioemu_engine_map. -ENOENT. */
int aioemu_engine_unmap(aioemu_engine *engine, uint64_t gpa, uint64_t size);

/* Any thread. The host (a device) has written [gpa, gpa+len) of RAM: call it after the data is written and before the
 * guest is told. Costs one byte load per page unless the guest executed code there; then the translations are dropped
 * before the next translation block runs. Also records the pages in the dirty log. */
void aioemu_engine_dma_written(aioemu_engine *engine, uint64_t gpa, uint64_t len);
/* Any thread. Nonzero if any page of the range has translated code now. */
int aioemu_engine_has_code(aioemu_engine *engine, uint64_t gpa, uint64_t len);

/* Dirty log: which RAM pages were written by the guest or announced by dma_written. Stopped or callback. */
int aioemu_engine_dirty_log_start(aioemu_engine *engine);
void aioemu_engine_dirty_log_stop(aioemu_engine *engine);
/* Bit n of bitmap is page gpa/4096+n; bits are set, never cleared; the log of the range is cleared.
 * bitmap has (size/4096+63)/64 words. -ENOENT if the range is not RAM, -EINVAL if no log is kept. */
int aioemu_engine_dirty_log_fetch(aioemu_engine *engine, uint64_t gpa, uint64_t size, uint64_t *bitmap);

/* --- vCPU --- */
/* Starts in its power-on state (x86: real mode at fffffff0; AArch64: EL1, MMU off, PC 0). Stopped. -ENOSPC. */
int aioemu_vcpu_create(aioemu_engine *engine, void *opaque, aioemu_vcpu **vcpu);

enum aioemu_exit_reason {
    AIOEMU_EXIT_KICK = 1, /* aioemu_vcpu_kick */
    AIOEMU_EXIT_HALT,     /* HLT, MWAIT, WFI, and nothing to wake for; a run without that returns this again at once */
    AIOEMU_EXIT_SHUTDOWN, /* x86 triple fault: the CPU is in shutdown until its state is set or it is reset */
    AIOEMU_EXIT_YIELD,    /* a spin-wait hint, if yield_on_pause; now and then without one */
    AIOEMU_EXIT_DEBUG,    /* single step or breakpoint of aioemu_vcpu_set_step/_breakpoint; address is the PC */
    AIOEMU_EXIT_ERROR,    /* the engine cannot go on; message says why. Other engines are unharmed. */
};

struct aioemu_exit {
    uint32_t reason; /* enum aioemu_exit_reason */
    uint32_t reserved;
    uint64_t address;
    const char *message; /* static text, or NULL */
};

/* Run the guest until one of the reasons above. Every stop is between two instructions: the state is complete and a
 * later run goes on exactly there. -EBUSY if a vCPU of this engine is running already. */
int aioemu_vcpu_run(aioemu_vcpu *vcpu, struct aioemu_exit *exit);

/* Any thread, async-signal-safe. The run now under way, or else the next one, returns AIOEMU_EXIT_KICK (once, however
 * often it was called) at the next translation block, or a HALT or other reason that came first. */
void aioemu_vcpu_kick(aioemu_vcpu *vcpu);
/* Any thread. Ask for callbacks.interrupt as soon as the guest can take one (IF=1, no STI/MOV SS shadow); stays asked
 * until then. Wakes nobody: a thread that sleeps on HALT is the caller's to wake. */
void aioemu_vcpu_request_interrupt(aioemu_vcpu *vcpu);
/* Any thread. Take the request back; the callback may still come if it was on its way. */
void aioemu_vcpu_cancel_interrupt(aioemu_vcpu *vcpu);
/* Any thread. Deliver an NMI as soon as NMIs are not blocked; at most one is held. x86 only. */
void aioemu_vcpu_request_nmi(aioemu_vcpu *vcpu);
/* Any thread (while the vCPU runs the answer is already old). Nonzero if a run would execute the guest: it is not
 * halted, or a request can be taken. */
int aioemu_vcpu_has_work(aioemu_vcpu *vcpu);

/* Debugger. Stopped. A step executes one instruction per run. Each vCPU has its own step and breakpoints. */
int aioemu_vcpu_set_step(aioemu_vcpu *vcpu, int on);
int aioemu_vcpu_breakpoint(aioemu_vcpu *vcpu, uint64_t gva, int insert);
/* Guest-virtual to physical as the vCPU's current mode translates; sets no accessed/dirty bits. -EFAULT if unmapped.
 * Stopped or callback. */
int aioemu_vcpu_translate(aioemu_vcpu *vcpu, uint64_t gva, uint64_t *gpa);

/* --- x86-64 state. get: stopped or callback (exact also inside an instruction). set: stopped. --- */
struct aioemu_x86_segment {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
    uint16_t selector;
    uint16_t rights; /* descriptor bits 55:40 with the limit bits zero: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13,
                        D/B 14, G 15. P=0: unusable */
};

struct aioemu_x86_table {
    uint64_t base;
    uint32_t limit;
    uint32_t reserved;
};

struct aioemu_x86_state {
    size_t size;      /* sizeof(struct aioemu_x86_state), set by the caller for get and set */
    uint64_t gpr[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
    uint64_t rip, rflags;
    struct aioemu_x86_segment seg[6]; /* es cs ss ds fs gs */
    struct aioemu_x86_segment ldt, tr;
    struct aioemu_x86_table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, xcr0;
    uint64_t dr[8]; /* 4 and 5 unused */
    uint64_t efer, star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, misc_enable, tsc_aux, tsc_offset;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint32_t pkru;
    uint8_t interrupt_shadow;    /* STI or MOV SS just before */
    uint8_t nmi_blocked;         /* until IRET */
    uint8_t nmi_requested;       /* aioemu_vcpu_request_nmi, not yet delivered */
    uint8_t interrupt_requested; /* aioemu_vcpu_request_interrupt, not yet asked for */
    uint8_t halted;              /* HLT, waiting */
    uint8_t shutdown;            /* after a triple fault */
    uint8_t a20_masked;          /* A20 gate closed: physical address bit 20 reads 0 */
    uint8_t reserved[5];
    uint8_t fxsave[512] __attribute__((aligned(16))); /* FXSAVE64 image: x87, MXCSR, XMM0-15 */
};

int aioemu_x86_get_state(aioemu_vcpu *vcpu, struct aioemu_x86_state *state);
/* -EINVAL for what no CPU can hold (non-canonical fields are kept as given, reserved CR/EFER bits refused). */
int aioemu_x86_set_state(aioemu_vcpu *vcpu, const struct aioemu_x86_state *state);

/* Power-on reset (init = 0) or INIT (init = 1: keeps FPU, MTRR and CR0.CD/NW). Also drops requests. Stopped. */
int aioemu_x86_reset(aioemu_vcpu *vcpu, int init);
/* Start-up IPI: real mode at vector << 12, not halted. Stopped. */
int aioemu_x86_sipi(aioemu_vcpu *vcpu, uint8_t vector);
/* Deliver vector at the start of the next run, as an exception (has_error_code, error_code pushed as given) or, with
 * AIOEMU_INJECT_EXTERNAL, as an external interrupt. For events the guest did not cause (#MC, a debugger's #DB).
 * Stopped. -EBUSY if one is waiting. */
#define AIOEMU_INJECT_EXTERNAL 1u
int aioemu_x86_inject(aioemu_vcpu *vcpu, uint8_t vector, uint32_t error_code, uint32_t flags);

/* --- AArch64 state --- */
struct aioemu_a64_state {
    size_t size;
    uint64_t x[31], pc;
    uint64_t pstate; /* SPSR layout: NZCV, DAIF, EL and SP select, IL, SS */
    uint64_t sp_el0, sp_el1, elr_el1, spsr_el1;
    uint8_t halted;   /* WFI, waiting */
    uint8_t irq, fiq; /* lines */
    uint8_t reserved[5];
    uint32_t fpcr, fpsr;
    uint64_t v[32][2] __attribute__((aligned(16)));
};

int aioemu_a64_get_state(aioemu_vcpu *vcpu, struct aioemu_a64_state *state);
int aioemu_a64_set_state(aioemu_vcpu *vcpu, const struct aioemu_a64_state *state);
/* System registers by encoding. -ENOENT if this CPU has no such register. get: stopped or callback. set: stopped. */
#define AIOEMU_A64_SYSREG(op0, op1, crn, crm, op2)                                                                     \
    (((uint32_t)(op0) << 14) | ((op1) << 11) | ((crn) << 7) | ((crm) << 3) | (op2))
int aioemu_a64_get_sysreg(aioemu_vcpu *vcpu, uint32_t encoding, uint64_t *value);
int aioemu_a64_set_sysreg(aioemu_vcpu *vcpu, uint32_t encoding, uint64_t value);
int aioemu_a64_reset(aioemu_vcpu *vcpu);
/* Any thread. Interrupt lines are levels: line 0 IRQ, 1 FIQ. */
void aioemu_a64_set_line(aioemu_vcpu *vcpu, int line, int level);

#ifdef __cplusplus
}
#endif
#endif
