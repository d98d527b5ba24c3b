/* stats.c: order statistics over samples in TSC cycles, and a small random generator. */
#include "guest.h"

static uint32_t samples[SAMPLES_MAX];

void sample(uint32_t index, uint64_t cycles) {
    if (index < SAMPLES_MAX)
        samples[index] = cycles > UINT32_MAX ? UINT32_MAX : (uint32_t)cycles;
}

static void sift(uint32_t root, uint32_t count) {
    for (uint32_t child; (child = 2 * root + 1) < count; root = child) {
        uint32_t value = samples[root];

        if (child + 1 < count && samples[child + 1] > samples[child])
            child++;
        if (samples[child] <= value)
            return;
        samples[root] = samples[child];
        samples[child] = value;
    }
}

static void sort(uint32_t count) {
    for (uint32_t i = count / 2; i-- > 0;)
        sift(i, count);
    for (uint32_t end = count; end-- > 1;) {
        uint32_t value = samples[0];

        samples[0] = samples[end];
        samples[end] = value;
        sift(0, end);
    }
}

void samples_print(const char *name, uint32_t count) {
    if (count > SAMPLES_MAX)
        count = SAMPLES_MAX;
    if (!count)
        return;
    sort(count);
    print("{\"test\":\"%s\",\"n\":%u,\"min\":%u,\"p50\":%u,\"p99\":%u,\"max\":%u,\"tsc_per_ms\":%lu}\n", name, count,
          samples[0], samples[count / 2], samples[(uint64_t)count * 99 / 100], samples[count - 1], tsc_per_ms());
}

/* xorshift64* (Vigna 2016); the state must not be zero. */
uint64_t random64(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1d;
}
