"""The PVH start info, as a guest reads it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from aioemu.boot.e820 import E820Entry, E820Type
from aioemu.boot.entry import CR0_ET, CR0_PE, BootMode
from aioemu.boot.loader import BootLayout, KernelImage, load
from aioemu.boot.tables import FirmwareTables, Placement
from aioemu.errors import ConfigError
from tests.boot.fakes import MIB, Elf, FakeRam, put


def test_start_info_leads_to_everything(tmp_path: Path) -> None:
    """hvm_start_info version 1 names command line, initrd, RSDP and memory map."""
    ram = FakeRam()
    initrd = put(tmp_path, b"initrd" * 1000, "initrd")
    image = KernelImage(put(tmp_path, Elf().build()), initrd, "console=ttyS0 naïve")
    tables = FirmwareTables.of([Placement("RSDP", 0xE0000, b"RSD PTR ")])
    ecam = E820Entry(0xB0000000, 256 * MIB, E820Type.RESERVED)

    entry = load(ram, image, BootLayout((ecam,)), tables)

    info = struct.unpack("<4I4Q2I", ram.read(entry.rbx, 56))
    magic, version, flags, modules, module_list, cmdline, rsdp, memory_map, entries, reserved = info
    assert (magic, version, flags, modules, rsdp, reserved) == (0x336EC578, 1, 0, 1, 0xE0000, 0)
    assert ram.read(cmdline, 64).split(b"\0")[0] == "console=ttyS0 naïve".encode()
    start, size, module_cmdline, _ = struct.unpack("<4Q", ram.read(module_list, 32))
    assert ram.read(start, size) == b"initrd" * 1000
    assert start % 4096 == 0
    assert module_cmdline == 0
    assert ram.read(0xE0000, 8) == b"RSD PTR "
    lines = list(struct.iter_unpack("<QQII", ram.read(memory_map, 24 * entries)))
    assert lines[0] == (0, 0x9FC00, 1, 0)
    assert (0x100000, 63 * MIB, 1, 0) in lines
    assert lines[-1] == (0xB0000000, 256 * MIB, 2, 0)


def test_without_initrd_and_tables(tmp_path: Path) -> None:
    """What is not there is not pointed to."""
    ram = FakeRam()
    entry = load(ram, KernelImage(put(tmp_path, Elf().build())), BootLayout())

    info = struct.unpack("<4I4Q2I", ram.read(entry.rbx, 56))
    assert info[3:5] == (0, 0)
    assert info[6] == 0
    assert ram.read(info[5], 1) == b"\0"


def test_processor_state_is_what_the_abi_says(tmp_path: Path) -> None:
    """Flat 32-bit segments of 4 GiB, protected mode without paging, a TSS of 0x67 bytes, interrupts off."""
    entry = load(FakeRam(), KernelImage(put(tmp_path, Elf().build())), BootLayout())

    assert entry.mode is BootMode.PVH32
    assert (entry.cr0, entry.cr3, entry.cr4, entry.efer, entry.rflags) == (CR0_PE | CR0_ET, 0, 0, 0, 2)
    for segment in (entry.cs, entry.ds, entry.es, entry.ss):
        assert (segment.base, segment.limit, segment.default_big, segment.present) == (0, 0xFFFFFFFF, True, True)
    assert entry.cs.kind & 0x8
    assert not entry.cs.long
    assert (entry.tr.base, entry.tr.limit, entry.tr.kind) == (0, 0x67, 0xB)


def test_selectors_match_the_table_in_memory(tmp_path: Path) -> None:
    """A guest that reloads its segments finds the same descriptors in the GDT."""
    ram = FakeRam()
    entry = load(ram, KernelImage(put(tmp_path, Elf().build())), BootLayout())

    for segment in (entry.cs, entry.ds):
        descriptor = ram.u64(entry.gdt.base + segment.selector)
        assert segment.selector + 7 <= entry.gdt.limit
        assert descriptor >> 40 & 0xF == segment.kind
        assert bool(descriptor >> 54 & 1) == segment.default_big
        assert bool(descriptor >> 53 & 1) == segment.long
        assert descriptor & 0xFFFF | descriptor >> 32 & 0xF0000 == 0xFFFFF


@pytest.mark.parametrize("cmdline", ["a\0b", "x" * 65536, "\ud800"])
def test_command_line_that_cannot_be_passed(tmp_path: Path, cmdline: str) -> None:
    """A command line with NUL, too long or not encodable is refused and blamed on its option."""
    with pytest.raises(ConfigError, match="command line") as caught:
        load(FakeRam(), KernelImage(put(tmp_path, Elf().build()), None, cmdline), BootLayout())
    assert caught.value.option == "append"


def test_longest_command_line(tmp_path: Path) -> None:
    """64 KiB less the NUL reach the guest whole."""
    ram = FakeRam()
    entry = load(ram, KernelImage(put(tmp_path, Elf().build()), None, "x" * 65535), BootLayout())

    address = ram.u64(entry.rbx + 24)
    assert ram.read(address, 65536) == b"x" * 65535 + b"\0"


def test_bytes_of_a_command_line_survive(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 arrive as the shell gave them."""
    ram = FakeRam()
    given = b"a=\xff".decode("utf-8", "surrogateescape")
    entry = load(ram, KernelImage(put(tmp_path, Elf().build()), None, given), BootLayout())

    assert ram.read(ram.u64(entry.rbx + 24), 4) == b"a=\xff\0"
