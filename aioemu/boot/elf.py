"""Reads an ELF kernel's headers and puts its segments into guest RAM at their physical addresses.

32- and 64-bit little-endian x86 executables. Sections, relocations and dynamic linking are not looked at. The file is
not trusted: every count, offset and address is checked before it is used, against the file and against RAM.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from msgspec import Struct

from aioemu.boot import lowmem
from aioemu.boot.image import ImageFile
from aioemu.boot.ram import GuestRam, RamRange, runs_of

MAGIC = b"\x7fELF"
HEADERS_MAX = 128  # program headers; Linux has 5, linkers make one per segment kind. 0xffff would be extended numbering
NOTES_MAX = 64 << 10  # bytes in all PT_NOTE segments; Linux has some 500
ADDRESS_BITS = 52  # physical addresses that page tables can name
ZERO_CHUNK = bytes(1 << 20)

ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_NOTE = 1, 4
XEN_NAME, PHYS32_ENTRY = b"Xen\0", 18  # XEN_ELFNOTE_PHYS32_ENTRY (PVH ABI)


class _Class(Struct, frozen=True):
    """What differs between the two ELF classes."""

    bits: int
    machine: int
    header: struct.Struct  # after e_ident: type machine version entry phoff shoff flags ehsize phentsize phnum
    program: struct.Struct


_CLASSES = {
    1: _Class(32, 3, struct.Struct("<HHIIIIIHHH"), struct.Struct("<8I")),
    2: _Class(64, 62, struct.Struct("<HHIQQQIHHH"), struct.Struct("<IIQQQQQQ")),
}


class Segment(Struct, frozen=True):
    """One program header, fields as the specification names them."""

    p_type: int
    p_offset: int
    p_vaddr: int
    p_paddr: int
    p_filesz: int
    p_memsz: int

    @property
    def place(self) -> RamRange:
        return RamRange(self.p_paddr, self.p_memsz)


class ElfKernel(Struct, frozen=True):
    """A kernel whose headers hold together."""

    bits: int
    entry: int  # physical
    segments: tuple[Segment, ...]
    pvh_entry: int | None

    @property
    def places(self) -> list[RamRange]:
        return [segment.place for segment in self.segments]


def parse(image: ImageFile, head: bytes) -> ElfKernel:
    """Check the headers. `head` is the file's beginning, as read once by the caller."""
    cls = _CLASSES.get(head[4]) if len(head) > 4 else None
    if cls is None or len(head) < 16 + cls.header.size:
        raise image.error("truncated ELF header" if len(head) < 64 else f"unknown ELF class {head[4]}")
    if head[5] != 1:
        raise image.error("a big-endian ELF file is no x86 kernel")
    e_type, machine, _, entry, phoff, _, _, _, phentsize, phnum = cls.header.unpack_from(head, 16)
    if machine != cls.machine:
        raise image.error(f"ELF machine {machine} in a {cls.bits}-bit file, an x86 kernel has {cls.machine}")
    if e_type not in (ET_EXEC, ET_DYN):
        raise image.error(f"ELF type {e_type} is not executable")
    if phentsize != cls.program.size or not 0 < phnum <= HEADERS_MAX:
        reason = f"{phnum} ELF program headers of {phentsize} bytes, expected 1 to {HEADERS_MAX} of {cls.program.size}"
        raise image.error(reason)
    headers = _headers(image, head, cls, phoff, phnum)
    segments = loadable(image, headers)
    return ElfKernel(cls.bits, _physical(entry, segments), segments, _pvh_entry(image, headers, segments))


def load(ram: GuestRam, image: ImageFile, kernel: ElfKernel) -> None:
    """Fill RAM with every segment: the file's bytes, then zeros."""
    for segment in kernel.segments:
        if not any(run.holds(segment.p_paddr, segment.p_memsz) for run in ram.ranges):
            raise image.error(f"a segment at {segment.place} does not lie in RAM ({runs_of(ram)})")
    for segment in kernel.segments:
        place = RamRange(segment.p_paddr, segment.p_filesz)
        image.load(segment.p_offset, ram, place, f"the segment at {segment.p_paddr:#x}")
        _zero(ram, segment.p_paddr + segment.p_filesz, segment.p_memsz - segment.p_filesz)


def _headers(image: ImageFile, head: bytes, cls: _Class, phoff: int, phnum: int) -> list[Segment]:
    size = cls.program.size * phnum
    raw = head[phoff : phoff + size]
    if len(raw) < size:
        raw = image.read_exact(phoff, size, "the table of ELF program headers")
    headers = []
    for fields in cls.program.iter_unpack(raw):
        if cls.bits == 64:
            p_type, _, offset, vaddr, paddr, filesz, memsz, _ = fields
        else:
            p_type, offset, vaddr, paddr, filesz, memsz, _, _ = fields
        headers.append(Segment(p_type, offset, vaddr, paddr, filesz, memsz))
    return headers


def loadable(image: ImageFile, headers: list[Segment]) -> tuple[Segment, ...]:
    """The segments to load, ascending, or an error where one cannot be placed whatever the machine's RAM is."""
    segments = sorted((h for h in headers if h.p_type == PT_LOAD and h.p_memsz), key=lambda h: h.p_paddr)
    if not segments:
        raise image.error("no ELF segment to load")
    for index, segment in enumerate(segments):
        where = f"the segment at {segment.p_paddr:#x}"
        if segment.p_filesz > segment.p_memsz:
            raise image.error(f"{where} has {segment.p_filesz} bytes in the file, {segment.p_memsz} in memory")
        if (segment.p_paddr + segment.p_memsz) >> ADDRESS_BITS:
            raise image.error(f"{where} of {segment.p_memsz:#x} bytes ends beyond the address space")
        over = next((own for own in lowmem.KEPT if own.overlaps(segment.place)), None)
        if over is not None:
            raise image.error(f"{where} lies over {over}, which is kept for start data")
        if index and segments[index - 1].place.overlaps(segment.place):
            raise image.error(f"{where} overlaps the segment at {segments[index - 1].p_paddr:#x}")
    return tuple(segments)


def _physical(entry: int, segments: tuple[Segment, ...]) -> int:
    """The entry point as a physical address: some linkers give the virtual one."""
    if any(s.place.holds(entry, 1) for s in segments):
        return entry
    inside = (s for s in segments if s.p_vaddr <= entry < s.p_vaddr + s.p_memsz)
    return next((entry - s.p_vaddr + s.p_paddr for s in inside), entry)


def _pvh_entry(image: ImageFile, headers: list[Segment], segments: tuple[Segment, ...]) -> int | None:
    budget = NOTES_MAX
    for header in headers:
        if header.p_type != PT_NOTE:
            continue
        budget -= header.p_filesz
        if budget < 0:
            raise image.error(f"more than {NOTES_MAX} bytes of ELF notes")
        notes = image.read_exact(header.p_offset, header.p_filesz, "the ELF notes")
        entry = _phys32_entry(notes)
        if entry is not None:
            if entry > 0xFFFFFFFF or not any(s.place.holds(entry, 1) for s in segments):
                raise image.error(f"the PVH entry {entry:#x} lies in no segment below 4 GiB")
            return entry
    return None


def _phys32_entry(notes: bytes) -> int | None:
    # Some linkers raise p_align to 8 though the notes in it stay aligned to 4 bytes: try both, 4 first.
    for align in (4, 8):
        for name, kind, desc in _walk_notes(notes, align):
            if name == XEN_NAME and kind == PHYS32_ENTRY and len(desc) in (4, 8):
                return int.from_bytes(desc, "little")
    return None


def _walk_notes(notes: bytes, align: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Each note; every step goes at least 12 bytes forward, a note that leaves the data ends the walk."""
    offset = 0
    while offset + 12 <= len(notes):
        namesz, descsz, kind = struct.unpack_from("<III", notes, offset)
        name_at = offset + 12
        desc_at = -(-(name_at + namesz) // align) * align
        end = desc_at + descsz
        if end > len(notes):
            return
        yield notes[name_at : name_at + namesz], kind, notes[desc_at:end]
        offset = -(-end // align) * align


def _zero(ram: GuestRam, address: int, size: int) -> None:
    """RAM may hold what ran before a reset."""
    while size:
        count = min(size, len(ZERO_CHUNK))
        ram.write(address, memoryview(ZERO_CHUNK)[:count])
        address, size = address + count, size - count
