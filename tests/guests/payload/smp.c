/* smp.c: application processors, started by INIT and SIPI (SDM 3A 9.4.4) and then fed with work. */
#include "guest.h"

#define ICR_INIT       0x500
#define ICR_STARTUP    0x600
#define START_LIMIT_US 5000000

extern volatile uint32_t ap_limit;
extern uint8_t ap_trampoline[], ap_trampoline_end[];

static uint32_t online(void) {
    uint32_t count = 0;

    for (uint32_t i = 0; i < MAX_CPUS; i++)
        count += cpu_at(i)->online;
    return count;
}

/* The second SIPI of the manual goes out only if the first one started too few. */
uint32_t smp_start(uint32_t wanted) {
    apic_init();
    this_cpu()->apic_id = apic_id();
    if (wanted > MAX_CPUS)
        wanted = MAX_CPUS;
    ap_limit = wanted;
    for (uint32_t i = 0; ap_trampoline + i < ap_trampoline_end; i++)
        ((volatile uint8_t *)AP_TRAMPOLINE)[i] = ap_trampoline[i];
    if (online() < wanted) {
        apic_send(0, LAPIC_ICR_OTHERS | ICR_INIT);
        spin_us(10000);
    }
    for (int try = 0; try < 2 && online() < wanted; try++) {
        uint64_t waited = 0;

        apic_send(0, LAPIC_ICR_OTHERS | ICR_STARTUP | AP_TRAMPOLINE >> 12);
        for (; online() < wanted && waited < START_LIMIT_US / 2; waited += 100)
            spin_us(100);
    }
    return online();
}

void smp_serve(struct cpu *cpu) {
    apic_init();
    cpu->apic_id = apic_id();
    cpu->online = true;
    for (;;) {
        while (!cpu->work)
            pause();
        cpu->work(cpu);
        __atomic_store_n(&cpu->work, NULL, __ATOMIC_RELEASE);
    }
}

void smp_run(uint32_t cpus, void (*work)(struct cpu *)) {
    for (uint32_t i = 1; i < cpus; i++)
        __atomic_store_n(&cpu_at(i)->work, work, __ATOMIC_RELEASE);
    work(cpu_at(0));
    for (uint32_t i = 1; i < cpus; i++)
        while (__atomic_load_n(&cpu_at(i)->work, __ATOMIC_ACQUIRE))
            pause();
}
