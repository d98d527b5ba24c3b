"""ELF kernels: what is loaded where, and what hostile headers get."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from aioemu.boot.elf import HEADERS_MAX, NOTES_MAX
from aioemu.boot.entry import BootMode
from aioemu.boot.loader import BootLayout, KernelImage, load
from aioemu.boot.ram import RamRange
from aioemu.errors import ConfigError
from tests.boot.fakes import MIB, PVH_NOTE, Elf, FakeRam, Load, put


def boot(folder: Path, elf: Elf | bytes, ram: FakeRam | None = None) -> str:
    """The error that this kernel gets."""
    ram = ram or FakeRam()
    path = put(folder, elf if isinstance(elf, bytes) else elf.build())
    with pytest.raises(ConfigError) as caught:
        load(ram, KernelImage(path), BootLayout())
    ram.assert_no_view_is_held()
    assert path in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("bits", [32, 64])
def test_pvh_note_gives_the_32_bit_entry(tmp_path: Path, bits: int) -> None:
    """A kernel with a PHYS32_ENTRY note starts there in flat protected mode, whatever its ELF class is."""
    ram = FakeRam()
    elf = Elf([Load(0x200000, b"code" * 4)], PVH_NOTE[:16] + struct.pack("<Q", 0x200004), bits=bits)

    entry = load(ram, KernelImage(put(tmp_path, elf.build())), BootLayout())

    assert entry.mode is BootMode.PVH32
    assert entry.rip == 0x200004
    assert ram.read(0x200000, 16) == b"code" * 4
    assert RamRange(0x200000, 16) in ram.told
    ram.assert_no_view_is_held()


def test_note_with_a_32_bit_descriptor(tmp_path: Path) -> None:
    """The entry in a PVH note may have 4 bytes."""
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x100010)
    assert load(FakeRam(), KernelImage(put(tmp_path, Elf(notes=note).build())), BootLayout()).rip == 0x100010


def test_note_behind_others(tmp_path: Path) -> None:
    """Notes of other names and types, of odd lengths, are stepped over with their padding."""
    others = struct.pack("<III4s3sx", 4, 3, 18, b"GNU\0", b"abc") + struct.pack(
        "<III8s4s", 6, 4, 7, b"Linux\0", b"wxyz"
    )
    assert (
        load(FakeRam(), KernelImage(put(tmp_path, Elf(notes=others + PVH_NOTE).build())), BootLayout()).rip == 0x100000
    )


def test_notes_aligned_to_8_bytes(tmp_path: Path) -> None:
    """A note after one that is padded to 8 bytes is found."""
    first = struct.pack("<III4s4s4x", 4, 4, 5, b"GNU\0", b"1234")
    image = Elf(notes=first + PVH_NOTE).build()
    assert load(FakeRam(), KernelImage(put(tmp_path, image)), BootLayout()).rip == 0x100000


def test_what_the_file_does_not_fill_is_zeroed(tmp_path: Path) -> None:
    """The tail of a segment is zero even where the guest left something before a reset."""
    ram = FakeRam()
    load(ram, KernelImage(put(tmp_path, Elf([Load(memsz=3 * MIB + 5)]).build())), BootLayout())

    assert ram.read(0x100000, 64) == b"\xf4" * 64
    assert not any(ram.read(0x100040, 3 * MIB + 5 - 64))
    assert ram.read(0x100000 + 3 * MIB + 5, 1) == b"\xa5"


def test_virtual_entry_is_translated(tmp_path: Path) -> None:
    """An entry point given as a virtual address is found in its segment."""
    elf = Elf([Load(0x200000, vaddr=0xFFFFFFFF81000000)], b"", entry=0xFFFFFFFF81000010)
    entry = load(FakeRam(), KernelImage(put(tmp_path, elf.build())), BootLayout())

    assert entry.mode is BootMode.LONG64
    assert entry.rip == 0x200010


HOSTILE: dict[str, tuple[Elf | bytes, str]] = {
    "only the magic": (b"\x7fELF", "truncated"),
    "cut in the header": (Elf().build()[:40], "truncated"),
    "class 3": (Elf().build()[:4] + b"\x03" + Elf().build()[5:], "class 3"),
    "big-endian": (Elf(data=2), "big-endian"),
    "arm64": (Elf(machine=183), "machine 183"),
    "64-bit class, 32-bit machine": (Elf(machine=3), "machine 3"),
    "object file": (Elf(e_type=1), "type 1"),
    "core dump": (Elf(e_type=4), "type 4"),
    "no headers": (Elf(phnum=0), "0 ELF program headers"),
    "extended numbering": (Elf(phnum=0xFFFF), "65535 ELF program headers"),
    "too many headers": (Elf(phnum=HEADERS_MAX + 1), f"{HEADERS_MAX + 1} ELF program headers"),
    "headers of 0 bytes": (Elf(phentsize=0), "of 0 bytes"),
    "headers of 32 bytes": (Elf(phentsize=32), "of 32 bytes"),
    "headers past the end": (Elf(phoff=1 << 20), "truncated"),
    "headers at the end of numbers": (Elf(phoff=(1 << 64) - 1), "truncated"),
    "headers at a negative offset": (Elf(phoff=1 << 63), "truncated"),
    "only a note": (Elf([Load(kind=4)]), "no ELF segment"),
    "empty segments": (Elf([Load(data=b"", memsz=0)]), "no ELF segment"),
    "data past the end": (Elf([Load(offset=1 << 20)]), "truncated"),
    "data at the end of numbers": (Elf([Load(offset=(1 << 64) - 32)]), "truncated"),
    "more data than memory": (Elf([Load(memsz=8)]), "64 bytes in the file, 8 in memory"),
    "file size all ones": (Elf([Load(filesz=(1 << 64) - 1, memsz=(1 << 64) - 1)]), "beyond the address space"),
    "memory size all ones": (Elf([Load(memsz=(1 << 64) - 1)]), "beyond the address space"),
    "memory beyond RAM": (Elf([Load(memsz=64 * MIB)]), "does not lie in RAM"),
    "wrapping address": (Elf([Load(paddr=(1 << 64) - 32, memsz=64)]), "beyond the address space"),
    "far address": (Elf([Load(), Load(1 << 40)]), "does not lie in RAM"),
    "over the interrupt vectors": (Elf([Load(paddr=0)]), "lies over 0x0"),
    "over the command line": (Elf([Load(paddr=0x2FFFF)]), "lies over 0x0..0x2ffff"),
    "reaching into the EBDA": (Elf([Load(paddr=0x9FBFF)]), "lies over 0x9fc00"),
    "over video memory": (Elf([Load(paddr=0xB8000)]), "lies over 0x9fc00..0xdffff"),
    "over everything": (Elf([Load(paddr=0, memsz=32 * MIB)]), "lies over 0x0"),
    "overlapping segments": (Elf([Load(), Load(0x100020)]), "overlaps"),
    "same segment twice": (Elf([Load(), Load()]), "overlaps"),
    "overlap behind the file's bytes": (Elf([Load(memsz=0x2000), Load(0x101000)]), "overlaps"),
    "pvh entry outside": (Elf(notes=PVH_NOTE[:16] + struct.pack("<Q", 0x300000)), "PVH entry 0x300000"),
    "pvh entry beyond 32 bits": (Elf(notes=PVH_NOTE[:16] + struct.pack("<Q", 1 << 40)), "PVH entry"),
    "notes past the end": (Elf([Load(), Load(0, b"", filesz=4096, offset=1 << 20, kind=4)], b""), "truncated"),
    "huge notes": (Elf([Load(), Load(0, b"", filesz=1 << 60, kind=4)], b""), f"more than {NOTES_MAX}"),
    "64-bit entry outside": (Elf(notes=b"", entry=0x5000), "entry 0x5000"),
    "64-bit entry all ones": (Elf(notes=b"", entry=(1 << 64) - 1), "entry"),
    "32-bit without note": (Elf(notes=b"", bits=32), "PVH note or a multiboot header"),
    "note name of 4 GiB": (Elf(notes=struct.pack("<III", 0xFFFFFFFF, 8, 18) + PVH_NOTE[12:], bits=32), "PVH note"),
    "note contents of 4 GiB": (Elf(notes=struct.pack("<III", 4, 0xFFFFFFFF, 18) + PVH_NOTE[12:], bits=32), "PVH note"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_elf_is_refused_by_name(tmp_path: Path, case: str) -> None:
    """A spoiled kernel file is refused with its name and what is wrong with it."""
    elf, reason = HOSTILE[case]
    assert reason in boot(tmp_path, elf)


def test_endless_notes_end(tmp_path: Path) -> None:
    """A note segment full of empty notes, the largest allowed, is walked once and no more."""
    assert "PVH note" in boot(tmp_path, Elf(notes=bytes(NOTES_MAX // 12 * 12), bits=32))


def test_many_note_segments_share_one_bound(tmp_path: Path) -> None:
    """The bound on notes holds for all segments together."""
    notes = [Load(0, bytes(NOTES_MAX // 2), kind=4) for _ in range(3)]
    assert f"more than {NOTES_MAX}" in boot(tmp_path, Elf([Load(), *notes], b""))


def test_segment_across_a_hole_is_refused(tmp_path: Path) -> None:
    """A segment must lie in one range of RAM."""
    ram = FakeRam(RamRange(0, 4 * MIB), RamRange(5 * MIB, 4 * MIB))
    assert "does not lie in RAM" in boot(tmp_path, Elf([Load(), Load(3 * MIB, memsz=3 * MIB)]), ram)


def test_sparse_file_of_many_gigabytes_costs_nothing(tmp_path: Path) -> None:
    """A file's size alone makes nothing be read or allocated."""
    path = Path(put(tmp_path, Elf().build()))
    os.truncate(path, 1 << 40)

    assert load(FakeRam(), KernelImage(str(path)), BootLayout()).rip == 0x100000
