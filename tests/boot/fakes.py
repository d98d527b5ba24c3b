"""Guest RAM made of bytearrays, and images built field by field, so that a test can spoil exactly one of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aioemu.boot.ram import RamRange
from aioemu.errors import GuestError

MIB = 1 << 20
DIRTY_SIZE = 8 * MIB  # enough for every promise about what was there before; more costs time
PVH_NOTE = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x100000)
MULTIBOOT_MAGIC = 0x1BADB002


class FakeRam:
    """RAM that starts out dirty, as after a reset, and knows what was written and which views are still held."""

    def __init__(self, *ranges: RamRange) -> None:
        self._ranges = ranges or (RamRange(0, 64 * MIB),)
        self.buffers = [bytearray(run.size) for run in self._ranges]
        self.buffers[0][:DIRTY_SIZE] = b"\xa5" * min(DIRTY_SIZE, self._ranges[0].size)
        self.told: list[RamRange] = []

    @property
    def ranges(self) -> Sequence[RamRange]:
        return self._ranges

    def view(self, address: int, size: int) -> memoryview:
        for run, buffer in zip(self._ranges, self.buffers, strict=True):
            if size >= 0 and run.holds(address, size):
                return memoryview(buffer)[address - run.start : address - run.start + size]
        raise GuestError(f"{address:#x} and {size} bytes on: not guest memory")

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.view(address, size))

    def write(self, address: int, data: bytes | memoryview) -> None:
        self.view(address, len(data))[:] = data

    def written(self, address: int, size: int) -> None:
        self.told.append(RamRange(address, size))

    def assert_no_view_is_held(self) -> None:
        for buffer in self.buffers:
            buffer.append(0)  # BufferError while a view is held
            buffer.pop()

    def u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")


@dataclass
class Load:
    """One program header with its bytes; `None` follows from the data."""

    paddr: int = 0x100000
    data: bytes = b"\xf4" * 64
    memsz: int | None = None
    filesz: int | None = None
    offset: int | None = None
    vaddr: int | None = None
    kind: int = 1
    align: int = 4


@dataclass
class Elf:
    """An ELF file; every header field can be overridden."""

    loads: list[Load] = field(default_factory=lambda: [Load()])
    notes: bytes = PVH_NOTE
    bits: int = 64
    machine: int | None = None
    e_type: int = 2
    data: int = 1
    entry: int = 0x100000
    phoff: int | None = None
    phnum: int | None = None
    phentsize: int | None = None

    def build(self) -> bytes:
        wide = self.bits == 64
        header_size, entry_size = (64, 56) if wide else (52, 32)
        headers = [*self.loads]
        if self.notes:
            headers.append(Load(0, self.notes, kind=4))
        at = header_size + entry_size * len(headers)
        table, body = b"", b""
        for load in headers:
            offset = at + len(body) if load.offset is None else load.offset
            filesz = len(load.data) if load.filesz is None else load.filesz
            memsz = len(load.data) if load.memsz is None else load.memsz
            vaddr = load.paddr if load.vaddr is None else load.vaddr
            if wide:
                table += struct.pack("<IIQQQQQQ", load.kind, 7, offset, vaddr, load.paddr, filesz, memsz, load.align)
            else:
                table += struct.pack("<8I", load.kind, offset, vaddr, load.paddr, filesz, memsz, 7, load.align)
            body += load.data
        machine = (62 if wide else 3) if self.machine is None else self.machine
        phoff = header_size if self.phoff is None else self.phoff
        phnum = len(headers) if self.phnum is None else self.phnum
        phentsize = entry_size if self.phentsize is None else self.phentsize
        ident = struct.pack("<4sBBB9x", b"\x7fELF", 2 if wide else 1, self.data, 1)
        layout = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
        fields = (self.e_type, machine, 1, self.entry, phoff, 0, 0, header_size, phentsize, phnum, 0, 0, 0)
        return ident + struct.pack(layout, *fields) + table + body


@dataclass
class BzImage:
    """A bzImage as Linux makes them; fields as in the boot protocol."""

    payload: bytes = b"\x90" * 1024
    setup_sects: int = 3
    syssize: int | None = None
    boot_flag: int = 0xAA55
    jump: int = 0x6A  # the header ends at 0x202 + this: 0x26c
    version: int = 0x020F
    loadflags: int = 1
    code32_start: int = 0x100000
    initrd_addr_max: int = 0x7FFFFFFF
    relocatable: int = 1
    xloadflags: int = 0x7F
    cmdline_size: int = 2047
    payload_offset: int = 16
    payload_length: int = 512
    pref_address: int = 0x1000000
    init_size: int = 0x200000

    def build(self) -> bytes:
        page = bytearray(((self.setup_sects or 4) + 1) * 512)
        syssize = -(-len(self.payload) // 16) if self.syssize is None else self.syssize
        for offset, layout, value in (
            (0x1F1, "<B", self.setup_sects),
            (0x1F4, "<I", syssize),
            (0x1FE, "<H", self.boot_flag),
            (0x200, "<BB", None),
            (0x206, "<H", self.version),
            (0x211, "<B", self.loadflags),
            (0x214, "<I", self.code32_start),
            (0x22C, "<I", self.initrd_addr_max),
            (0x234, "<B", self.relocatable),
            (0x236, "<H", self.xloadflags),
            (0x238, "<I", self.cmdline_size),
            (0x248, "<I", self.payload_offset),
            (0x24C, "<I", self.payload_length),
            (0x258, "<Q", self.pref_address),
            (0x260, "<I", self.init_size),
        ):
            values = (0xEB, self.jump) if value is None else (value,)
            struct.pack_into(layout, page, offset, *values)
        page[0x202:0x206] = b"HdrS"
        return bytes(page) + self.payload


def multiboot(flags: int = 0, addresses: Sequence[int] = (), spoil: int = 0) -> bytes:
    """A multiboot header; `addresses` are header, load, load end, bss end, entry."""
    checksum = -(MULTIBOOT_MAGIC + flags) + spoil & 0xFFFFFFFF
    return struct.pack(f"<III{len(addresses)}I", MULTIBOOT_MAGIC, flags, checksum, *addresses)


def put(folder: Path, data: bytes, name: str = "kernel") -> str:
    """The path of a new file with these bytes."""
    path = folder / name
    path.write_bytes(data)
    return str(path)
