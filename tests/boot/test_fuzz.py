"""Spoiled kernels of every kind: the answer is a boot or an error that names the file, and nothing else ever."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aioemu.boot.entry import BootMode
from aioemu.boot.loader import BootLayout, KernelImage, load
from aioemu.boot.ram import RamRange
from aioemu.errors import ConfigError
from tests.boot.fakes import MIB, BzImage, Elf, FakeRam, Load, multiboot, put

SEEDS: dict[str, bytes] = {
    "elf64": Elf([Load(memsz=0x2000), Load(0x200000, b"data" * 8)]).build(),
    "elf32": Elf([Load(memsz=0x2000), Load(0x200000, b"data" * 8)], bits=32).build(),
    "vmlinux": Elf(notes=b"").build(),
    "bzimage": BzImage(pref_address=0x200000, init_size=0x100000).build(),
    "multiboot": multiboot(1 << 16, [0x100000, 0x100000, 0, 0x110000, 0x100000]).ljust(600, b"\xf4"),
    "multiboot-elf": Elf([Load(data=multiboot(3))], b"", bits=32).build(),
}
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
RAM = (RamRange(0, 4 * MIB), RamRange(5 * MIB, MIB))


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A good image with some fields overwritten by what breaks arithmetic, maybe cut short."""
    image = bytearray(draw(st.sampled_from(sorted(SEEDS.items())))[1])
    for _ in range(draw(st.integers(1, 6))):
        size = draw(st.sampled_from((1, 2, 4, 8)))
        offset = draw(st.integers(0, min(len(image), 0x280) - size))
        value = draw(st.sampled_from(INTERESTING) | st.integers(0, (1 << 64) - 1)) & ((1 << 8 * size) - 1)
        image[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(image[: draw(st.integers(0, len(image)) | st.just(len(image)))])


def check(data: bytes, initrd: bytes | None) -> None:
    """Boot, or fail with the file's name; never touch what is outside of RAM, never keep hold of it."""
    with TemporaryDirectory() as folder:
        kernel = put(Path(folder), data)
        disk = put(Path(folder), initrd, "initrd") if initrd is not None else None
        ram = FakeRam(*RAM)
        entry, error = None, None
        try:
            entry = load(ram, KernelImage(kernel, disk, "console"), BootLayout())
        except ConfigError as caught:
            error = caught
        if error is not None:
            assert kernel in str(error) or (disk is not None and disk in str(error)) or error.option == "append"
        if entry is not None:
            assert entry.mode in BootMode
            assert any(run.holds(entry.rip, 1) for run in RAM)
            assert all(any(run.holds(r.start, r.size) for run in RAM) for r in ram.told)
        ram.assert_no_view_is_held()


@settings(max_examples=400, deadline=None)
@given(spoiled(), st.none() | st.binary(max_size=64))
def test_spoiled_images(data: bytes, initrd: bytes | None) -> None:
    """Every field of every kind of image may hold anything."""
    check(data, initrd)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=512), st.sampled_from([b"", b"\x7fELF\x01\x01\x01", b"\x7fELF\x02\x01\x01"]))
@example(b"", b"\x7fELF\x02\x01")
def test_noise(data: bytes, head: bytes) -> None:
    """Random bytes, also behind a good magic, are refused or booted, nothing else."""
    check(head + data, None)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=256))
def test_noise_in_notes(notes: bytes) -> None:
    """Whatever stands in the notes, walking them ends."""
    check(Elf(notes=b"\x04\0\0\0" + notes).build(), None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8 * MIB), st.integers(0, 4 * MIB)), min_size=1, max_size=6))
def test_segments_anywhere(places: list[tuple[int, int]]) -> None:
    """Segments at any place are all loaded, or none is."""
    loads = [Load(paddr, b"\xf4" * min(memsz, 16), memsz) for paddr, memsz in places]
    entry = places[0][0]
    check(Elf(loads, struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry), entry=entry).build(), b"initrd")


def test_seeds_are_good() -> None:
    """The images that fuzzing starts from all boot: it does not run in circles in front of the door."""
    modes = {}
    with TemporaryDirectory() as folder:
        for name, data in SEEDS.items():
            modes[name] = load(FakeRam(*RAM), KernelImage(put(Path(folder), data)), BootLayout()).mode
    assert modes == {
        "elf64": BootMode.PVH32,
        "elf32": BootMode.PVH32,
        "vmlinux": BootMode.LONG64,
        "bzimage": BootMode.LONG64,
        "multiboot": BootMode.PROTECTED32,
        "multiboot-elf": BootMode.PROTECTED32,
    }
