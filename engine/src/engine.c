/* engine.c: make and unmake an engine, and lay out its memory. Not here: what runs in it. */
#include "unicorn/unicorn.h"
#include "uc_priv.h"
#include "aioemu/priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* As QEMU's own default for one guest is 1 GiB of address space; a quarter holds a Linux guest's working set. */
#define DEFAULT_CODE_CACHE_BYTES (256u << 20)
#define DEFAULT_COUNTER_HZ       UINT64_C(62500000)

struct model {
    uint32_t arch;
    const char *name;
    int number;
};

/* "max" is the base model given here plus every feature the engine has (x86_cpu.c). */
static const struct model models[] = {
    {AIOEMU_ARCH_X86_64, "max", UC_CPU_X86_QEMU64},        {AIOEMU_ARCH_X86_64, "qemu64", UC_CPU_X86_QEMU64},
    {AIOEMU_ARCH_X86_64, "core2duo", UC_CPU_X86_CORE2DUO}, {AIOEMU_ARCH_X86_64, "Nehalem", UC_CPU_X86_NEHALEM},
    {AIOEMU_ARCH_X86_64, "Westmere", UC_CPU_X86_WESTMERE}, {AIOEMU_ARCH_X86_64, "Haswell", UC_CPU_X86_HASWELL},
    {AIOEMU_ARCH_X86_64, "EPYC", UC_CPU_X86_EPYC},         {AIOEMU_ARCH_AARCH64, "max", UC_CPU_ARM64_MAX},
    {AIOEMU_ARCH_AARCH64, "cortex-a53", UC_CPU_ARM64_A53}, {AIOEMU_ARCH_AARCH64, "cortex-a57", UC_CPU_ARM64_A57},
    {AIOEMU_ARCH_AARCH64, "cortex-a72", UC_CPU_ARM64_A72},
};

static const struct model *find_model(uint32_t arch, const char *name) {
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        if (models[i].arch == arch && strcmp(models[i].name, name) == 0) {
            return &models[i];
        }
    }
    return NULL;
}

static const struct aioemu_ops *find_ops(uint32_t arch) {
    switch (arch) {
#ifdef UNICORN_HAS_X86
    case AIOEMU_ARCH_X86_64: return &aioemu_ops_x86_64;
#endif
#ifdef UNICORN_HAS_ARM64
    case AIOEMU_ARCH_AARCH64: return &aioemu_ops_aarch64;
#endif
    default: return NULL;
    }
}

/* Bring up the emulator; may abort(), which the caller catches. */
static int start(struct aioemu_engine *engine, const struct aioemu_engine_config *config, int model) {
    bool x86 = config->arch == AIOEMU_ARCH_X86_64;
    uint8_t none;

    if (uc_open(x86 ? UC_ARCH_X86 : UC_ARCH_ARM64, x86 ? UC_MODE_64 : UC_MODE_ARM, &engine->uc)) {
        return -ENOMEM;
    }
    engine->uc->aioemu = engine;
    engine->uc->cpu_model = model;
    engine->uc->tcg_buffer_size = config->code_cache_bytes ? config->code_cache_bytes : DEFAULT_CODE_CACHE_BYTES;
    engine->uc->use_exits = 1; /* and none is ever added */
    engine->uc->nested_level = 1;
    engine->uc->target_bits = AIOEMU_PAGE_SHIFT; /* where the guest's page size is open: AArch64 */
    if (uc_mem_read(engine->uc, 0, &none, 0)) {  /* any call brings it up */
        return -ENOMEM;
    }
    return engine->ops->memory_init(engine);
}

static int configure(struct aioemu_engine *engine, const struct aioemu_engine_config *config, int *number) {
    const char *name = config->cpu_model ? config->cpu_model : "max";
    const struct model *model = find_model(config->arch, name);
    size_t size = config->callbacks.size;

    engine->ops = find_ops(config->arch);
    if (!engine->ops || !model) {
        return -ENOTSUP;
    }
    memcpy(&engine->cb, &config->callbacks, size < sizeof(engine->cb) ? size : sizeof(engine->cb));
    engine->arch = config->arch;
    engine->max_model = strcmp(name, "max") == 0;
    engine->yield_on_pause = config->yield_on_pause != 0;
    engine->counter_hz = config->counter_hz ? config->counter_hz : DEFAULT_COUNTER_HZ;
    *number = model->number;
    return 0;
}

int aioemu_engine_create(const struct aioemu_engine_config *config, aioemu_engine **result) {
    struct aioemu_engine *engine;
    struct aioemu_catch frame;
    int model, err;

    if (config->size != sizeof(*config) || config->callbacks.size > sizeof(config->callbacks)) {
        return -EINVAL;
    }
    engine = calloc(1, sizeof(*engine));
    if (!engine) {
        return -ENOMEM;
    }
    engine->map = calloc(1, sizeof(*engine->map));
    err = engine->map ? configure(engine, config, &model) : -ENOMEM;
    if (!err) {
        aioemu_catch_push(&frame);
        err = sigsetjmp(frame.env, 0) ? -ENOMEM : start(engine, config, model);
        aioemu_catch_pop(&frame);
    }
    if (err) {
        free(engine->map);
        free(engine);
        return err;
    }
    *result = engine;
    return 0;
}

void aioemu_engine_destroy(aioemu_engine *engine) {
    struct aioemu_catch frame;

    aioemu_catch_push(&frame);
    if (!sigsetjmp(frame.env, 0)) {
        if (engine->vcpu_count) {
            engine->uc->cpu = engine->vcpus[0]->cpu; /* the one the emulator frees itself */
        }
        while (engine->vcpu_count > 1) {
            engine->ops->vcpu_free(engine->vcpus[--engine->vcpu_count]);
        }
        uc_close(engine->uc);
    }
    aioemu_catch_pop(&frame);
    for (int i = 0; i < AIOEMU_MAX_VCPUS; i++) {
        free(engine->vcpus[i]);
    }
    aioemu_map_free(engine);
    free(engine);
}

static struct aioemu_map *copy_map(const struct aioemu_map *map, size_t count) {
    struct aioemu_map *next = calloc(1, sizeof(*next) + count * sizeof(next->ram[0]));

    if (next) {
        next->count = count;
        memcpy(next->ram, map->ram, (count < map->count ? count : map->count) * sizeof(next->ram[0]));
    }
    return next;
}

int aioemu_engine_map(aioemu_engine *engine, uint64_t gpa, uint64_t size, void *host, uint32_t flags) {
    struct aioemu_ram new = {.gpa = gpa, .size = size, .host = host};
    const struct aioemu_ram *next_ram = aioemu_map_find(engine->map, gpa);
    size_t at = next_ram ? (size_t)(next_ram - engine->map->ram) : engine->map->count;
    struct aioemu_map *next;
    int err;

    if ((gpa | size | (uintptr_t)host) % AIOEMU_PAGE_BYTES || !size || size - 1 > UINT64_MAX - gpa ||
        (flags & ~AIOEMU_MEM_READONLY)) {
        return -EINVAL;
    }
    if (next_ram && (next_ram->gpa < gpa || next_ram->gpa - gpa < size)) {
        return -EEXIST;
    }
    new.pages = calloc(1, size >> AIOEMU_PAGE_SHIFT);
    next = copy_map(engine->map, engine->map->count + 1);
    err = new.pages && next ? engine->ops->map(engine, &new, flags) : -ENOMEM;
    if (err) {
        free(new.pages);
        free(next);
        return err;
    }
    memmove(&next->ram[at + 1], &next->ram[at], (engine->map->count - at) * sizeof(next->ram[0]));
    next->ram[at] = new;
    aioemu_map_publish(engine, next, NULL);
    return 0;
}

int aioemu_engine_unmap(aioemu_engine *engine, uint64_t gpa, uint64_t size) {
    const struct aioemu_ram *ram = aioemu_map_find(engine->map, gpa);
    size_t at, rest;
    struct aioemu_map *next;
    int err;

    if (!ram || ram->gpa != gpa || ram->size != size) {
        return -ENOENT;
    }
    next = copy_map(engine->map, engine->map->count - 1);
    if (!next) {
        return -ENOMEM;
    }
    err = engine->ops->unmap(engine, ram);
    if (err) {
        free(next);
        return err;
    }
    at = (size_t)(ram - engine->map->ram);
    rest = next->count - at;
    memcpy(&next->ram[at], ram + 1, rest * sizeof(next->ram[0]));
    aioemu_map_publish(engine, next, ram->pages);
    return 0;
}
