/*
 * bench.c: what the guest's CPU and memory cost, one JSON line for each test: `bench getppid fault ...`, or `bench all`.
 *
 * Each test does a fixed amount of work and reports nanoseconds for one operation by the guest's monotonic clock. `jit`
 * and `jit-alias` report stale calls: code rewritten through a writable mapping and then called must be the new code.
 * Not measured: devices, disks, network.
 */
#define _GNU_SOURCE 1 /* memfd_create, MAP_ANONYMOUS */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE          4096
#define GETPPID_CALLS 200000
#define FAULT_PAGES   4096
#define FAULT_ROUNDS  4
#define FORKS         200
#define PIPE_TRIPS    5000
#define MEMCPY_BYTES  (80u << 20)
#define MEMCPY_BUFFER (8u << 20)
#define SHA256_BYTES  (8u << 20)
#define SLEEPS        200
#define SLEEP_US      1000
#define JIT_CALLS     10000

static uint64_t now_ns(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int report(const char *name, uint64_t start, uint64_t ops, const char *extra) {
    uint64_t total = now_ns() - start;

    printf("{\"bench\":\"%s\",\"ops\":%llu,\"ns_per_op\":%.1f%s}\n", name, (unsigned long long)ops,
           (double)total / (double)ops, extra);
    return fflush(stdout) ? -errno : 0;
}

static int bench_getppid(void) {
    uint64_t start = now_ns();

    for (int i = 0; i < GETPPID_CALLS; i++)
        syscall(SYS_getppid);
    return report("getppid", start, GETPPID_CALLS, "");
}

/* First touch of anonymous pages; the kernel is asked not to make them huge. */
static int bench_fault(void) {
    uint64_t start = now_ns();

    for (int round = 0; round < FAULT_ROUNDS; round++) {
        volatile uint8_t *p =
            mmap(NULL, FAULT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
            return -errno;
        madvise((void *)p, FAULT_PAGES * PAGE, MADV_NOHUGEPAGE);
        for (int i = 0; i < FAULT_PAGES; i++)
            p[i * PAGE] = 1;
        munmap((void *)p, FAULT_PAGES * PAGE);
    }
    return report("fault", start, FAULT_PAGES * FAULT_ROUNDS, "");
}

static int bench_fork(void) {
    uint64_t start = now_ns();

    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();

        if (child < 0)
            return -errno;
        if (!child)
            _exit(0);
        if (waitpid(child, NULL, 0) < 0)
            return -errno;
    }
    return report("fork", start, FORKS, "");
}

/* Send each byte that arrives back, until the other side closes. */
static void echo_bytes(int from, int to) {
    char byte;

    while (read(from, &byte, 1) == 1 && write(to, &byte, 1) == 1)
        ;
}

static int ping_pong(int to, int from) {
    char byte = 'x';

    for (int i = 0; i < PIPE_TRIPS; i++)
        if (write(to, &byte, 1) != 1 || read(from, &byte, 1) != 1)
            return -EIO;
    return 0;
}

static int bench_pipe(void) {
    int there[2], back[2], error;
    uint64_t start;
    pid_t child;

    if (pipe(there) || pipe(back))
        return -errno;
    child = fork();
    if (child < 0)
        return -errno;
    if (!child) {
        close(there[1]);
        echo_bytes(there[0], back[1]);
        _exit(0);
    }
    start = now_ns();
    error = ping_pong(there[1], back[0]);
    if (!error)
        error = report("pipe", start, PIPE_TRIPS, "");
    close(there[0]);
    close(there[1]);
    close(back[0]);
    close(back[1]);
    waitpid(child, NULL, 0);
    return error;
}

static int bench_memcpy(void) {
    uint8_t *from = malloc(MEMCPY_BUFFER), *to = malloc(MEMCPY_BUFFER);
    int error = -ENOMEM;

    if (from && to) {
        uint64_t start;

        memset(from, 0x5a, MEMCPY_BUFFER);
        memset(to, 0, MEMCPY_BUFFER);
        start = now_ns();
        for (unsigned i = 0; i < MEMCPY_BYTES / MEMCPY_BUFFER; i++) {
            memcpy(to, from, MEMCPY_BUFFER);
            __asm__ volatile("" : : "r"(to) : "memory");
        }
        error = report("memcpy", start, MEMCPY_BYTES, "");
    }
    free(from);
    free(to);
    return error;
}

/* SHA-256 (FIPS 180-4), the constants as its section 4.2.2 derives them: fractions of the primes' cube roots. */
static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

static void sha_block(uint32_t state[8], const uint8_t *data) {
    uint32_t w[64], v[8];

    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | data[4 * i + 1] << 16 | data[4 * i + 2] << 8 | data[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;

        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(v, state, sizeof(v));
    for (int i = 0; i < 64; i++) {
        uint32_t sum1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
        uint32_t t1 = v[7] + sum1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + sha_k[i] + w[i];
        uint32_t sum0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        uint32_t t2 = sum0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

        memmove(v + 1, v, 7 * sizeof(v[0]));
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

/* The digest of SHA256_BYTES zero bytes, so that the host can check the arithmetic as well. */
static int bench_sha256(void) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t block[64] = {0};
    uint64_t bits = SHA256_BYTES * 8ull, start = now_ns();
    char extra[96], *p = extra;

    for (unsigned i = 0; i < SHA256_BYTES / sizeof(block); i++)
        sha_block(state, block);
    block[0] = 0x80;
    for (int i = 0; i < 8; i++)
        block[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    sha_block(state, block);
    p += sprintf(p, ",\"digest\":\"");
    for (int i = 0; i < 8; i++)
        p += sprintf(p, "%08x", state[i]);
    sprintf(p, "\"");
    return report("sha256", start, SHA256_BYTES, extra);
}

/* How much longer than asked a sleep of SLEEP_US takes. */
static int bench_usleep(void) {
    uint64_t start = now_ns(), worst = 0;
    char extra[96];

    for (int i = 0; i < SLEEPS; i++) {
        uint64_t before = now_ns(), took;

        usleep(SLEEP_US);
        took = now_ns() - before;
        if (took < SLEEP_US * 1000)
            return -ERANGE;
        if (took > worst)
            worst = took;
    }
    snprintf(extra, sizeof(extra), ",\"asked_ns\":%d,\"worst_ns\":%llu", SLEEP_US * 1000, (unsigned long long)worst);
    return report("usleep", start, SLEEPS, extra);
}

/* mov $i, %eax; ret */
static void write_code(volatile uint8_t *at, uint32_t i) {
    at[0] = 0xb8;
    for (int byte = 0; byte < 4; byte++)
        at[1 + byte] = (uint8_t)(i >> 8 * byte);
    at[5] = 0xc3;
}

static int call_stale(const char *name, uint8_t *write, uint8_t *execute, int protect) {
    uint64_t start = now_ns();
    unsigned stale = 0;
    char extra[32];

    for (uint32_t i = 0; i < JIT_CALLS; i++) {
        uint32_t got;

        if (protect && mprotect(write, PAGE, PROT_READ | PROT_WRITE))
            return -errno;
        write_code(write, i);
        if (protect && mprotect(write, PAGE, PROT_READ | PROT_EXEC))
            return -errno;
        /* x86 needs a jump or a serialising instruction here (SDM 3A 9.1.3); other CPUs need more */
        __builtin___clear_cache((char *)execute, (char *)execute + 6);
        got = ((uint32_t (*)(void))(uintptr_t)execute)();
        stale += got != i;
    }
    snprintf(extra, sizeof(extra), ",\"stale\":%u", stale);
    return report(name, start, JIT_CALLS, extra);
}

/* One mapping that is writable or executable in turn. */
static int bench_jit(void) {
    uint8_t *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int error;

    if (page == MAP_FAILED)
        return -errno;
    error = call_stale("jit", page, page, 1);
    munmap(page, PAGE);
    return error;
}

/* Two mappings of one page: written through one, executed through the other. */
static int bench_jit_alias(void) {
    int fd = memfd_create("jit", 0), error;
    uint8_t *write, *execute;

    if (fd < 0 || ftruncate(fd, PAGE))
        return -errno;
    write = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    execute = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (write == MAP_FAILED || execute == MAP_FAILED)
        return -errno;
    error = call_stale("jit-alias", write, execute, 0);
    munmap(write, PAGE);
    munmap(execute, PAGE);
    close(fd);
    return error;
}

static const struct {
    const char *name;
    int (*run)(void);
} benches[] = {
    {"getppid", bench_getppid}, {"fault", bench_fault},   {"fork", bench_fork},
    {"pipe", bench_pipe},       {"memcpy", bench_memcpy}, {"sha256", bench_sha256},
    {"usleep", bench_usleep},   {"jit", bench_jit},       {"jit-alias", bench_jit_alias},
};

/* Runs the benches that (name) means; the number that failed, or -1 when it means none. */
static int run_named(const char *name) {
    int failed = 0, known = 0;

    for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++) {
        int error;

        if (strcmp(name, "all") && strcmp(name, benches[i].name))
            continue;
        known = 1;
        error = benches[i].run();
        if (error)
            printf("{\"bench\":\"%s\",\"error\":\"%s\"}\n", benches[i].name, strerror(-error));
        failed += error != 0;
    }
    return known ? failed : -1;
}

int main(int argc, char **argv) {
    int failed = 0;

    for (int i = 1; i < argc; i++) {
        int result = run_named(argv[i]);

        if (result < 0) {
            fprintf(stderr, "bench: %s: no such bench\n", argv[i]);
            return 2;
        }
        failed += result;
    }
    return failed ? 1 : 0;
}
