"""The zero page: struct boot_params, as the Linux/x86 boot protocol lays it out.

Field names and offsets are those of Documentation/arch/x86/boot.rst and zero-page.rst. Left zero, as for a loader
without them: video, EDD, EFI, APM, and everything a kernel asks of real-mode firmware.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec.structs import replace

from aioemu.boot import lowmem, paging
from aioemu.boot.e820 import E820Entry
from aioemu.boot.entry import CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, BootEntry, BootMode, flat_entry
from aioemu.boot.ram import GuestRam, RamRange

ACPI_RSDP_ADDR = 0x070
E820_ENTRIES = 0x1E8
SETUP_HEADER = 0x1F1
BOOT_FLAG = 0x1FE
HEADER_MAGIC = 0x202
VERSION = 0x206
TYPE_OF_LOADER = 0x210
CODE32_START = 0x214
RAMDISK_IMAGE = 0x218
CMD_LINE_PTR = 0x228
SETUP_DATA_PTR = 0x250
HEADER_END_MAX = 0x290  # the next field, edd_mbr_sig_buffer: no header may reach into it
E820_TABLE = 0x2D0

LOADER_UNDEFINED = 0xFF  # "no assigned id": makes the kernel look at the ramdisk fields
SETUP_RNG_SEED = 9
RNG_SEED_MAX = 256  # bytes; more entropy than any pool takes
PROTOCOL_OF_VMLINUX = 0x020C  # the first with a 64-bit entry; a bare vmlinux carries no header of its own

_E820 = struct.Struct("<QQI")


def bare_header() -> bytes:
    """The setup header of a kernel that brings none, from SETUP_HEADER on."""
    page = bytearray(HEADER_END_MAX)
    struct.pack_into("<H", page, BOOT_FLAG, 0xAA55)
    page[HEADER_MAGIC : HEADER_MAGIC + 4] = b"HdrS"
    struct.pack_into("<H", page, VERSION, PROTOCOL_OF_VMLINUX)
    return bytes(page[SETUP_HEADER:])


def write_boot_params(
    ram: GuestRam,
    header: bytes,
    cmdline: bytes,
    initrd: RamRange | None,
    rsdp: int,
    memory_map: Sequence[E820Entry],
    rng_seed: bytes = b"",
) -> None:
    """Write the command line and the zero page around the kernel's own setup header."""
    page = bytearray(lowmem.PAGE)
    page[SETUP_HEADER : SETUP_HEADER + len(header)] = header
    page[TYPE_OF_LOADER] = LOADER_UNDEFINED
    struct.pack_into("<Q", page, ACPI_RSDP_ADDR, rsdp)
    struct.pack_into("<II", page, RAMDISK_IMAGE, *((initrd.start, initrd.size) if initrd else (0, 0)))
    struct.pack_into("<I", page, CMD_LINE_PTR, lowmem.CMDLINE.start)
    page[E820_ENTRIES] = len(memory_map)
    for index, entry in enumerate(memory_map):
        _E820.pack_into(page, E820_TABLE + index * _E820.size, entry.start, entry.size, entry.kind)
    struct.pack_into("<Q", page, SETUP_DATA_PTR, lowmem.SETUP_DATA.start if rng_seed else 0)
    if rng_seed:
        seed = rng_seed[:RNG_SEED_MAX]
        ram.write(lowmem.SETUP_DATA.start, struct.pack("<QII", 0, SETUP_RNG_SEED, len(seed)) + seed)
    ram.write(lowmem.CMDLINE.start, cmdline + b"\0")
    ram.write(lowmem.ZERO_PAGE.start, bytes(page))


def enter_long64(ram: GuestRam, rip: int) -> BootEntry:
    """The 64-bit entry state: paging on, RSI points to the zero page."""
    cr3 = paging.write_identity_tables(ram)
    gdt = paging.write_gdt(ram, long=True)
    state = flat_entry(BootMode.LONG64, rip, gdt, paging.CODE_SELECTOR, paging.DATA_SELECTOR)
    return replace(
        state,
        cr0=state.cr0 | CR0_PG,
        cr3=cr3,
        cr4=CR4_PAE,
        efer=EFER_LME | EFER_LMA,
        rsi=lowmem.ZERO_PAGE.start,
        rsp=lowmem.STACK_TOP,
    )


def enter_protected32(ram: GuestRam, rip: int) -> BootEntry:
    """The 32-bit entry state: no paging, ESI points to the zero page, EBP, EDI and EBX are zero."""
    gdt = paging.write_gdt(ram, long=False)
    state = flat_entry(BootMode.PROTECTED32, rip, gdt, paging.CODE_SELECTOR, paging.DATA_SELECTOR)
    return replace(state, rsi=lowmem.ZERO_PAGE.start, rsp=lowmem.STACK_TOP)
