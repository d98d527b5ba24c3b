/* t_smp.c: several CPUs: start, shared counters, interrupts from one to another. */
#include "tests.h"

#define VECTOR_IPI    0x50
#define WAIT_LIMIT_US 2000000

static volatile uint64_t shared, plain[MAX_CPUS][8];
static volatile uint64_t arrived[MAX_CPUS][8];

static void count_together(struct cpu *cpu) {
    uint64_t n = arg("n", 10000);

    for (uint64_t i = 0; i < n; i++) {
        __atomic_fetch_add(&shared, 1, __ATOMIC_SEQ_CST);
        plain[cpu->index][0]++;
    }
    print("smp: cpu %u apic %u counted %lu\n", cpu->index, cpu->apic_id, plain[cpu->index][0]);
}

/* smp cpus=N n=M: start them (as many as the MADT lists), count together atomically, print one line each. */
int test_smp(void) {
    uint32_t wanted = (uint32_t)arg("cpus", 0), cpus;

    if (!wanted)
        wanted = acpi_find()->cpus;
    cpus = smp_start(wanted);
    print("{\"test\":\"smp\",\"wanted\":%u,\"started\":%u}\n", wanted, cpus);
    if (cpus != wanted)
        return fail("%u of %u CPUs started", cpus, wanted);
    smp_run(cpus, count_together);
    if (shared != cpus * arg("n", 10000))
        return fail("counted %lu", shared);
    return 0;
}

static void on_ipi(struct frame *frame) {
    (void)frame;
    arrived[this_cpu()->index][0]++;
    k_eoi();
}

static volatile bool done;

static void receive(struct cpu *cpu) {
    (void)cpu;
    irqs_on();
    while (!done)
        pause();
    irqs_off();
}

/* Send and wait for the other side's count; false after WAIT_LIMIT_US. */
static bool send_and_wait(uint32_t target, uint32_t command, uint64_t until) {
    uint64_t limit = tsc() + WAIT_LIMIT_US / 1000 * tsc_per_ms();

    apic_send(cpu_at(target)->apic_id, command);
    while (arrived[target][0] < until)
        if (tsc() > limit)
            return false;
    return true;
}

/* ipi n=N cpus=1|2: cycles from the command to the handler's count, to itself or to the other CPU. */
int test_ipi(void) {
    uint32_t n = (uint32_t)arg("n", 1000), cpus = smp_start((uint32_t)arg("cpus", 2)), target = cpus > 1;

    if (cpus != arg("cpus", 2))
        return fail("%u CPUs started", cpus);
    irq_handler(VECTOR_IPI, on_ipi);
    (void)tsc_per_ms();
    done = false;
    if (target)
        cpu_at(1)->work = receive;
    else
        irqs_on();
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = tsc();

        if (!send_and_wait(target, target ? VECTOR_IPI : LAPIC_ICR_FIXED_SELF | VECTOR_IPI, i + 1))
            return fail("interrupt %u did not arrive", i);
        sample(i, tsc() - start);
    }
    done = true;
    irqs_off();
    samples_print("ipi", n);
    return 0;
}

static void flood(struct cpu *cpu) {
    (void)cpu;
    irqs_on();
    for (uint64_t i = 0, n = arg("n", 10000); i < n; i++)
        apic_send(0, LAPIC_ICR_OTHERS | VECTOR_IPI);
    irqs_off();
}

/* ipi-flood n=N cpus=M: every CPU interrupts all others as fast as it can. Merged ones are fine; hanging is not. */
int test_ipi_flood(void) {
    uint32_t cpus = smp_start((uint32_t)arg("cpus", 2));

    irq_handler(VECTOR_IPI, on_ipi);
    smp_run(cpus, flood);
    for (uint32_t i = 0; i < cpus; i++)
        print("ipi-flood: cpu %u took %lu\n", i, arrived[i][0]);
    return 0;
}
