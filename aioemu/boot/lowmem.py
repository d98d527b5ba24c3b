"""The first mebibyte, planned once: where a loader puts what the kernel reads on its way up.

All of it is consumed before a kernel starts to hand out memory (Linux copies it, and never allocates below 64 KiB),
so the e820 map reports it as RAM; only the areas from EBDA_START on are reported as reserved.
"""

from __future__ import annotations

from aioemu.boot.ram import RamRange

PAGE = 0x1000
MIB = 1 << 20

GDT = RamRange(0x500, 0x80)  # just above the BIOS data area (0x400..0x4ff), which stays zero
START_INFO = RamRange(0x6000, 0x100)  # hvm_start_info and its module list; or the multiboot information
MEMORY_MAP = RamRange(0x6100, 0xF00)  # 160 hvm_memmap_table_entry; or the multiboot memory map
ZERO_PAGE = RamRange(0x7000, PAGE)  # struct boot_params
STACK = RamRange(0x8000, PAGE)  # grows down from 0x8ff0
STACK_TOP = 0x8FF0
PAGE_TABLES = RamRange(0x9000, 6 * PAGE)  # PML4, PDPT, four page directories
SETUP_DATA = RamRange(0x9FC00, 0x400)  # one struct setup_data: where it is, a kernel splits its own map of RAM
CMDLINE = RamRange(0x20000, 0x10000)  # 64 KiB: any kernel's command line with its NUL

EBDA_START = SETUP_DATA.start  # where PCs end base memory; kernels take what is above it for firmware's
VIDEO_START = 0xA0000
TABLES = RamRange(0xE0000, 0x10000)  # ACPI: searched for the RSDP in 16-byte steps (ACPI 6.5 5.2.5.1)
SMBIOS = RamRange(0xF0000, 0x8000)  # searched for _SM3_ in 16-byte steps (SMBIOS 3.7 5.2.2)
MP_TABLE = RamRange(0xF8000, 0x8000)  # searched for _MP_ in 16-byte steps (MP 1.4 section 4)
FIRMWARE = RamRange(0xE0000, 0x20000)  # all three, as the memory map reports them
FIRMWARE_END = MIB

LOAD_MIN = MIB  # bzImages and initrds go above all of this
# ELF and multiboot kernels say where they go: not over start data and not where PCs have video memory. Linkers like to
# put a page of headers below 1 MiB, so the firmware area is only kept from them where a table really is.
KEPT = (RamRange(0, CMDLINE.end), RamRange(EBDA_START, TABLES.start - EBDA_START))
