"""The PVH boot protocol: a 32-bit flat entry, and one structure that names command line, initrd, tables and memory map.

After the HVM direct boot ABI (Xen, docs/misc/pvh): hvm_start_info version 1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec.structs import replace

from aioemu.boot import lowmem, paging
from aioemu.boot.e820 import E820Entry
from aioemu.boot.entry import BootEntry, BootMode, flat_entry
from aioemu.boot.ram import GuestRam, RamRange

MAGIC = 0x336EC578
VERSION = 1
_START_INFO = struct.Struct("<IIII QQQQ II")  # 56 bytes
_MODULE = struct.Struct("<QQQQ")
_MEMMAP = struct.Struct("<QQII")
CMDLINE_MAX = lowmem.CMDLINE.size - 1  # Linux uses the first 2047 bytes; other guests may take more
MODULES = lowmem.START_INFO.start + 0x40


def write_start_info(
    ram: GuestRam, cmdline: bytes, initrd: RamRange | None, rsdp: int, memory_map: Sequence[E820Entry]
) -> None:
    """Write the command line, hvm_start_info and all that it points to."""
    ram.write(lowmem.CMDLINE.start, cmdline + b"\0")
    if initrd is not None:
        ram.write(MODULES, _MODULE.pack(initrd.start, initrd.size, 0, 0))
    ram.write(lowmem.MEMORY_MAP.start, b"".join(_MEMMAP.pack(e.start, e.size, e.kind, 0) for e in memory_map))
    info = _START_INFO.pack(
        MAGIC,
        VERSION,
        0,
        0 if initrd is None else 1,
        0 if initrd is None else MODULES,
        lowmem.CMDLINE.start,
        rsdp,
        lowmem.MEMORY_MAP.start,
        len(memory_map),
        0,
    )
    ram.write(lowmem.START_INFO.start, info)


def enter(ram: GuestRam, entry: int) -> BootEntry:
    """The PVH entry state: EBX points to hvm_start_info."""
    gdt = paging.write_gdt(ram, long=False)
    state = flat_entry(BootMode.PVH32, entry, gdt, paging.CODE_SELECTOR, paging.DATA_SELECTOR)
    return replace(state, rbx=lowmem.START_INFO.start, rsp=lowmem.STACK_TOP)
