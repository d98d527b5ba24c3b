"""What a board adds to a boot: reserved ranges, tables, and state that a reset finds again."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioemu.boot import mptable, smbios
from aioemu.boot.acpi import build_tables
from aioemu.boot.e820 import E820Entry, E820Type
from aioemu.boot.entry import CR0_PE, BootMode, real16_entry
from aioemu.boot.loader import BootFiles, BootLayout, KernelImage, load
from aioemu.boot.tables import FirmwareTables, Placement
from aioemu.errors import ConfigError
from tests.boot.acpi_tables import Q35
from tests.boot.fakes import MIB, PVH_NOTE, BzImage, Elf, FakeRam, Load, multiboot, put

KERNELS = {
    "elf": Elf([Load(), Load(0x1000000)]).build(),
    "bzimage": BzImage().build(),
    "multiboot": multiboot(1 << 16, [0x1000000, 0x1000000, 0, 0, 0x1000000]).ljust(600),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_kernel_over_a_reserved_range(tmp_path: Path, kind: str) -> None:
    """A kernel that wants what the board keeps, or where tables lie, is refused with both places named."""
    path = put(tmp_path, KERNELS[kind])
    layout = BootLayout((E820Entry(0x1000000, 4096, E820Type.RESERVED),))
    with pytest.raises(ConfigError, match=r"wants 0x1000000.* reserved 0x1000000"):
        load(FakeRam(), KernelImage(path), layout)
    tables = FirmwareTables((Placement("OEM1", 0x1000000, b"table"),))
    with pytest.raises(ConfigError, match=r"wants 0x1000000.* reserved 0x1000000"):
        load(FakeRam(), KernelImage(path), BootLayout(), tables)


def test_headers_below_1_mib(tmp_path: Path) -> None:
    """A page of headers in the firmware area, as linkers lay it out, is loaded unless a table lies there."""
    path = put(tmp_path, Elf([Load(0xFF000, b"headers"), Load()]).build())
    ram = FakeRam()
    load(ram, KernelImage(path), BootLayout(), FirmwareTables.of(build_tables(Q35)))
    assert ram.read(0xFF000, 7) == b"headers"
    with pytest.raises(ConfigError, match=r"wants 0xff000.* reserved 0xff004"):
        load(ram, KernelImage(path), BootLayout(), FirmwareTables((Placement("X", 0xFF004, b"x"),)))


def test_low_kernel(tmp_path: Path) -> None:
    """A kernel between start data and the EBDA is loaded there."""
    note = PVH_NOTE[:16] + (0x30000).to_bytes(8, "little")
    path = put(tmp_path, Elf([Load(0x30000, b"low", memsz=0x6FC00)], note).build())
    assert load(FakeRam(), KernelImage(path), BootLayout()).rip == 0x30000


def test_initrd_avoids_reserved_ranges(tmp_path: Path) -> None:
    """The initrd goes below what the board keeps at the end of RAM."""
    ram = FakeRam()
    layout = BootLayout((E820Entry(63 * MIB, MIB, E820Type.NVS),))
    image = KernelImage(put(tmp_path, BzImage().build()), put(tmp_path, b"i" * 4096, "i"))
    entry = load(ram, image, layout)
    assert ram.u32(entry.rsi + 0x218) == 63 * MIB - 4096


def test_load_again_after_a_reset(tmp_path: Path) -> None:
    """A second load over whatever the guest left gives the same memory and the same entry."""
    image = KernelImage(put(tmp_path, Elf([Load(memsz=0x5000)]).build()), put(tmp_path, b"initrd", "i"), "quiet")
    tables = FirmwareTables.of(build_tables(Q35), smbios.build(smbios.Smbios()), mptable.build(Q35))
    ram = FakeRam()
    with BootFiles(image) as files:
        first = load(ram, files, BootLayout(), tables)
        before = ram.read(0x100000, 0x5000), ram.read(0xE0000, 0x20000), ram.read(first.rbx, 0x200)
        ram.write(0x100000, b"\xcc" * 0x5000)
        for placement in tables.placements:
            ram.write(placement.address, bytes(len(placement.data)))
        second = load(ram, files, BootLayout(), tables)
    assert first == second
    assert before == (ram.read(0x100000, 0x5000), ram.read(0xE0000, 0x20000), ram.read(first.rbx, 0x200))


def test_firmware_areas_do_not_meet() -> None:
    """ACPI, SMBIOS and MP tables lie apart, all in the reserved area."""
    placements = FirmwareTables.of(build_tables(Q35), smbios.build(smbios.Smbios()), mptable.build(Q35)).placements
    ends = 0xE0000
    for placement in sorted(placements, key=lambda p: p.address):
        assert placement.address >= ends
        ends = placement.address + len(placement.data)
    assert ends <= 0x100000


def test_rsdp_is_found_by_name() -> None:
    """FirmwareTables.of knows where the search for ACPI begins; without ACPI it says 0."""
    assert FirmwareTables.of(smbios.build(smbios.Smbios()), build_tables(Q35)).rsdp == 0xE0000
    assert FirmwareTables.of(smbios.build(smbios.Smbios())).rsdp == 0


def test_real_mode_entry() -> None:
    """Real mode at a far address: 64 KiB segments whose bases follow from their selectors."""
    entry = real16_entry(0xF000, 0xFFF0)
    assert entry.mode is BootMode.REAL16
    assert (entry.rip, entry.cs.base, entry.cs.limit) == (0xFFF0, 0xF0000, 0xFFFF)
    assert not entry.cr0 & CR0_PE
