/* acpi.c: walk RSDP, XSDT or RSDT, MADT, MCFG and FADT (ACPI 6.4 chapter 5), checking sums. No AML. */
#include "guest.h"

#define FADT_PM1A_CONTROL 64
#define FADT_PM_TIMER     76
#define TABLES_MAX        64
#define TABLE_SIZE_MAX    0x100000

static uint32_t get32(uint64_t at) {
    return *(const uint32_t __attribute__((aligned(1))) *)at;
}

static uint64_t get64(uint64_t at) {
    return *(const uint64_t __attribute__((aligned(1))) *)at;
}

static bool sums_to_zero(uint64_t at, uint32_t len) {
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *(const uint8_t *)at++);
    return !sum;
}

static uint64_t find_rsdp(void) {
    uint64_t given = start_info() ? get64(start_info() + 32) : 0;

    if (given)
        return given;
    for (uint64_t at = 0xe0000; at < 0x100000; at += 16)
        if (same((const char *)at, 8, "RSD PTR "))
            return at;
    return 0;
}

static void read_madt(struct acpi *acpi, uint64_t table, uint32_t len) {
    for (uint64_t at = table + 44; at + 8 <= table + len; at += *(const uint8_t *)(at + 1)) {
        uint8_t type = *(const uint8_t *)at;

        if (*(const uint8_t *)(at + 1) < 2)
            return;
        if (type == 0 && get32(at + 4) & 1)
            acpi->cpus++;
        if (type == 9 && get32(at + 8) & 1)
            acpi->cpus++;
    }
}

static void read_table(struct acpi *acpi, uint64_t table) {
    uint32_t len = get32(reach(table) + 4);
    char name[5] = {0};

    for (int i = 0; i < 4; i++)
        name[i] = ((const char *)table)[i];
    if (len < 36 || len > TABLE_SIZE_MAX) {
        acpi->bad_checksums++;
        return;
    }
    acpi->tables++;
    acpi->bad_checksums += !sums_to_zero(table, len);
    print("acpi: %s at 0x%lx length %u\n", name, table, len);
    if (same(name, 4, "APIC"))
        read_madt(acpi, table, len);
    if (same(name, 4, "MCFG") && len >= 60)
        acpi->mcfg = get64(table + 44);
    if (same(name, 4, "FACP") && len >= 80) {
        acpi->pm1a_control = (uint16_t)get32(table + FADT_PM1A_CONTROL);
        acpi->pm_timer = (uint16_t)get32(table + FADT_PM_TIMER);
        if (get32(table + 40))
            read_table(acpi, get32(table + 40));
    }
}

/* Walks once, printing each table; all zero when there is no RSDP. */
const struct acpi *acpi_find(void) {
    static struct acpi acpi;
    uint64_t root;
    uint32_t width, len;

    if (acpi.rsdp)
        return &acpi;
    acpi.rsdp = find_rsdp();
    if (!acpi.rsdp)
        return &acpi;
    acpi.bad_checksums += !sums_to_zero(acpi.rsdp, 20);
    width = *(const uint8_t *)(acpi.rsdp + 15) >= 2 ? 8 : 4;
    root = width == 8 ? get64(acpi.rsdp + 24) : get32(acpi.rsdp + 16);
    len = get32(reach(root) + 4);
    acpi.bad_checksums += !sums_to_zero(root, len > TABLE_SIZE_MAX ? 36 : len);
    for (uint32_t i = 0; i < TABLES_MAX && 36 + (i + 1) * width <= len; i++)
        read_table(&acpi, width == 8 ? get64(root + 36 + i * 8) : get32(root + 36 + i * 4));
    return &acpi;
}
