/* tcg_state.c: processor state between the core's form and the engine's. Control thread, the machine is paused.
 *
 * The thread may stand inside the engine, in an access that waits for its answer: a new state then waits beside and
 * comes into force when the access is done (tcg_apply_overrides). What core_cpu_state has no field for is kept.
 */
#include <errno.h>
#include <string.h>

#include "tcg.h"

enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

int tcg_load_state(struct tcg_vcpu *c, struct aioemu_x86_state *s) {
    if (c->overridden) {
        *s = c->override;
        return 0;
    }
    memset(s, 0, sizeof *s);
    s->size = sizeof *s;
    return c->tcg->api.x86_get_state(c->cpu, s);
}

int tcg_store_state(struct tcg_vcpu *c, const struct aioemu_x86_state *s) {
    struct tcg *tcg = c->tcg;
    if (!atomic_load(&tcg->in_engine)) {
        return tcg->api.x86_set_state(c->cpu, s);
    }
    c->override = *s;
    c->overridden = true;
    atomic_store(&tcg->any_override, true);
    tcg_kick(c->vcpu->thread);
    return 0;
}

/* A state that was read earlier may have undone a request that came meanwhile. */
static void ask_again(struct tcg_vcpu *c) {
    pthread_mutex_lock(&c->tcg->intc.lock);
    lapic_update(c->tcg->intc.cpu[c->vcpu->index]);
    pthread_mutex_unlock(&c->tcg->intc.lock);
}

void tcg_apply_overrides(struct tcg *tcg) {
    atomic_store(&tcg->any_override, false);
    for (uint32_t i = 0; i < tcg->cpu_count; i++) {
        struct tcg_vcpu *c = tcg->cpu[i];
        if (c->overridden) {
            c->overridden = false;
            tcg->api.x86_set_state(c->cpu, &c->override);
            ask_again(c);
        }
    }
}

/* ---- conversion -------------------------------------------------------------------------------------------------------- */

static core_segment segment_out(const struct aioemu_x86_segment *s) {
    return (core_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = s->rights & 15,
        .s = s->rights >> 4 & 1,
        .dpl = s->rights >> 5 & 3,
        .present = s->rights >> 7 & 1,
        .avl = s->rights >> 12 & 1,
        .l = s->rights >> 13 & 1,
        .db = s->rights >> 14 & 1,
        .g = s->rights >> 15 & 1,
        .unusable = !(s->rights >> 7 & 1),
    };
}

static struct aioemu_x86_segment segment_in(const core_segment *s) {
    uint32_t present = s->present && !s->unusable;
    uint32_t rights = (s->type & 15u) | (s->s & 1u) << 4 | (s->dpl & 3u) << 5 | present << 7 | (s->avl & 1u) << 12 |
                      (s->l & 1u) << 13 | (s->db & 1u) << 14 | (s->g & 1u) << 15;
    return (struct aioemu_x86_segment){
        .base = s->base, .limit = s->limit, .selector = s->selector, .rights = (uint16_t)rights};
}

int tcg_get_state(struct core_vcpu *v, core_cpu_state *out) {
    struct tcg_vcpu *c = v->accel;
    struct aioemu_x86_state s;
    int rc = tcg_load_state(c, &s);
    if (rc < 0) {
        return rc;
    }
    const struct lapic *apic = c->tcg->intc.cpu[v->index];
    memcpy(out->gpr, s.gpr, sizeof out->gpr);
    out->rip = s.rip, out->rflags = s.rflags;
    out->es = segment_out(&s.seg[SEG_ES]), out->cs = segment_out(&s.seg[SEG_CS]);
    out->ss = segment_out(&s.seg[SEG_SS]), out->ds = segment_out(&s.seg[SEG_DS]);
    out->fs = segment_out(&s.seg[SEG_FS]), out->gs = segment_out(&s.seg[SEG_GS]);
    out->tr = segment_out(&s.tr), out->ldt = segment_out(&s.ldt);
    out->gdt_base = s.gdt.base, out->gdt_limit = (uint16_t)s.gdt.limit;
    out->idt_base = s.idt.base, out->idt_limit = (uint16_t)s.idt.limit;
    out->cr0 = s.cr0, out->cr2 = s.cr2, out->cr3 = s.cr3, out->cr4 = s.cr4, out->efer = s.efer;
    out->cr8 = apic->tpr >> 4;
    out->apic_base = apic->base;
    out->halted = s.halted;
    out->uninitialized = c->waits_for_sipi;
    return 0;
}

static int set_apic(struct tcg_vcpu *c, const core_cpu_state *in) {
    struct core_intc *intc = &c->tcg->intc;
    struct lapic *apic = intc->cpu[c->vcpu->index];
    pthread_mutex_lock(&intc->lock);
    int rc = in->apic_base == apic->base ? 0 : lapic_set_base(apic, in->apic_base);
    if (rc == 0 && in->cr8 != apic->tpr >> 4) {
        lapic_set_tpr(apic, (uint8_t)(in->cr8 << 4));
    }
    tcg_apic_moved(c);
    pthread_mutex_unlock(&intc->lock);
    return rc;
}

int tcg_set_state(struct core_vcpu *v, const core_cpu_state *in) {
    struct tcg_vcpu *c = v->accel;
    struct aioemu_x86_state s;
    int rc = in->cr8 > 15 ? -EINVAL : tcg_load_state(c, &s);
    if (rc < 0) {
        return rc;
    }
    memcpy(s.gpr, in->gpr, sizeof s.gpr);
    s.rip = in->rip, s.rflags = in->rflags;
    s.seg[SEG_ES] = segment_in(&in->es), s.seg[SEG_CS] = segment_in(&in->cs);
    s.seg[SEG_SS] = segment_in(&in->ss), s.seg[SEG_DS] = segment_in(&in->ds);
    s.seg[SEG_FS] = segment_in(&in->fs), s.seg[SEG_GS] = segment_in(&in->gs);
    s.tr = segment_in(&in->tr), s.ldt = segment_in(&in->ldt);
    s.gdt.base = in->gdt_base, s.gdt.limit = in->gdt_limit;
    s.idt.base = in->idt_base, s.idt.limit = in->idt_limit;
    s.cr0 = in->cr0, s.cr2 = in->cr2, s.cr3 = in->cr3, s.cr4 = in->cr4, s.efer = in->efer;
    s.halted = in->halted != 0;
    s.shutdown = 0;
    s.interrupt_shadow = 0;
    rc = tcg_store_state(c, &s);
    if (rc == 0) {
        c->waits_for_sipi = in->uninitialized != 0;
        c->shut_down = false;
        rc = set_apic(c, in);
        ask_again(c);
    }
    return rc;
}

/* Power-on: application processors wait for their start-up IPI. */
int tcg_reset(struct core_vcpu *v) {
    struct tcg_vcpu *c = v->accel;
    struct core_intc *intc = &c->tcg->intc;
    struct lapic *apic = intc->cpu[v->index];
    int rc = atomic_load(&c->tcg->in_engine) ? tcg_store_state(c, &c->power_on) : c->tcg->api.x86_reset(c->cpu, 0);
    pthread_mutex_lock(&intc->lock);
    lapic_reset(apic, true);
    tcg_apic_moved(c);
    c->events = 0;
    c->waits_for_sipi = v->index != 0;
    c->shut_down = false;
    c->spec_ctrl = c->mcg_status = c->tsc_adjust = 0;
    pthread_mutex_unlock(&intc->lock);
    return rc;
}
