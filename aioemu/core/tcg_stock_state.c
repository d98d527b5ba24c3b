/* tcg_stock_state.c: a stock library's processor state from outside: the image of its context, and its MSR interface.
 *
 * Vector and x87 registers, debug registers and MTRRs are not read or changed: they stay what the guest made them.
 */
#include <errno.h>
#include <string.h>

#include "tcg_stock.h"

struct msr {
    uint32_t index;
    uint64_t value;
};

struct field {
    uint32_t msr;
    size_t offset;
};

#define FIELD(number, member) {number, offsetof(struct aioemu_x86_state, member)}

static const struct field fields[] = {
    FIELD(0xc0000081, star),   FIELD(0xc0000082, lstar),          FIELD(0xc0000083, cstar),
    FIELD(0xc0000084, fmask),  FIELD(0xc0000102, kernel_gs_base), FIELD(0xc0000103, tsc_aux),
    FIELD(0x174, sysenter_cs), FIELD(0x175, sysenter_esp),        FIELD(0x176, sysenter_eip),
    FIELD(0x277, pat),
};

enum { FIELDS = sizeof fields / sizeof *fields, EXECUTABLE = 1 << 3, GPR_RDX = 2 };

/* env keeps rax rcx rdx rbx rsp rbp rsi rdi r8..: the hardware's order, as the interface does. */

static struct aioemu_x86_segment segment_out(const struct stock_segment *s) {
    return (struct aioemu_x86_segment){
        .base = s->base, .limit = s->limit, .selector = (uint16_t)s->selector, .rights = s->flags >> 8 & 0xf0ff};
}

static struct stock_segment segment_in(const struct aioemu_x86_segment *s) {
    return (struct stock_segment){
        .selector = s->selector, .base = s->base, .limit = s->limit, .flags = (uint32_t)s->rights << 8};
}

int stock_get_state(aioemu_vcpu *vcpu, struct aioemu_x86_state *s) {
    struct stock_vcpu *v = (struct stock_vcpu *)vcpu;
    stock_load(v);
    stock_fetch(v);
    memcpy(s->gpr, v->env + ENV_GPR, sizeof s->gpr);
    s->rip = *env64(v, ENV_RIP);
    s->rflags = stock_reg(v, UC_REG_RFLAGS);
    for (int i = 0; i < 6; i++) {
        s->seg[i] = segment_out(env_segment(v, ENV_SEGMENTS, i));
    }
    s->ldt = segment_out(env_segment(v, ENV_LDT, 0));
    s->tr = segment_out(env_segment(v, ENV_TR, 0));
    s->gdt = (struct aioemu_x86_table){env_segment(v, ENV_GDT, 0)->base, env_segment(v, ENV_GDT, 0)->limit, 0};
    s->idt = (struct aioemu_x86_table){env_segment(v, ENV_IDT, 0)->base, env_segment(v, ENV_IDT, 0)->limit, 0};
    const uint64_t *cr = env64(v, ENV_CR);
    s->cr0 = cr[0], s->cr2 = cr[2], s->cr3 = cr[3], s->cr4 = cr[4];
    s->efer = *env64(v, ENV_EFER);
    for (int i = 0; i < FIELDS; i++) {
        struct msr msr = {.index = fields[i].msr};
        v->stock->api.reg_read(v->stock->uc, UC_REG_MSR, &msr);
        memcpy((char *)s + fields[i].offset, &msr.value, sizeof msr.value);
    }
    s->interrupt_shadow = (*env32(v, ENV_HFLAGS) & HF_SHADOW) != 0;
    s->nmi_blocked = (*env32(v, ENV_HFLAGS2) & HF2_NMI) != 0;
    s->halted = v->halted;
    s->shutdown = v->shutdown;
    return 0;
}

/* What the library derives from control registers and segments, and keeps beside them. */
static uint32_t derive_hflags(const struct aioemu_x86_state *s) {
    bool pe = s->cr0 & 1, lma = s->efer & 0x400, vm = s->rflags & 0x20000;
    uint32_t cs = s->seg[SEG_CS].rights, ss = s->seg[SEG_SS].rights;
    bool long64 = lma && (cs >> 13 & 1);
    uint32_t h = pe ? HF_PE : 0;
    h |= pe && !vm ? ss >> 5 & 3u : 0; /* the stack segment's level is the processor's */
    h |= vm ? 3 : 0;
    h |= (uint32_t)(s->cr0 & 0xe) << 8; /* MP, EM, TS */
    h |= lma ? HF_LMA : 0;
    h |= long64 ? HF_CS64 | HF_CS32 : cs >> 14 & 1 ? HF_CS32 : 0;
    h |= ss >> 14 & 1 ? HF_SS32 : 0;
    h |= s->cr4 & 0x200 ? HF_OSFXSR : 0;
    h |= s->cr4 & 0x200000 ? HF_SMAP : 0;
    h |= s->interrupt_shadow ? HF_SHADOW : 0;
    if (!long64) {
        bool flat = pe && !vm && (h & HF_CS32) && !(s->seg[SEG_DS].base | s->seg[SEG_ES].base | s->seg[SEG_SS].base);
        h |= flat ? 0 : HF_ADDSEG;
    }
    return h;
}

static void put_tables(struct stock_vcpu *v, const struct aioemu_x86_state *s) {
    for (int i = 0; i < 6; i++) {
        *env_segment(v, ENV_SEGMENTS, i) = segment_in(&s->seg[i]);
    }
    *env_segment(v, ENV_LDT, 0) = segment_in(&s->ldt);
    *env_segment(v, ENV_TR, 0) = segment_in(&s->tr);
    *env_segment(v, ENV_GDT, 0) = (struct stock_segment){.base = s->gdt.base, .limit = s->gdt.limit};
    *env_segment(v, ENV_IDT, 0) = (struct stock_segment){.base = s->idt.base, .limit = s->idt.limit};
}

int stock_set_state(aioemu_vcpu *vcpu, const struct aioemu_x86_state *s) {
    struct stock_vcpu *v = (struct stock_vcpu *)vcpu;
    struct stock_api *api = &v->stock->api;
    stock_load(v);
    for (int i = 0; i < FIELDS; i++) {
        struct msr msr = {.index = fields[i].msr};
        memcpy(&msr.value, (const char *)s + fields[i].offset, sizeof msr.value);
        api->reg_write(v->stock->uc, UC_REG_MSR, &msr);
    }
    api->reg_write(v->stock->uc, UC_REG_RFLAGS, &s->rflags);
    stock_fetch(v);
    memcpy(v->env + ENV_GPR, s->gpr, sizeof s->gpr);
    put_tables(v, s);
    uint64_t *cr = env64(v, ENV_CR);
    cr[0] = s->cr0, cr[2] = s->cr2, cr[3] = s->cr3, cr[4] = s->cr4;
    *env64(v, ENV_EFER) = s->efer;
    *env64(v, ENV_RIP) = s->rip;
    *env32(v, ENV_HFLAGS) = derive_hflags(s);
    *env32(v, ENV_HFLAGS2) = (*env32(v, ENV_HFLAGS2) & ~(uint32_t)HF2_NMI) | (s->nmi_blocked ? HF2_NMI : 0);
    *env32(v, ENV_OLD_EXCEPTION) = UINT32_MAX;
    v->halted = s->halted;
    v->shutdown = s->shutdown;
    stock_store(v);
    v->stock->loaded = NULL; /* reloading drops the library's translated addresses */
    stock_load(v);
    return 0;
}

/* Power-on or INIT (SDM vol. 3, table 9-1). */
int stock_reset(aioemu_vcpu *vcpu, int init) {
    struct stock_vcpu *v = (struct stock_vcpu *)vcpu;
    struct aioemu_x86_state s = {.size = sizeof s};
    (void)init;
    for (int i = 0; i < 6; i++) {
        s.seg[i] = (struct aioemu_x86_segment){.limit = 0xffff, .rights = 0x93};
    }
    s.seg[SEG_CS] =
        (struct aioemu_x86_segment){.base = 0xffff0000, .limit = 0xffff, .selector = 0xf000, .rights = 0x9b};
    s.ldt = (struct aioemu_x86_segment){.limit = 0xffff, .rights = 0x82};
    s.tr = (struct aioemu_x86_segment){.limit = 0xffff, .rights = 0x8b};
    s.gdt.limit = s.idt.limit = 0xffff;
    s.cr0 = 0x60000010;
    s.rip = 0xfff0;
    s.rflags = 2;
    s.gpr[GPR_RDX] = 0x600;
    s.pat = 0x0007040600070406;
    atomic_store(&v->events, 0);
    return stock_set_state(vcpu, &s);
}

int stock_sipi(aioemu_vcpu *vcpu, uint8_t vector) {
    struct aioemu_x86_state s = {.size = sizeof s};
    int rc = stock_get_state(vcpu, &s);
    if (rc == 0) {
        s.seg[SEG_CS].selector = (uint16_t)(vector << 8);
        s.seg[SEG_CS].base = (uint64_t)vector << 12;
        s.rip = 0;
        s.halted = 0;
        rc = stock_set_state(vcpu, &s);
    }
    return rc;
}
