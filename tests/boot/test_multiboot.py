"""Multiboot kernels: ELF and flat, the information structure, hostile headers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from aioemu.boot.entry import BootMode
from aioemu.boot.loader import BootLayout, KernelImage, load
from aioemu.errors import ConfigError
from tests.boot.fakes import MIB, Elf, FakeRam, Load, multiboot, put

FLAT = 1 << 16


def flat(*addresses: int, before: int = 0, size: int = 4096) -> bytes:
    return (b"\x90" * before + multiboot(FLAT, addresses)).ljust(size, b"\xf4")


@pytest.mark.parametrize("bits", [32, 64])
def test_elf_kernel(tmp_path: Path, bits: int) -> None:
    """An ELF kernel with a header in its first 8 KiB is entered with the loader's magic in EAX."""
    elf = Elf([Load(data=multiboot(3) + b"code")], b"", bits=bits, entry=0x10000C)
    entry = load(FakeRam(), KernelImage(put(tmp_path, elf.build())), BootLayout())

    assert (entry.mode, entry.rip, entry.rax) == (BootMode.PROTECTED32, 0x10000C, 0x2BADB002)


def test_flat_kernel(tmp_path: Path) -> None:
    """With the address fields the file is loaded as they say, and what follows is zeroed up to bss_end_addr."""
    ram = FakeRam()
    image = flat(0x100010, 0x100000, 0x100100, 0x100200, 0x100080, before=16)
    entry = load(ram, KernelImage(put(tmp_path, image)), BootLayout())

    assert entry.rip == 0x100080
    assert ram.read(0x100000, 0x100) == image[:0x100]
    assert ram.read(0x100100, 0x100) == bytes(0x100)
    assert ram.read(0x100200, 1) == b"\xa5"


def test_flat_kernel_of_the_whole_file(tmp_path: Path) -> None:
    """load_end_addr 0 means the whole file."""
    ram = FakeRam()
    load(ram, KernelImage(put(tmp_path, flat(0x100000, 0x100000, 0, 0, 0x100080))), BootLayout())
    assert ram.read(0x100FFF, 2) == b"\xf4\xa5"


def test_information(tmp_path: Path) -> None:
    """Memory sizes, command line with the kernel's name first, the module and the memory map are all there."""
    ram = FakeRam()
    kernel = put(tmp_path, flat(0x100000, 0x100000, 0, 0, 0x100080), "my.flat")
    entry = load(ram, KernelImage(kernel, put(tmp_path, b"module!", "m.img"), "a b"), BootLayout())

    flags, lower, upper, _, cmdline, count, modules = struct.unpack("<7I", ram.read(entry.rbx, 28))
    assert flags == 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
    assert (lower, upper, count) == (639, 63 * 1024, 1)
    assert ram.read(cmdline, 12) == b"my.flat a b\0"
    start, end, name, _ = struct.unpack("<4I", ram.read(modules, 16))
    assert ram.read(start, end - start) == b"module!"
    assert ram.read(name, 6) == b"m.img\0"
    length, address = struct.unpack("<II", ram.read(entry.rbx + 44, 8))
    lines = list(struct.iter_unpack("<IQQI", ram.read(address, length)))
    assert lines[0] == (20, 0, 0x9FC00, 1)
    assert ram.read(ram.u32(entry.rbx + 64), 7) == b"aioemu\0"


def test_pvh_note_is_preferred(tmp_path: Path) -> None:
    """A kernel that has both is entered by PVH."""
    entry = load(FakeRam(), KernelImage(put(tmp_path, Elf([Load(data=multiboot(3))]).build())), BootLayout())
    assert entry.mode is BootMode.PVH32


HOSTILE = {
    "bad checksum": (multiboot(0, spoil=1).ljust(4096), "no kernel"),
    "misaligned": ((b"\0" + multiboot(0)).ljust(4096), "no kernel"),
    "beyond the search": (bytes(8192) + multiboot(0), "no kernel"),
    "unknown needs": (multiboot(1 << 5).ljust(4096), "unknown features"),
    "no addresses, no ELF": (multiboot(3).ljust(4096), "no addresses"),
    "load behind the header": (flat(0x100000, 0x200000, 0, 0, 0x200000), "contradict"),
    "load before the file": (flat(0x200000, 0x100000, 0, 0, 0x100000), "contradict"),
    "end before start": (flat(0x100000, 0x100000, 0xFFFFF, 0, 0x100000), "contradict"),
    "end beyond the file": (flat(0x100000, 0x100000, 0x110000, 0, 0x100000), "truncated"),
    "memory of 4 GiB": (flat(0x100000, 0x100000, 0, 0xFFFFFFFF, 0x100000), "does not lie in RAM"),
    "load over start data": (flat(0x7000, 0x7000, 0, 0, 0x7000), "lies over 0x0"),
    "entry outside": (flat(0x100000, 0x100000, 0, 0, 0x500000), "multiboot entry"),
    "cut header": (multiboot(FLAT, [0x100000]), "contradict"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_multiboot_is_refused_by_name(tmp_path: Path, case: str) -> None:
    """A spoiled kernel file is refused with its name and what is wrong with it."""
    data, reason = HOSTILE[case]
    ram = FakeRam()
    path = put(tmp_path, data)
    with pytest.raises(ConfigError, match=reason) as caught:
        load(ram, KernelImage(path), BootLayout())
    assert path in str(caught.value)
    ram.assert_no_view_is_held()


def test_long_names_are_cut(tmp_path: Path) -> None:
    """Names of files never push the structures apart."""
    kernel = put(tmp_path, flat(0x100000, 0x100000, 0, 0, 0x100080), "k" * 255)
    ram = FakeRam()
    entry = load(ram, KernelImage(kernel, put(tmp_path, b"m", "m" * 255)), BootLayout())
    assert ram.read(ram.u32(ram.u32(entry.rbx + 24) + 8), 96) == b"m" * 95 + b"\0"
    assert ram.ranges[0].size == 64 * MIB
