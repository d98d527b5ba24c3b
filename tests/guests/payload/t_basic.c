/* t_basic.c: the guest's own CPU and memory: identity, RAM patterns, counters, code that changes itself. */
#include "tests.h"

#define PAGE        4096
#define JIT_ALIAS   0x4000000000ul
#define MOV_EAX_RET 0xb8 /* mov $imm32, %eax; followed by ret */

int test_hello(void) {
    uint64_t cs;

    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    print("hello from level %lu: %s\n", cs & 3, arg_command_line());
    return 0;
}

/* Print the PVH start information: memory map, modules, command line. */
int test_info(void) {
    const uint32_t *head = (const uint32_t *)start_info();
    const uint64_t *at = (const uint64_t *)start_info();

    print("info: magic 0x%x version %u modules %u rsdp 0x%lx\n", head[0], head[1], head[3], at[4]);
    for (uint32_t i = 0; i < head[3] && i < 8; i++) {
        const uint64_t *module = (const uint64_t *)reach(at[2]) + i * 4;

        print("info: module 0x%lx size 0x%lx\n", module[0], module[1]);
    }
    for (uint32_t i = 0; head[1] >= 1 && i < head[12] && i < 64; i++) {
        const uint64_t *entry = (const uint64_t *)reach(at[5]) + i * 3;

        print("info: memory 0x%lx size 0x%lx type %u\n", entry[0], entry[1], (uint32_t)entry[2]);
    }
    return head[0] == 0x336ec578 ? 0 : fail("start info magic 0x%x", head[0]);
}

int test_acpi(void) {
    const struct acpi *acpi = acpi_find();

    print("{\"test\":\"acpi\",\"tables\":%u,\"bad\":%u,\"cpus\":%u,\"mcfg\":%lu,\"pm1a\":%u,\"timer\":%u}\n",
          acpi->tables, acpi->bad_checksums, acpi->cpus, acpi->mcfg, acpi->pm1a_control, acpi->pm_timer);
    if (!acpi->rsdp)
        return fail("no RSDP");
    return acpi->bad_checksums ? fail("%u bad checksums", acpi->bad_checksums) : 0;
}

/* cpuid leaf=N sub=M */
int test_cpuid(void) {
    uint32_t leaf = (uint32_t)arg("leaf", 0), sub = (uint32_t)arg("sub", 0), r[4];

    cpuid(leaf, sub, r);
    print("{\"test\":\"cpuid\",\"leaf\":%u,\"sub\":%u,\"eax\":%u,\"ebx\":%u,\"ecx\":%u,\"edx\":%u}\n", leaf, sub, r[0],
          r[1], r[2], r[3]);
    return 0;
}

static void touch_msr(uint64_t index, uint64_t unused) {
    (void)unused;
    print("{\"test\":\"msr\",\"index\":%lu,\"value\":%lu}\n", index, msr_read((uint32_t)index));
}

/* msr index=N: its value, or the exception reading it raises. */
int test_msr(void) {
    if (!survives(touch_msr, arg("index", 0x1b), 0))
        print("{\"test\":\"msr\",\"index\":%lu,\"fault\":%lu}\n", arg("index", 0x1b), this_cpu()->fault_vector);
    return 0;
}

/* flood lines=N: numbered lines of 64 bytes, to see that a slow reader loses none. */
int test_flood(void) {
    for (uint32_t i = 0, n = (uint32_t)arg("lines", 100); i < n; i++)
        print("%08u abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01\n", i);
    return 0;
}

/* Polled: each line typed comes back in brackets; `quit` ends. */
int test_echo(void) {
    char line[128];
    uint32_t len = 0;

    print("echo: ready\n");
    for (;;) {
        char c;

        while (!(inb(0x3fd) & 1))
            pause();
        c = (char)inb(0x3f8);
        if (c != '\n' && c != '\r') {
            if (len < sizeof(line) - 1)
                line[len++] = c;
            continue;
        }
        line[len] = 0;
        if (same(line, len, "quit"))
            return 0;
        print("[%s]\n", line);
        len = 0;
    }
}

/* memory from=A to=B: every word holds its own address times an odd number; each page is checked after all are written. */
int test_memory(void) {
    uint64_t from = arg("from", 0x1000000), to = arg("to", 0x2000000), mult = arg("mult", 0x9e3779b97f4a7c15);

    for (uint64_t page = from & ~0x1ffffful; page < to; page += 0x200000)
        (void)reach(page);
    if (!arg("check", 0))
        for (uint64_t at = from; at < to; at += 8)
            *(volatile uint64_t *)at = at * mult;
    for (uint64_t at = from; at < to; at += 8)
        if (*(volatile uint64_t *)at != at * mult)
            return fail("0x%lx holds 0x%lx", at, *(volatile uint64_t *)at);
    print("memory: %lu bytes at 0x%lx\n", to - from, from);
    return 0;
}

/* The host reads these: a counter for each CPU, one per cache line, behind a magic word. */
static struct {
    uint64_t magic, cpus, stop, unused[5];
    volatile uint64_t count[MAX_CPUS][8];
} load __attribute__((aligned(PAGE)));

static void load_work(struct cpu *cpu) {
    uint64_t end = arg("ms", 0), now = tsc();

    end = end ? now + end * tsc_per_ms() : UINT64_MAX;
    while (tsc() < end && !*(volatile uint64_t *)&load.stop)
        for (int i = 0; i < 1000; i++)
            load.count[cpu->index][0]++;
}

/* load cpus=N ms=T: all CPUs count in RAM, for ever without ms, or until the host sets the word at +16. */
int test_load(void) {
    load.cpus = smp_start((uint32_t)arg("cpus", 1));
    load.magic = 0x64616f6c; /* "load" */
    print("{\"test\":\"load\",\"address\":%lu,\"cpus\":%lu,\"tsc_per_ms\":%lu}\n", (uint64_t)&load, load.cpus,
          tsc_per_ms());
    smp_run((uint32_t)load.cpus, load_work);
    for (uint32_t i = 0; i < load.cpus; i++)
        print("load: cpu %u counted %lu\n", i, load.count[i][0]);
    return 0;
}

/* rmw n=N: a counter in memory and one in a register must agree however often the host stops the CPU. */
int test_rmw(void) {
    static volatile uint64_t in_memory;
    uint64_t rounds = arg("n", 1000);

    print("rmw: counting\n");
    for (uint64_t round = 1; round <= rounds; round++) {
        uint64_t in_register = 0, left = 100000;

        in_memory = 0;
        __asm__ volatile("1: incq %0; incq %1; decq %2; jnz 1b"
                         : "+m"(in_memory), "+r"(in_register), "+r"(left)
                         :
                         : "cc");
        if (in_memory != in_register)
            return fail("round %lu: memory %lu register %lu", round, in_memory, in_register);
    }
    return 0;
}

/* jit n=N alias=0|1: rewrite a function (through a second mapping if alias) and call it; count stale calls. */
int test_jit(void) {
    static uint8_t code[PAGE] __attribute__((aligned(PAGE)));
    uint64_t rounds = arg("n", 10000), stale = 0, at = (uint64_t)code;
    volatile uint8_t *write = code;

    if (arg("alias", 0)) {
        map_2m(JIT_ALIAS, at);
        write = (volatile uint8_t *)(JIT_ALIAS + (at & 0x1fffff));
    }
    for (uint32_t i = 0; i < rounds; i++) {
        uint32_t got;

        write[0] = MOV_EAX_RET;
        write[1] = (uint8_t)i;
        write[2] = (uint8_t)(i >> 8);
        write[3] = (uint8_t)(i >> 16);
        write[4] = (uint8_t)(i >> 24);
        write[5] = 0xc3;
        /* a serialising instruction between the write and the call (SDM 3A 9.1.3) */
        __asm__ volatile("xor %%eax, %%eax; cpuid" : : : "eax", "ebx", "ecx", "edx", "memory");
        __asm__ volatile("call *%1" : "=a"(got) : "r"(at) : "memory");
        stale += got != i;
    }
    print("{\"test\":\"jit\",\"calls\":%lu,\"stale\":%lu}\n", rounds, stale);
    return stale ? fail("%lu stale calls", stale) : 0;
}
