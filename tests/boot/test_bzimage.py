"""bzImage: the zero page as Linux reads it, the entry, and hostile headers."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from aioemu.boot.entry import CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, BootMode
from aioemu.boot.loader import BootLayout, KernelImage, load
from aioemu.boot.ram import RamRange
from aioemu.boot.tables import FirmwareTables
from aioemu.errors import ConfigError
from tests.boot.fakes import MIB, BzImage, Elf, FakeRam, put


def test_64_bit_entry(tmp_path: Path) -> None:
    """The payload lies at pref_address, and the processor in long mode 0x200 bytes behind it."""
    ram = FakeRam()
    entry = load(ram, KernelImage(put(tmp_path, BzImage(b"K" * 4096).build())), BootLayout())

    assert (entry.mode, entry.rip) == (BootMode.LONG64, 0x1000200)
    assert ram.read(0x1000000, 4096) == b"K" * 4096
    assert entry.cs.long
    assert not entry.cs.default_big
    assert entry.cr0 & CR0_PG
    assert (entry.cr4, entry.efer) == (CR4_PAE, EFER_LME | EFER_LMA)
    assert (entry.cs.selector, entry.ds.selector) == (0x10, 0x18)


def test_identity_map_covers_the_first_4_gib(tmp_path: Path) -> None:
    """Every address below 4 GiB translates to itself, writable."""
    ram = FakeRam()
    entry = load(ram, KernelImage(put(tmp_path, BzImage().build())), BootLayout())

    for address in (0, 0x7000, 0x1000200, 0x3FFFFFFF, 0x40000000, 0xB0001234, 0xFFFFFFFF):
        pml4e = ram.u64(entry.cr3 + 8 * (address >> 39))
        pdpte = ram.u64((pml4e & ~0xFFF) + 8 * (address >> 30 & 511))
        pde = ram.u64((pdpte & ~0xFFF) + 8 * (address >> 21 & 511))
        assert pml4e & pdpte & pde & 3 == 3
        assert pde & 0x80
        assert (pde & ~0x1FFFFF) + (address & 0x1FFFFF) == address
    assert ram.u64(entry.cr3 + 8) == 0


def test_32_bit_entry_without_xlf_kernel_64(tmp_path: Path) -> None:
    """A kernel without a 64-bit entry starts at its first byte in protected mode; EBX, EBP, EDI are zero."""
    image = BzImage(xloadflags=0)
    entry = load(FakeRam(), KernelImage(put(tmp_path, image.build())), BootLayout())

    assert (entry.mode, entry.rip, entry.efer, entry.cr4) == (BootMode.PROTECTED32, 0x1000000, 0, 0)
    assert (entry.rbx, entry.rbp) == (0, 0)
    assert entry.rsi


def test_old_protocol_loads_at_1_mib(tmp_path: Path) -> None:
    """Fields that the protocol version does not have are not read, whatever bytes lie there."""
    image = BzImage(version=0x0204)
    entry = load(FakeRam(), KernelImage(put(tmp_path, image.build()), None, "x" * 255), BootLayout())

    assert (entry.mode, entry.rip) == (BootMode.PROTECTED32, 0x100000)
    with pytest.raises(ConfigError, match="takes 255"):
        load(FakeRam(), KernelImage(put(tmp_path, image.build()), None, "x" * 256), BootLayout())


def test_fixed_kernel_loads_where_it_was_built(tmp_path: Path) -> None:
    """A kernel that is not relocatable goes to code32_start."""
    entry = load(FakeRam(), KernelImage(put(tmp_path, BzImage(relocatable=0).build())), BootLayout())
    assert entry.rip == 0x100200


def test_zero_page(tmp_path: Path) -> None:
    """The zero page has the kernel's own header, the loader's fields, and an e820 table."""
    ram = FakeRam()
    initrd = put(tmp_path, b"i" * 5000, "initrd")
    image = KernelImage(put(tmp_path, BzImage().build()), initrd, "quiet")

    entry = load(ram, image, BootLayout(rng_seed=b"s" * 32), FirmwareTables((), 0xE0000))

    page = ram.read(entry.rsi, 4096)
    start, size = struct.unpack_from("<II", page, 0x218)
    assert page[0x202:0x206] == b"HdrS"
    assert page[0x210] == 0xFF
    assert struct.unpack_from("<I", page, 0x214) == (0x1000000,)
    assert struct.unpack_from("<Q", page, 0x070) == (0xE0000,)
    assert ram.read(start, size) == b"i" * 5000
    assert ram.read(struct.unpack_from("<I", page, 0x228)[0], 6) == b"quiet\0"
    assert page[0x1EF] == 0  # the sentinel: a kernel that finds it set clears what we wrote
    lines = list(struct.iter_unpack("<QQI", page[0x2D0 : 0x2D0 + 20 * page[0x1E8]]))
    assert lines == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x400, 2),
        (0xE0000, 0x20000, 2),
        (0x100000, 63 * MIB, 1),
    ]
    next_data, kind, length = struct.unpack("<QII", ram.read(struct.unpack_from("<Q", page, 0x250)[0], 16))
    assert (next_data, kind, length) == (0, 9, 32)


def test_pointers_in_the_file_do_not_reach_the_kernel(tmp_path: Path) -> None:
    """A ramdisk or setup_data address that the file brings is not passed on."""
    image = bytearray(BzImage().build())
    struct.pack_into("<IIII", image, 0x218, 0x1234000, 0x1000, 0, 0)
    struct.pack_into("<Q", image, 0x250, 0x5678000)
    ram = FakeRam()
    entry = load(ram, KernelImage(put(tmp_path, bytes(image))), BootLayout())

    assert ram.u64(entry.rsi + 0x218) == 0
    assert ram.u64(entry.rsi + 0x250) == 0


def test_initrd_stays_below_the_kernels_limit_and_clear_of_it(tmp_path: Path) -> None:
    """The initrd lies below initrd_addr_max and outside of what the kernel unpacks itself into."""
    ram = FakeRam()
    image = BzImage(initrd_addr_max=0x11FFFFF, init_size=0x200000)
    initrd = put(tmp_path, b"i" * 5000, "initrd")
    entry = load(ram, KernelImage(put(tmp_path, image.build()), initrd), BootLayout())

    start, size = ram.u32(entry.rsi + 0x218), ram.u32(entry.rsi + 0x21C)
    assert not RamRange(start, size).overlaps(RamRange(0x1000000, 0x200000))
    assert start == 0x1000000 - 8192


def test_bare_vmlinux_is_entered_by_the_64_bit_protocol(tmp_path: Path) -> None:
    """A 64-bit ELF file without PVH note gets a zero page whose header names a loader, or its initrd is not seen."""
    ram = FakeRam()
    entry = load(ram, KernelImage(put(tmp_path, Elf(notes=b"").build()), put(tmp_path, b"i", "i")), BootLayout())

    assert (entry.mode, entry.rip) == (BootMode.LONG64, 0x100000)
    page = ram.read(entry.rsi, 4096)
    assert page[0x1FE:0x206] == b"\x55\xaa\0\0HdrS"
    assert page[0x210] == 0xFF
    assert struct.unpack_from("<I", page, 0x21C) == (1,)


GOOD = BzImage()
HOSTILE: dict[str, tuple[bytes, str]] = {
    "cut in the header": (GOOD.build()[:0x240], "truncated setup header"),
    "cut in the setup": (GOOD.build()[:0x300], "truncated"),
    "cut in the payload": (GOOD.build()[:-16], "truncated"),
    "no boot flag": (replace(GOOD, boot_flag=0).build(), "boot flag"),
    "header of no length": (replace(GOOD, jump=0).build(), "protocol"),
    "protocol 1.0": (replace(GOOD, version=0x100).build(), "protocol 1.00"),
    "protocol 2.03": (replace(GOOD, version=0x203).build(), "protocol 2.03"),
    "zImage": (replace(GOOD, loadflags=0).build(), "zImage"),
    "no payload": (replace(GOOD, syssize=0).build(), "0 bytes"),
    "payload of 64 GiB": (replace(GOOD, syssize=0xFFFFFFFF).build(), "1 MiB to 4 GiB"),
    "payload beyond RAM": (replace(GOOD, syssize=64 << 16).build(), "unpack itself"),
    "compressed part outside": (replace(GOOD, payload_offset=0xFFFFFFFF).build(), "outside"),
    "compressed part too long": (replace(GOOD, payload_length=1025).build(), "outside"),
    "init_size all ones": (replace(GOOD, init_size=0xFFFFFFFF).build(), "1 MiB to 4 GiB"),
    "init_size beyond RAM": (replace(GOOD, init_size=0x40000000).build(), "unpack itself"),
    "pref_address all ones": (replace(GOOD, pref_address=(1 << 64) - 1).build(), "1 MiB to 4 GiB"),
    "pref_address in the vectors": (replace(GOOD, pref_address=0x1000).build(), "1 MiB to 4 GiB"),
    "pref_address beyond RAM": (replace(GOOD, pref_address=0x80000000).build(), "unpack itself"),
    "code32_start in the tables": (replace(GOOD, relocatable=0, code32_start=0xE0000).build(), "1 MiB to 4 GiB"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_bzimage_is_refused_by_name(tmp_path: Path, case: str) -> None:
    """A spoiled kernel file is refused with its name and what is wrong with it."""
    data, reason = HOSTILE[case]
    ram = FakeRam()
    path = put(tmp_path, data)
    with pytest.raises(ConfigError, match=reason) as caught:
        load(ram, KernelImage(path), BootLayout())
    assert path in str(caught.value)
    ram.assert_no_view_is_held()


def test_setup_sects_of_0_means_4(tmp_path: Path) -> None:
    """As the boot protocol says."""
    ram = FakeRam()
    load(ram, KernelImage(put(tmp_path, BzImage(b"K" * 1024, setup_sects=0).build())), BootLayout())
    assert ram.read(0x1000000, 1024) == b"K" * 1024


def test_header_that_claims_the_rest_of_the_page_is_cut(tmp_path: Path) -> None:
    """No header reaches into the fields behind it: the e820 table is ours."""
    image = bytearray(BzImage(jump=0xFF).build())
    image[0x290:0x400] = b"\xee" * 0x170
    ram = FakeRam()
    entry = load(ram, KernelImage(put(tmp_path, bytes(image))), BootLayout())

    assert ram.read(entry.rsi + 0x290, 0x40) == bytes(0x40)


def test_command_line_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    """cmdline_size is a limit without the NUL."""
    image = put(tmp_path, BzImage(cmdline_size=100).build())
    load(FakeRam(), KernelImage(image, None, "x" * 100), BootLayout())
    with pytest.raises(ConfigError, match="takes 100"):
        load(FakeRam(), KernelImage(image, None, "x" * 101), BootLayout())
