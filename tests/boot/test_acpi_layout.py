"""The tables byte by byte: checksums, lengths, pointers, places."""

from __future__ import annotations

import struct

import pytest

from aioemu.boot import lowmem
from aioemu.boot.acpi import AcpiBoard, Cpu, IntiFlags, IrqOverride, PowerManagement, build_tables
from aioemu.boot.acpi.header import table
from aioemu.boot.ram import RamRange
from aioemu.errors import ConfigError
from tests.boot.acpi_tables import BOARDS, LARGE, MICROVM, Q35, tables


@pytest.mark.parametrize("board", BOARDS)
def test_checksums_and_lengths(board: str) -> None:
    """Each table's length is true and its bytes sum to zero; the FACS alone has no checksum."""
    for name, placement in tables(BOARDS[board]).items():
        if name == "RSDP":
            assert sum(placement.data[:20]) & 0xFF == sum(placement.data) & 0xFF == 0
        else:
            assert int.from_bytes(placement.data[4:8], "little") == len(placement.data)
            assert name == "FACS" or sum(placement.data) & 0xFF == 0


@pytest.mark.parametrize("board", BOARDS)
def test_places_are_aligned_disjoint_and_inside(board: str) -> None:
    """All tables lie in the area that guests search and that the memory map reserves."""
    placements = sorted(build_tables(BOARDS[board]), key=lambda p: p.address)
    end = lowmem.TABLES.start
    for placement in placements:
        assert placement.address % (64 if placement.name == "FACS" else 16) == 0
        assert placement.address >= end
        end = placement.address + len(placement.data)
    assert end <= lowmem.TABLES.end


@pytest.mark.parametrize("board", BOARDS)
def test_everything_is_reached_from_the_rsdp(board: str) -> None:
    """RSDP at the start of the area; RSDT and XSDT list the same tables; the FADT names DSDT and FACS."""
    first, *rest = build_tables(BOARDS[board])
    at = {placement.address: placement for placement in rest}
    assert (first.name, first.address) == ("RSDP", 0xE0000)
    signature, _, _, revision, rsdt, length, xsdt = struct.unpack_from("<8sB6sBIIQ", first.data)
    assert (signature, revision, length) == (b"RSD PTR ", 2, 36)
    narrow = [address for (address,) in struct.iter_unpack("<I", at[rsdt].data[36:])]
    wide = [address for (address,) in struct.iter_unpack("<Q", at[xsdt].data[36:])]
    assert narrow == wide
    listed = {at[address].name for address in wide}
    fadt = next(at[address] for address in wide if at[address].name == "FACP")
    facs, dsdt = struct.unpack_from("<II", fadt.data, 36)
    reached = listed | {at[facs].name, at[dsdt].name, "RSDT", "XSDT"}
    assert reached == {placement.name for placement in rest}


def test_optional_tables_follow_the_board() -> None:
    """MCFG, HPET and SPCR are there just if the board has what they describe."""
    assert {"MCFG", "HPET", "SPCR"} <= tables(Q35).keys()
    assert not {"MCFG", "HPET", "SPCR"} & tables(MICROVM).keys()


def test_madt_entries() -> None:
    """Processors with their state, I/O APIC, overrides, and NMI on LINT1 of every processor."""
    board = AcpiBoard(
        cpus=(Cpu(0), Cpu(3, enabled=False)),
        overrides=(IrqOverride(9, 9, IntiFlags.ACTIVE_HIGH | IntiFlags.LEVEL),),
        pic=False,
    )
    data = tables(board)["APIC"].data
    assert struct.unpack_from("<II", data, 36) == (0xFEE00000, 0)
    entries, offset = [], 44
    while offset < len(data):
        entries.append(data[offset : offset + data[offset + 1]])
        offset += data[offset + 1]
    assert entries == [
        bytes([0, 8, 0, 0, 1, 0, 0, 0]),
        bytes([0, 8, 1, 3, 2, 0, 0, 0]),
        struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC00000, 0),
        struct.pack("<BBBBIH", 2, 10, 0, 9, 9, 0x000D),
        bytes([4, 6, 0xFF, 0, 0, 1]),
    ]


def test_timer_of_32_bits() -> None:
    """TMR_VAL_EXT tells a guest how wide the timer is."""
    narrow = tables(AcpiBoard((Cpu(0),)))["FACP"].data
    wide = tables(AcpiBoard((Cpu(0),), pm=PowerManagement(timer_32bit=True)))["FACP"].data
    assert not narrow[113] & 1
    assert wide[113] & 1


def test_more_than_flat_logical_destinations_name() -> None:
    """With more than 8 processors the guest is told not to use flat logical destinations."""
    assert tables(LARGE)["FACP"].data[114] & 1 << 2
    assert not tables(Q35)["FACP"].data[114] & 1 << 2


def test_tables_of_the_user() -> None:
    """A whole table is listed as it is; one whose length lies is refused."""
    mine = table(b"OEM1", 1, b"mine")
    assert tables(AcpiBoard((Cpu(0),), extra=(mine,)))["OEM1"].data == mine
    for bad in (b"", mine[:-1], mine + b"x", b"OEM1" + bytes(30)):
        with pytest.raises(ConfigError, match="ACPI table"):
            build_tables(AcpiBoard((Cpu(0),), extra=(bad,)))


def test_tables_that_do_not_fit() -> None:
    """More than the area holds is refused, not written over what lies behind."""
    with pytest.raises(ConfigError, match="ACPI tables need more"):
        build_tables(Q35, RamRange(0xE0000, 2048))
    with pytest.raises(ConfigError, match="ACPI tables need more"):
        build_tables(AcpiBoard(tuple(Cpu(n) for n in range(4096))))
