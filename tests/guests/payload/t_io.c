/* t_io.c: exits: scripts of accesses, storms of one access, string I/O, access sizes, fuzzing, PCI configuration. */
#include "tests.h"

static uint8_t buffer[65536] __attribute__((aligned(4096)));

static void touch(uint64_t packed, uint64_t addr) {
    uint32_t size = packed & 0xff;
    uint64_t value = packed >> 16;

    if (packed & 0x100)
        mmio_write(addr, size, value);
    else
        (void)mmio_read(addr, size);
}

static bool access_ok(uint32_t size) {
    return size == 1 || size == 2 || size == 4 || size == 8;
}

/* One word `OPSIZE@ADDRESS[=VALUE]`: r w x(read and expect) for memory, i o y for ports, s@MICROSECONDS waits. */
static int script_step(const char *word, uint32_t len) {
    uint64_t addr, value = 0, got = 0;
    uint32_t size = (uint32_t)(word[1] - '0');
    const char *p;

    if (word[0] == 's' && len > 2 && parse_number(word + 2, &addr)) {
        spin_us(addr);
        return 0;
    }
    if (len < 4 || word[2] != '@' || !access_ok(size) || !(p = parse_number(word + 3, &addr)))
        return fail("not a step: %s", word);
    if (*p == '=')
        (void)parse_number(p + 1, &value);
    if (word[0] == 'w' || word[0] == 'o') {
        if (word[0] == 'w')
            mmio_write(reach(addr), size, value);
        else
            port_out((uint16_t)addr, size, (uint32_t)value);
        return 0;
    }
    got = word[0] == 'r' || word[0] == 'x' ? mmio_read(reach(addr), size) : port_in((uint16_t)addr, size);
    print("{\"test\":\"script\",\"op\":\"%c%u\",\"address\":%lu,\"value\":%lu}\n", word[0], size, addr, got);
    if ((word[0] == 'x' || word[0] == 'y') && got != value)
        return fail("0x%lx: got 0x%lx, expected 0x%lx", addr, got, value);
    return 0;
}

int test_script(void) {
    const char *word;
    uint32_t len;

    for (uint32_t n = 1; (word = arg_word(n, &len)); n++)
        if (script_step(word, len))
            return 1;
    return 0;
}

/* The same at level 0, which interpreting hosts reach at another price; lfence is not used: some refuse it. */
static uint64_t k_timed(uint64_t addr, uint64_t packed, uint64_t is_port) {
    uint32_t lo, hi, lo2, hi2, size = packed & 0xff, value = (uint32_t)(packed >> 16);

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    if (!is_port)
        touch(packed, addr);
    else if (packed & 0x100 && size == 1)
        __asm__ volatile("outb %b0, %w1" : : "a"(value), "d"(addr));
    else if (packed & 0x100 && size == 2)
        __asm__ volatile("outw %w0, %w1" : : "a"(value), "d"(addr));
    else if (packed & 0x100)
        __asm__ volatile("outl %0, %w1" : : "a"(value), "d"(addr));
    else if (size == 1)
        __asm__ volatile("inb %w1, %b0" : "+a"(value) : "d"(addr));
    else if (size == 2)
        __asm__ volatile("inw %w1, %w0" : "+a"(value) : "d"(addr));
    else
        __asm__ volatile("inl %w1, %0" : "+a"(value) : "d"(addr));
    __asm__ volatile("rdtsc" : "=a"(lo2), "=d"(hi2) : : "memory");
    return (((uint64_t)hi2 << 32) | lo2) - (((uint64_t)hi << 32) | lo);
}

/* storm mmio=A|port=P size=S op=read|write value=V n=N level=3|0: cycles of each access. */
int test_storm(void) {
    bool is_port = arg("port", UINT64_MAX) != UINT64_MAX;
    uint64_t addr = is_port ? arg("port", 0) : reach(arg("mmio", 0xfeb00000));
    uint64_t packed = arg("size", is_port ? 1 : 4) | (arg_is("op", "write") ? 0x100 : 0) | arg("value", 0) << 16;
    uint32_t n = (uint32_t)arg("n", 1000);

    if (!access_ok(packed & 0xff))
        return fail("size %lu", packed & 0xff);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = tsc();

        if (is_port || !arg("level", 3)) {
            sample(i, at_cpl0(k_timed, addr, packed, is_port));
        } else {
            touch(packed, addr);
            sample(i, tsc() - start);
        }
    }
    samples_print("storm", n);
    return 0;
}

static uint64_t k_string(uint64_t port, uint64_t packed, uint64_t count) {
    void *at = buffer + (packed >> 16);

    switch (packed & 0x1ff) {
    case 0x101: __asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(port) : "memory"); break;
    case 0x102: __asm__ volatile("rep outsw" : "+S"(at), "+c"(count) : "d"(port) : "memory"); break;
    case 0x104: __asm__ volatile("rep outsl" : "+S"(at), "+c"(count) : "d"(port) : "memory"); break;
    case 0x001: __asm__ volatile("rep insb" : "+D"(at), "+c"(count) : "d"(port) : "memory"); break;
    case 0x002: __asm__ volatile("rep insw" : "+D"(at), "+c"(count) : "d"(port) : "memory"); break;
    default: __asm__ volatile("rep insl" : "+D"(at), "+c"(count) : "d"(port) : "memory");
    }
    return count;
}

/*
 * strio port=P size=1|2|4 op=in|out count=N offset=O: byte i written is 7 * i + 3; for `in`, prints an FNV-1a hash of
 * the bytes read. The offset places the buffer against a page's end.
 */
int test_strio(void) {
    uint64_t size = arg("size", 1), count = arg("count", 1024), offset = arg("offset", 0), hash = 0xcbf29ce484222325;
    uint64_t packed = size | (arg_is("op", "out") ? 0x100 : 0) | offset << 16;

    if (!access_ok((uint32_t)size) || size == 8 || offset + count * size > sizeof(buffer))
        return fail("size %lu count %lu", size, count);
    for (uint64_t i = 0; i < count * size; i++)
        buffer[offset + i] = packed & 0x100 ? (uint8_t)(7 * i + 3) : 0;
    if (at_cpl0(k_string, arg("port", 0xe9), packed, count))
        return fail("the count did not reach 0");
    for (uint64_t i = 0; i < count * size; i++)
        hash = (hash ^ buffer[offset + i]) * 0x100000001b3;
    print("{\"test\":\"strio\",\"bytes\":%lu,\"first\":%u,\"last\":%u,\"hash\":%lu}\n", count * size, buffer[offset],
          buffer[offset + count * size - 1], hash);
    return 0;
}

/*
 * mmio base=A bytes=N: with a device that stores what is written, each size at each offset, across a page's end too when
 * N says so, reads back what was written and changes no neighbour.
 */
int test_mmio(void) {
    uint64_t base = reach(arg("base", 0xfeb00000)), bytes = arg("bytes", 16), seed = 1;
    uint32_t accesses = 0;

    for (uint32_t size = 1; size <= 8; size *= 2)
        for (uint64_t offset = 0; offset + size <= bytes; offset++) {
            uint64_t mask = size == 8 ? UINT64_MAX : (1ul << size * 8) - 1, value = random64(&seed) & mask, got;

            for (uint64_t i = 0; i < bytes; i++)
                mmio_write(base + i, 1, 0xa5);
            mmio_write(base + offset, size, value);
            got = mmio_read(base + offset, size);
            if (got != value)
                return fail("size %u offset %lu: wrote 0x%lx, read 0x%lx", size, offset, value, got);
            for (uint64_t i = 0; i < bytes; i++)
                if ((i < offset || i >= offset + size) && mmio_read(base + i, 1) != 0xa5)
                    return fail("size %u offset %lu changed byte %lu", size, offset, i);
            accesses++;
        }
    print("{\"test\":\"mmio\",\"accesses\":%u}\n", accesses);
    return 0;
}

/* Ports whose writes end or reset the machine, or are the console. */
static bool is_spared(uint32_t port, uint32_t size) {
    static const uint16_t spared[][2] = {{0x60, 0x65},   {0x92, 0x93},   {0xb2, 0xb4},  {0x3f8, 0x400},
                                         {0x501, 0x506}, {0x600, 0x608}, {0xcf9, 0xcfa}};

    for (uint32_t i = 0; i < sizeof(spared) / sizeof(spared[0]); i++)
        if (port < spared[i][1] && port + size > spared[i][0])
            return true;
    return false;
}

/* fuzz-ports from=A to=B step=S op=read|write|both seed=N: every size at every port. */
int test_fuzz_ports(void) {
    uint64_t seed = arg("seed", 1), step = arg("step", 1), accesses = 0;
    bool reads = !arg_is("op", "write"), writes = !arg_is("op", "read");

    for (uint64_t port = arg("from", 0), to = arg("to", 0x10000); port < to; port += step)
        for (uint32_t size = 1; size <= 4; size *= 2) {
            uint64_t value = random64(&seed);

            if (reads)
                (void)port_in((uint16_t)port, size);
            if (writes && !is_spared((uint32_t)port, size))
                port_out((uint16_t)port, size, (uint32_t)value);
            accesses += reads + writes;
        }
    print("{\"test\":\"fuzz-ports\",\"accesses\":%lu}\n", accesses);
    return 0;
}

/* fuzz-mmio from=A to=B step=S op=read|write|both seed=N: sizes and small offsets at random; faults are counted. */
int test_fuzz_mmio(void) {
    uint64_t seed = arg("seed", 1), step = arg("step", 0x1000), accesses = 0, faults = 0;
    bool reads = !arg_is("op", "write"), writes = !arg_is("op", "read");

    for (uint64_t at = arg("from", 0xd0000000), to = arg("to", 0xfec00000); at < to; at += step) {
        uint64_t value = random64(&seed), addr = at + (value >> 60);
        uint32_t size = 1u << ((value >> 32) & 3);

        if (reads)
            faults += !survives(touch, size, reach(addr));
        if (writes)
            faults += !survives(touch, size | 0x100 | (value & 0xffffffff) << 16, reach(addr));
        accesses += reads + writes;
    }
    print("{\"test\":\"fuzz-mmio\",\"accesses\":%lu,\"faults\":%lu}\n", accesses, faults);
    return 0;
}

static uint32_t cf8_read(uint32_t bdf, uint32_t reg) {
    port_out(0xcf8, 4, 0x80000000 | bdf << 8 | reg);
    return port_in(0xcfc, 4);
}

/* pci buses=N ecam=A: what configuration mechanism #1 sees, and that ECAM (where the MCFG says) sees the same. */
int test_pci(void) {
    uint64_t ecam = arg("ecam", UINT64_MAX);
    uint32_t found = 0;

    if (ecam == UINT64_MAX)
        ecam = acpi_find()->mcfg;
    for (uint32_t bdf = 0, end = (uint32_t)arg("buses", 1) << 8; bdf < end; bdf++) {
        uint32_t id = cf8_read(bdf, 0), class = cf8_read(bdf, 8) >> 8;

        if (ecam && mmio_read(reach(ecam + ((uint64_t)bdf << 12)), 4) != id)
            return fail("%02x:%02x.%x is 0x%x by CF8, other by ECAM", bdf >> 8, bdf >> 3 & 31, bdf & 7, id);
        if ((id & 0xffff) == 0xffff)
            continue;
        found++;
        print("pci: %02x:%02x.%x %04x:%04x class %06x\n", bdf >> 8, bdf >> 3 & 31, bdf & 7, id & 0xffff, id >> 16,
              class);
    }
    print("{\"test\":\"pci\",\"functions\":%u,\"ecam\":%lu}\n", found, ecam);
    return 0;
}
