/* pcihost.c: both ways to the configuration space of PCI: ports 0xcf8/0xcfc (PCI 3.0, 3.2.2.3.2) and ECAM (PCIe 7.2.2).
 * Every function is a window found by bus, device and function; a register that a function's device answers itself is
 * handed over with the function's number in the upper half of `reg`. A function that is not there reads all ones. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum {
    FUNCTIONS = 1 << 16, /* 256 buses, 32 devices, 8 functions */
    ADDRESS = 0,         /* 0xcf8 */
    RESET = 1,           /* 0xcf9: the chipset's reset control, a byte within the address register */
    DATA = 4,            /* 0xcfc */
    PORTS = 8,
    CONFIG_BYTES = 4096,
};

#define ENABLE       0x80000000u
#define ADDRESS_MASK (ENABLE | 0x00fffffcu)

struct pci {
    struct core_chip chip;
    pthread_mutex_t lock; /* a function cannot go while it is being accessed */
    uint32_t address;
    struct core_chip **functions;
};

struct ecam {
    struct core_chip chip;
    struct pci *pci;
};

static void shrink(struct core_part *part, uint32_t room) {
    part->size = part->size < room ? part->size : room;
}

/* One part of an access to a function's configuration space. The caller holds the lock. */
static int forward(struct pci *pci, uint32_t bdf, uint32_t offset, struct core_part *part) {
    struct core_chip *function = pci->functions[bdf];
    if (!function) {
        part->value = UINT64_MAX;
        return CORE_DONE;
    }
    struct core_part inner = *part;
    inner.offset = offset;
    inner.posted = false;
    int rc = function->ops->access(function, &inner);
    part->size = inner.size;
    part->value = inner.value;
    part->posted = inner.posted;
    part->reg = bdf << 16 | (inner.reg & 0xffff);
    return rc;
}

static int address_access(struct pci *pci, struct core_part *part) {
    if (part->offset == ADDRESS && part->size >= 4) {
        part->size = 4;
        if (part->is_write) {
            pci->address = (uint32_t)part->value & ADDRESS_MASK;
        } else {
            part->value = pci->address;
        }
        return CORE_DONE;
    }
    part->size = 1; /* narrower accesses are not configuration cycles: they pass to what shares the ports */
    part->reg = UINT32_MAX;
    if (part->offset != RESET) {
        part->value = UINT64_MAX;
        return CORE_DONE;
    }
    return CORE_HANDOVER;
}

static int pci_access(struct core_chip *chip, struct core_part *part) {
    struct pci *pci = (struct pci *)chip;
    int rc = CORE_DONE;
    pthread_mutex_lock(&pci->lock);
    if (part->offset < DATA) {
        rc = address_access(pci, part);
    } else if (part->offset < PORTS && (pci->address & ENABLE)) {
        uint32_t lane = (uint32_t)part->offset - DATA;
        shrink(part, 4 - lane);
        rc = forward(pci, pci->address >> 8 & 0xffff, (pci->address & 0xfc) + lane, part);
    } else {
        part->value = UINT64_MAX;
    }
    pthread_mutex_unlock(&pci->lock);
    return rc;
}

static int ecam_access(struct core_chip *chip, struct core_part *part) {
    struct pci *pci = ((struct ecam *)chip)->pci;
    uint32_t bdf = (uint32_t)(part->offset >> 12) & (FUNCTIONS - 1), offset = (uint32_t)part->offset % CONFIG_BYTES;
    shrink(part, CONFIG_BYTES - offset);
    pthread_mutex_lock(&pci->lock);
    int rc = forward(pci, bdf, offset, part);
    pthread_mutex_unlock(&pci->lock);
    return rc;
}

static void pci_reset(struct core_chip *chip) {
    struct pci *pci = (struct pci *)chip;
    pthread_mutex_lock(&pci->lock);
    pci->address = 0;
    pthread_mutex_unlock(&pci->lock);
}

static void pci_destroy(struct core_chip *chip) {
    struct pci *pci = (struct pci *)chip;
    pthread_mutex_destroy(&pci->lock);
    free(pci->functions);
    free(pci);
}

static int pci_state_size(struct core_chip *chip) {
    return sizeof((struct pci *)chip)->address;
}

static int pci_save(struct core_chip *chip, uint8_t *state) {
    struct pci *pci = (struct pci *)chip;
    pthread_mutex_lock(&pci->lock);
    memcpy(state, &pci->address, sizeof pci->address);
    pthread_mutex_unlock(&pci->lock);
    return 0;
}

static int pci_load(struct core_chip *chip, const uint8_t *state) {
    struct pci *pci = (struct pci *)chip;
    uint32_t address;
    memcpy(&address, state, sizeof address);
    if (address & ~ADDRESS_MASK) {
        return -EINVAL;
    }
    pthread_mutex_lock(&pci->lock);
    pci->address = address;
    pthread_mutex_unlock(&pci->lock);
    return 0;
}

static const struct core_chip_ops pci_ops = {
    .name = "pci",
    .access = pci_access,
    .reset = pci_reset,
    .destroy = pci_destroy,
    .state_size = pci_state_size,
    .save = pci_save,
    .load = pci_load,
};

static void ecam_destroy(struct core_chip *chip) {
    free(chip);
}

static const struct core_chip_ops ecam_ops = {.name = "ecam", .access = ecam_access, .destroy = ecam_destroy};

/* The eight ports from 0xcf8 on. */
core_chip *core_pci_new(void) {
    struct pci *pci = calloc(1, sizeof *pci);
    if (!pci) {
        return NULL;
    }
    core_chip_init(&pci->chip, &pci_ops);
    pthread_mutex_init(&pci->lock, NULL);
    pci->functions = calloc(FUNCTIONS, sizeof *pci->functions);
    if (!pci->functions) {
        pci_destroy(&pci->chip);
        return NULL;
    }
    return &pci->chip;
}

/* The memory mapped way to the same functions, 1 MiB a bus; (pci) must outlive it. */
core_chip *core_pci_ecam_new(core_chip *pci) {
    struct ecam *ecam = calloc(1, sizeof *ecam);
    if (!ecam) {
        return NULL;
    }
    core_chip_init(&ecam->chip, &ecam_ops);
    ecam->pci = (struct pci *)pci;
    return &ecam->chip;
}

/* Put (function)'s configuration window at bdf, or take away (NULL) what is there: after that nobody accesses it. */
int core_pci_set(core_chip *pci, uint32_t bdf, core_chip *function) {
    struct pci *p = (struct pci *)pci;
    if (bdf >= FUNCTIONS) {
        return -EINVAL;
    }
    pthread_mutex_lock(&p->lock);
    p->functions[bdf] = function;
    pthread_mutex_unlock(&p->lock);
    return 0;
}
