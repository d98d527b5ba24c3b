/* tcg_stock_trap.c: exceptions and interrupts through the guest's tables, on the image of a stock library's processor.
 *
 * Long mode, 32-bit protected mode and real mode (Intel SDM vol. 3, chapter 6). Not here: task gates, virtual-8086
 * mode, 16-bit gates: they end in shutdown, as does a fault while a double fault is delivered. Nothing of the guest's
 * tables is trusted.
 */
#include <errno.h>
#include <string.h>

#include "tcg_stock.h"

enum { VECTOR_DF = 8, VECTOR_TS = 10, VECTOR_NP = 11, VECTOR_SS = 12, VECTOR_GP = 13, VECTOR_PF = 14, GPR_RSP = 4 };

static const uint64_t ADDRESS = 0x000ffffffffff000;
static const uint64_t CLEARED = 0x34100; /* TF, NT, RF, VM; an interrupt gate also IF */

/* ---- guest memory --------------------------------------------------------------------------------------------------- */

static uint8_t *host(const struct stock *stock, uint64_t gpa, uint32_t size) {
    for (uint32_t i = 0; i < stock->ram_count; i++) {
        const struct stock_ram *ram = &stock->ram[i];
        if (gpa >= ram->gpa && gpa - ram->gpa < ram->size && size <= ram->size - (gpa - ram->gpa)) {
            return ram->host + (gpa - ram->gpa);
        }
    }
    return NULL;
}

static uint64_t entry_at(const struct stock *stock, uint64_t gpa, uint32_t size) {
    uint64_t entry = 0;
    const uint8_t *from = host(stock, gpa, size);
    if (from) {
        memcpy(&entry, from, size);
    }
    return entry;
}

/* Walk (levels) tables of 8-byte entries from (table). */
static bool walk(const struct stock *stock, uint64_t table, int levels, uint64_t gva, uint64_t *gpa) {
    for (int level = levels - 1; level >= 0; level--) {
        int shift = 12 + 9 * level;
        uint64_t index = gva >> shift & (level == 2 && levels == 3 ? 3 : 511);
        uint64_t entry = entry_at(stock, table + 8 * index, 8);
        if (!(entry & 1)) {
            return false;
        }
        uint64_t within = (1ull << shift) - 1;
        if (level == 0 || ((entry & 0x80) && !(level == 2 && levels == 3))) {
            *gpa = (entry & ADDRESS & ~within) | (gva & within);
            return true;
        }
        table = entry & ADDRESS;
    }
    return false;
}

static bool walk32(const struct stock *stock, uint64_t cr3, bool pse, uint32_t gva, uint64_t *gpa) {
    uint64_t directory = entry_at(stock, (cr3 & 0xfffff000) + 4ull * (gva >> 22), 4);
    if (!(directory & 1)) {
        return false;
    }
    if (pse && (directory & 0x80)) {
        *gpa = (directory & 0xffc00000) | (gva & 0x3fffff);
        return true;
    }
    uint64_t entry = entry_at(stock, (directory & 0xfffff000) + 4ull * (gva >> 12 & 0x3ff), 4);
    *gpa = (entry & 0xfffff000) | (gva & 0xfff);
    return entry & 1;
}

static bool translate(struct stock_vcpu *v, uint64_t gva, uint64_t *gpa) {
    const uint64_t *cr = env64(v, ENV_CR);
    if (!(cr[0] >> 31 & 1)) {
        *gpa = (uint32_t)gva;
        return true;
    }
    if (*env32(v, ENV_HFLAGS) & HF_LMA) {
        return walk(v->stock, cr[3] & ADDRESS, 4, gva, gpa);
    }
    if (cr[4] & 0x20) {
        return walk(v->stock, cr[3] & 0xffffffe0, 3, (uint32_t)gva, gpa);
    }
    return walk32(v->stock, cr[3], cr[4] & 0x10, (uint32_t)gva, gpa);
}

int stock_translate(aioemu_vcpu *vcpu, uint64_t gva, uint64_t *gpa) {
    struct stock_vcpu *v = (struct stock_vcpu *)vcpu;
    if (v->stock->loaded == v) {
        stock_fetch(v);
    }
    return translate(v, gva, gpa) ? 0 : -EFAULT;
}

static bool copy(struct stock_vcpu *v, uint64_t gva, void *data, uint32_t size, bool write) {
    uint8_t *bytes = data;
    for (uint32_t done = 0; done < size; done++) {
        uint64_t gpa;
        uint8_t *at = translate(v, gva + done, &gpa) ? host(v->stock, gpa, 1) : NULL;
        if (!at) {
            return false;
        }
        if (write) {
            *at = bytes[done];
        } else {
            bytes[done] = *at;
        }
    }
    return true;
}

/* ---- one delivery: 0, or the vector and error code of the fault that it met -------------------------------------------- */

struct trap {
    uint8_t vector;
    enum stock_cause cause;
    bool has_error;
    uint32_t error;
    uint64_t rflags;
};

struct fault {
    int vector; /* 0: none */
    uint32_t error;
};

static const struct fault none = {0, 0};

static bool pushes_error(uint8_t vector) {
    return vector == VECTOR_DF || (vector >= VECTOR_TS && vector <= VECTOR_PF) || vector == 17 || vector == 21;
}

static struct fault fault(int vector, uint32_t error) {
    return (struct fault){vector, error};
}

static struct stock_segment from_descriptor(uint16_t selector, uint64_t d) {
    uint32_t limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));
    return (struct stock_segment){
        .selector = selector,
        .base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
        .limit = d >> 55 & 1 ? limit << 12 | 0xfff : limit,
        .flags = d >> 32 & 0x00f0ff00,
    };
}

static bool read_descriptor(struct stock_vcpu *v, uint16_t selector, uint64_t *d) {
    const struct stock_segment *gdt = env_segment(v, ENV_GDT, 0);
    return !(selector & 4) && (selector | 7u) <= gdt->limit && copy(v, gdt->base + (selector & ~7u), d, 8, false);
}

static uint32_t cpl(struct stock_vcpu *v) {
    return *env32(v, ENV_HFLAGS) & HF_CPL;
}

static void enter(struct stock_vcpu *v, const struct stock_segment *cs, uint32_t level, uint64_t rip, bool keeps_if) {
    uint32_t *hflags = env32(v, ENV_HFLAGS);
    struct stock_segment *place = env_segment(v, ENV_SEGMENTS, SEG_CS);
    *place = *cs;
    place->selector = (cs->selector & ~3u) | level;
    *hflags = (*hflags & ~(uint32_t)(HF_CPL | HF_SHADOW | HF_CS32 | HF_CS64)) | level;
    *hflags |= cs->flags >> 21 & 1 ? HF_CS64 | HF_CS32 : cs->flags >> 22 & 1 ? HF_CS32 : 0;
    *env64(v, ENV_EFLAGS) &= ~(CLEARED | (keeps_if ? 0 : 0x200));
    *env64(v, ENV_RIP) = rip;
    *env32(v, ENV_OLD_EXCEPTION) = UINT32_MAX;
}

/* The gate's code segment: its descriptor and the level it runs at. */
static struct fault find_code(struct stock_vcpu *v, uint16_t selector, struct stock_segment *cs, uint32_t *level) {
    uint64_t d;
    if (!(selector & ~3u) || !read_descriptor(v, selector, &d)) {
        return fault(VECTOR_GP, selector & ~3u);
    }
    *cs = from_descriptor(selector, d);
    uint32_t dpl = cs->flags >> 13 & 3;
    if ((cs->flags & 0x1800) != 0x1800 || dpl > cpl(v)) {
        return fault(VECTOR_GP, selector & ~3u);
    }
    if (!(cs->flags >> 15 & 1)) {
        return fault(VECTOR_NP, selector & ~3u);
    }
    *level = cs->flags & 0x400 ? cpl(v) : dpl;
    return none;
}

static struct fault deliver64(struct stock_vcpu *v, const struct trap *trap) {
    const struct stock_segment *idt = env_segment(v, ENV_IDT, 0);
    uint32_t code = trap->vector * 8u + 2, level;
    uint64_t gate[2], rsp = *env64(v, ENV_GPR + 8 * GPR_RSP);
    struct stock_segment cs, *ss = env_segment(v, ENV_SEGMENTS, SEG_SS);
    if (trap->vector * 16u + 15 > idt->limit || !copy(v, idt->base + trap->vector * 16u, gate, 16, false)) {
        return fault(VECTOR_GP, code);
    }
    uint32_t type = gate[0] >> 40 & 0x1f, ist = gate[0] >> 32 & 7;
    bool forbidden = trap->cause == CAUSE_SOFTWARE && (gate[0] >> 45 & 3) < cpl(v);
    if ((type != 14 && type != 15) || forbidden) {
        return fault(VECTOR_GP, code);
    }
    if (!(gate[0] >> 47 & 1)) {
        return fault(VECTOR_NP, code);
    }
    struct fault met = find_code(v, (uint16_t)(gate[0] >> 16), &cs, &level);
    if (met.vector) {
        return met;
    }
    bool new_stack = ist || level < cpl(v);
    if (new_stack && !copy(v, env_segment(v, ENV_TR, 0)->base + 4 + 8 * (ist ? ist + 3 : level), &rsp, 8, false)) {
        return fault(VECTOR_TS, env_segment(v, ENV_TR, 0)->selector & ~3u);
    }
    uint64_t frame[6] = {trap->error,
                         *env64(v, ENV_RIP),
                         env_segment(v, ENV_SEGMENTS, SEG_CS)->selector,
                         trap->rflags,
                         *env64(v, ENV_GPR + 8 * GPR_RSP),
                         ss->selector};
    uint32_t skip = trap->has_error ? 0 : 1;
    rsp = (rsp & ~15ull) - 8ull * (6 - skip);
    if (!copy(v, rsp, frame + skip, 8 * (6 - skip), true)) {
        return fault(VECTOR_SS, 0);
    }
    if (level < cpl(v)) {
        *ss = (struct stock_segment){.selector = level, .flags = level << 13};
        *env32(v, ENV_HFLAGS) &= ~(uint32_t)HF_SS32;
    }
    *env64(v, ENV_GPR + 8 * GPR_RSP) = rsp;
    enter(v, &cs, level, (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32, type & 1);
    return none;
}

/* The stack of a more privileged level, from a 32-bit TSS. */
static struct fault find_stack(struct stock_vcpu *v, uint32_t level, struct stock_segment *ss, uint32_t *esp) {
    const struct stock_segment *tr = env_segment(v, ENV_TR, 0);
    struct {
        uint32_t esp;
        uint16_t ss;
    } __attribute__((packed)) stack;
    uint64_t d;
    if (!copy(v, tr->base + 4 + 8ull * level, &stack, sizeof stack, false)) {
        return fault(VECTOR_TS, tr->selector & ~3u);
    }
    if (!read_descriptor(v, stack.ss, &d) || (d >> 44 & 1) == 0 || !(d >> 47 & 1)) {
        return fault(VECTOR_TS, stack.ss & ~3u);
    }
    *ss = from_descriptor(stack.ss, d);
    *esp = stack.esp;
    return none;
}

static struct fault deliver32(struct stock_vcpu *v, const struct trap *trap) {
    const struct stock_segment *idt = env_segment(v, ENV_IDT, 0);
    uint32_t code = trap->vector * 8u + 2, level, esp = (uint32_t)*env64(v, ENV_GPR + 8 * GPR_RSP);
    uint64_t gate;
    struct stock_segment cs, ss = *env_segment(v, ENV_SEGMENTS, SEG_SS);
    if (trap->vector * 8u + 7 > idt->limit || !copy(v, idt->base + trap->vector * 8u, &gate, 8, false)) {
        return fault(VECTOR_GP, code);
    }
    uint32_t type = gate >> 40 & 0x1f;
    if ((type != 14 && type != 15) || (trap->cause == CAUSE_SOFTWARE && (gate >> 45 & 3) < cpl(v))) {
        return fault(VECTOR_GP, code);
    }
    struct fault met = gate >> 47 & 1 ? find_code(v, (uint16_t)(gate >> 16), &cs, &level) : fault(VECTOR_NP, code);
    bool inward = !met.vector && level < cpl(v);
    if (inward) {
        met = find_stack(v, level, &ss, &esp);
    }
    if (met.vector) {
        return met;
    }
    uint32_t frame[6] = {trap->error,
                         (uint32_t)*env64(v, ENV_RIP),
                         env_segment(v, ENV_SEGMENTS, SEG_CS)->selector,
                         (uint32_t)trap->rflags,
                         (uint32_t)*env64(v, ENV_GPR + 8 * GPR_RSP),
                         env_segment(v, ENV_SEGMENTS, SEG_SS)->selector};
    uint32_t skip = trap->has_error ? 0 : 1, words = (inward ? 6 : 4) - skip;
    esp -= 4 * words;
    esp &= ss.flags >> 22 & 1 ? UINT32_MAX : 0xffff;
    if (!copy(v, ss.base + esp, frame + skip, 4 * words, true)) {
        return fault(VECTOR_SS, 0);
    }
    *env_segment(v, ENV_SEGMENTS, SEG_SS) = ss;
    uint32_t *hflags = env32(v, ENV_HFLAGS);
    *hflags = (*hflags & ~(uint32_t)HF_SS32) | (ss.flags >> 22 & 1 ? HF_SS32 : 0);
    *env64(v, ENV_GPR + 8 * GPR_RSP) = esp;
    enter(v, &cs, level, (gate & 0xffff) | (gate >> 32 & 0xffff0000), type & 1);
    return none;
}

static struct fault deliver16(struct stock_vcpu *v, const struct trap *trap) {
    uint16_t target[2], frame[3] = {(uint16_t)*env64(v, ENV_RIP), 0, (uint16_t)trap->rflags};
    struct stock_segment *cs = env_segment(v, ENV_SEGMENTS, SEG_CS);
    if (!copy(v, env_segment(v, ENV_IDT, 0)->base + 4u * trap->vector, target, 4, false)) {
        return fault(VECTOR_GP, 0);
    }
    uint64_t *rsp = env64(v, ENV_GPR + 8 * GPR_RSP);
    uint16_t sp = (uint16_t)(*rsp - sizeof frame);
    frame[1] = (uint16_t)cs->selector;
    if (!copy(v, env_segment(v, ENV_SEGMENTS, SEG_SS)->base + sp, frame, sizeof frame, true)) {
        return fault(VECTOR_SS, 0);
    }
    *rsp = (*rsp & ~0xffffull) | sp;
    cs->selector = target[1];
    cs->base = (uint64_t)target[1] << 4;
    *env64(v, ENV_EFLAGS) &= ~(CLEARED | 0x200);
    *env32(v, ENV_HFLAGS) &= ~(uint32_t)HF_SHADOW;
    *env64(v, ENV_RIP) = target[0];
    *env32(v, ENV_OLD_EXCEPTION) = UINT32_MAX;
    return none;
}

/* The library has stepped over INT n before it asks; a fault belongs to the instruction itself. */
static void step_back(struct stock_vcpu *v, uint8_t vector) {
    uint8_t code[2] = {0};
    uint64_t *rip = env64(v, ENV_RIP);
    bool read = copy(v, env_segment(v, ENV_SEGMENTS, SEG_CS)->base + *rip - 2, code, 2, false);
    *rip -= read && code[0] == 0xcd && code[1] == vector ? 2 : 1;
}

/* A fault while a trap is delivered is delivered itself; while a fault is, it is a double fault; while that is, the
 * processor shuts down (SDM vol. 3, 6.15, interrupt 8). */
void stock_deliver(struct stock_vcpu *v, uint8_t vector, enum stock_cause cause, uint32_t error) {
    struct trap trap = {.vector = vector, .cause = cause, .error = error, .rflags = stock_reg(v, UC_REG_RFLAGS)};
    for (;;) {
        uint32_t hflags = *env32(v, ENV_HFLAGS);
        trap.has_error = trap.cause == CAUSE_EXCEPTION && pushes_error(trap.vector) && (hflags & HF_PE);
        struct fault met = trap.rflags & 0x20000 ? fault(VECTOR_DF, 0)
                           : hflags & HF_LMA     ? deliver64(v, &trap)
                           : hflags & HF_PE      ? deliver32(v, &trap)
                                                 : deliver16(v, &trap);
        if (!met.vector) {
            return;
        }
        if (trap.vector == VECTOR_DF && trap.cause == CAUSE_EXCEPTION) {
            v->shutdown = true;
            return;
        }
        if (trap.cause == CAUSE_SOFTWARE) {
            step_back(v, trap.vector);
        }
        bool serious = trap.cause == CAUSE_EXCEPTION && pushes_error(trap.vector);
        trap.vector = serious ? VECTOR_DF : (uint8_t)met.vector;
        trap.error = serious ? 0 : met.error | (trap.cause == CAUSE_EXTERNAL);
        trap.cause = CAUSE_EXCEPTION;
    }
}
