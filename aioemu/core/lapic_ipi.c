/* lapic_ipi.c: interprocessor interrupts and destinations (Intel SDM vol. 3, 11.6). The guest is not trusted. */
#include "intc.h"

enum {
    ICR_ASSERT = 1u << 14,
    ICR_LEVEL = 1u << 15,
    DFR_FLAT = 0xf,
};

/* Logical destinations: flat, or a cluster in the high nibble and its members in the low one (11.6.2.2). */
bool lapic_matches(const struct lapic *apic, uint8_t destination, bool logical) {
    uint32_t mine = apic->ldr >> 24;
    if (!logical) {
        return destination == 0xff || destination == apic->id;
    }
    if (apic->dfr >> 28 == DFR_FLAT) {
        return mine & destination;
    }
    bool same_cluster = destination >> 4 == 0xf || destination >> 4 == mine >> 4;
    return same_cluster && (mine & destination & 0xf);
}

static void send_to(struct lapic *from, const struct intc_message *message, uint32_t shorthand) {
    struct core_intc *intc = from->intc;
    switch (shorthand) {
    case 0: intc_deliver(intc, message); break;
    case 1: intc_deliver_to(intc, message, from->index); break;
    default:
        for (uint32_t i = 0; i < intc->cpu_count; i++) {
            if (shorthand == 2 || i != from->index) {
                intc_deliver_to(intc, message, i);
            }
        }
    }
}

void lapic_send(struct lapic *apic) {
    uint32_t icr = apic->icr_low;
    struct intc_message message = {
        .vector = icr & 0xff,
        .mode = icr >> 8 & 7,
        .logical = icr >> 11 & 1,
        .destination = (uint8_t)(apic->icr_high >> 24),
    };
    uint32_t shorthand = icr >> 18 & 3;
    bool deassert = message.mode == MODE_INIT && (icr & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL;
    bool by_vector = message.mode == MODE_FIXED || message.mode == MODE_LOWEST;
    if (deassert || message.mode == MODE_EXTINT || message.mode == MODE_RESERVED) {
        return; /* INIT level de-assert only synchronised arbitration on the P6 bus */
    }
    if (by_vector && message.vector < LAPIC_FIRST_VECTOR) {
        lapic_error(apic, LAPIC_ERROR_SEND_VECTOR);
        return;
    }
    if (shorthand == 1 && !by_vector) {
        return; /* table 11-3: a processor sends itself fixed interrupts only */
    }
    send_to(apic, &message, shorthand);
}
