"""Descriptor table and identity page tables for kernels that are entered with paging on.

Maps the first 4 GiB in 2 MiB pages, which every 64-bit processor has (1 GiB pages are a feature). More is not
mapped: kernels, initrds and all that they read at first lie below 4 GiB.
"""

from __future__ import annotations

import struct

from aioemu.boot import lowmem
from aioemu.boot.entry import DescriptorTable
from aioemu.boot.ram import GuestRam

PRESENT_WRITABLE = 0x3
LARGE = 0x80
LARGE_PAGE = 2 << 20
ENTRIES = 512
MAPPED_GIB = 4

# The flat descriptors of the Linux boot protocol: __BOOT_CS is 0x10 and __BOOT_DS is 0x18.
CODE_SELECTOR, DATA_SELECTOR = 0x10, 0x18
_CODE64, _CODE32, _DATA = 0x00AF9B000000FFFF, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
_TSS = 0x00008B0000000067  # base 0: never used to switch, but TR must name something


def write_gdt(ram: GuestRam, long: bool) -> DescriptorTable:
    """Put the flat descriptors into low memory, with a 64-bit or a 32-bit code segment."""
    table = struct.pack("<6Q", 0, 0, _CODE64 if long else _CODE32, _DATA, _TSS, 0)
    ram.write(lowmem.GDT.start, table)
    return DescriptorTable(lowmem.GDT.start, len(table) - 1)


def write_identity_tables(ram: GuestRam) -> int:
    """Put the page tables into low memory; the value of CR3."""
    base = lowmem.PAGE_TABLES.start
    pdpt, directories = base + lowmem.PAGE, base + 2 * lowmem.PAGE
    empty = (0,) * ENTRIES
    pml4 = (pdpt | PRESENT_WRITABLE, *empty[1:])
    pointers = tuple((directories + i * lowmem.PAGE) | PRESENT_WRITABLE for i in range(MAPPED_GIB))
    large = (i * LARGE_PAGE | LARGE | PRESENT_WRITABLE for i in range(MAPPED_GIB * ENTRIES))
    entries = (*pml4, *pointers, *empty[MAPPED_GIB:], *large)
    ram.write(base, struct.pack(f"<{len(entries)}Q", *entries))
    return base
