"""Boots by Multiboot 0.6.96: a header in the file's first 8 KiB, a 32-bit flat entry, one information structure.

One module (the initrd). Not given: video modes, symbols, drives, APM. The guest learns file names, not host paths.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from aioemu.boot import elf, lowmem, paging
from aioemu.boot.e820 import E820Entry, E820Type
from aioemu.boot.entry import BootEntry, BootMode, flat_entry
from aioemu.boot.image import ImageFile
from aioemu.boot.ram import GuestRam, RamRange

HEADER_MAGIC = 0x1BADB002
LOADER_MAGIC = 0x2BADB002  # in EAX at the entry
SEARCH_SIZE = 8192  # section 3.1
UNDERSTOOD = 0x0007  # of the flags that a loader must understand or refuse: alignment, memory, video (as advice)
HAS_ADDRESSES = 1 << 16
_HEADER = struct.Struct("<8I")

INFO_MEMORY, INFO_CMDLINE, INFO_MODS, INFO_MMAP, INFO_LOADER_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
_INFO = struct.Struct("<7I 4I 2I 3I I 12I")  # 116 bytes; names below in the order of section 3.3
_MODULE = struct.Struct("<4I")
_MMAP = struct.Struct("<IQQI")
MODULE = RamRange(lowmem.START_INFO.start + 0x80, 0x10)
LOADER_NAME = RamRange(lowmem.START_INFO.start + 0x90, 0x10)
MODULE_NAME = RamRange(lowmem.START_INFO.start + 0xA0, 0x60)
NAME_MAX = 255  # what a file name may have: room for it is taken from the command line's area


class Header(Struct, frozen=True):
    """The header, and where in the file it was found."""

    offset: int
    flags: int
    header_addr: int
    load_addr: int
    load_end_addr: int
    bss_end_addr: int
    entry_addr: int


def find(head: bytes) -> Header | None:
    """The first header whose checksum is right, in the file's beginning."""
    magic = struct.pack("<I", HEADER_MAGIC)
    area = head[:SEARCH_SIZE]
    at = area.find(magic)
    while 0 <= at <= len(area) - 12:
        _, flags, checksum, *addresses = _HEADER.unpack(area[at : at + _HEADER.size].ljust(_HEADER.size, b"\0"))
        if at % 4 == 0 and (HEADER_MAGIC + flags + checksum) & 0xFFFFFFFF == 0:
            return Header(at, flags, *addresses)
        at = area.find(magic, at + 1)
    return None


def parse(image: ImageFile, head: bytes, kernel: elf.ElfKernel | None) -> elf.ElfKernel:
    """What to load, from the header's own addresses or as the ELF headers say."""
    header = find(head)
    if header is None:
        raise image.error("no multiboot header")
    if header.flags & 0xFFFF & ~UNDERSTOOD:
        raise image.error(f"the multiboot header asks for unknown features, flags {header.flags:#x}")
    if header.flags & HAS_ADDRESSES:
        kernel = _flat(image, header)
    if kernel is None:
        raise image.error("the multiboot header gives no addresses, and the file is not ELF")
    if kernel.entry > 0xFFFFFFFF or not any(place.holds(kernel.entry, 1) for place in kernel.places):
        raise image.error(f"the multiboot entry {kernel.entry:#x} lies in nothing that is loaded")
    return kernel


def enter(
    ram: GuestRam,
    entry: int,
    names: tuple[str, str],
    cmdline: bytes,
    module: RamRange | None,
    memory_map: Sequence[E820Entry],
) -> BootEntry:
    """Write the information structure; EBX points to it. `names` are the paths of kernel and module."""
    kernel_name, module_name = (os.fsencode(os.path.basename(name)) for name in names)
    ram.write(lowmem.CMDLINE.start, kernel_name[:NAME_MAX] + b" " + cmdline + b"\0")
    ram.write(LOADER_NAME.start, b"aioemu\0")
    entries = b"".join(_MMAP.pack(_MMAP.size - 4, e.start, e.size, e.kind) for e in memory_map)
    ram.write(lowmem.MEMORY_MAP.start, entries)
    flags = INFO_MEMORY | INFO_CMDLINE | INFO_MMAP | INFO_LOADER_NAME
    if module is not None:
        flags |= INFO_MODS
        name = module_name[: MODULE_NAME.size - 1]
        ram.write(MODULE_NAME.start, name + b"\0")
        ram.write(MODULE.start, _MODULE.pack(module.start, module.end, MODULE_NAME.start, 0))
    upper = next((e for e in memory_map if e.start == lowmem.FIRMWARE_END and e.kind is E820Type.RAM), None)
    info = _INFO.pack(
        *(flags, lowmem.EBDA_START >> 10, upper.size >> 10 if upper else 0, 0, lowmem.CMDLINE.start),
        *((1, MODULE.start) if module is not None else (0, 0)),
        *(0, 0, 0, 0),
        *(len(entries), lowmem.MEMORY_MAP.start),
        *(0, 0, 0),
        LOADER_NAME.start,
        *(0,) * 12,
    )
    ram.write(lowmem.START_INFO.start, info)
    gdt = paging.write_gdt(ram, long=False)
    state = flat_entry(BootMode.PROTECTED32, entry, gdt, paging.CODE_SELECTOR, paging.DATA_SELECTOR)
    return replace(state, rax=LOADER_MAGIC, rbx=lowmem.START_INFO.start, rsp=lowmem.STACK_TOP)


def _flat(image: ImageFile, header: Header) -> elf.ElfKernel:
    """The header's addresses as one segment (section 3.1.3)."""
    offset = header.offset - (header.header_addr - header.load_addr)
    end = header.load_end_addr or header.load_addr + image.size_hint - offset
    if header.header_addr < header.load_addr or offset < 0 or end <= header.load_addr:
        raise image.error("the multiboot header's addresses contradict each other")
    memory_end = max(header.bss_end_addr, end) if header.bss_end_addr else end
    segment = elf.Segment(
        elf.PT_LOAD, offset, header.load_addr, header.load_addr, end - header.load_addr, memory_end - header.load_addr
    )
    return elf.ElfKernel(32, header.entry_addr, elf.loadable(image, [segment]), None)
