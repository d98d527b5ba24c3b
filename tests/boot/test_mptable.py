"""The MP table, read back by the specification's rules."""

from __future__ import annotations

import struct

import pytest

from aioemu.boot.acpi import AcpiBoard, Cpu, IoApic, IrqOverride, PciHost
from aioemu.boot.mptable import build
from aioemu.boot.ram import RamRange
from aioemu.errors import ConfigError
from tests.boot.acpi_tables import LARGE, Q35

SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}


def entries(board: AcpiBoard) -> list[bytes]:
    """The table's entries; checks what frames them."""
    pointer, table = build(board)
    assert (pointer.address, sum(pointer.data) & 0xFF, len(pointer.data)) == (0xF8000, 0, 16)
    assert struct.unpack_from("<4sIBB", pointer.data) == (b"_MP_", table.address, 1, 4)
    signature, size, revision = struct.unpack_from("<4sHB", table.data)
    assert (signature, size, revision, sum(table.data) & 0xFF) == (b"PCMP", len(table.data), 4, 0)
    found, offset = [], 44
    while offset < size:
        found.append(table.data[offset : offset + SIZES[table.data[offset]]])
        offset += len(found[-1])
    assert offset == size
    assert len(found) == struct.unpack_from("<H", table.data, 34)[0]
    assert [entry[0] for entry in found] == sorted(entry[0] for entry in found)
    return found


def test_processors() -> None:
    """Each with its APIC ID; the first is the boot processor; absent ones are not enabled."""
    assert [(e[1], e[3]) for e in entries(Q35) if e[0] == 0] == [(n, 3 if n == 0 else int(n < 4)) for n in range(8)]


def test_isa_interrupts() -> None:
    """Every ISA interrupt but the cascade reaches its input, moved ones the other with their signal."""
    lines = {e[5]: (e[7], struct.unpack_from("<H", e, 2)[0]) for e in entries(AcpiBoard((Cpu(0),))) if e[0] == 3}
    assert lines.keys() == set(range(16)) - {2}
    assert lines[0] == (2, 0)
    assert lines[4] == (4, 0)
    assert lines[9] == (9, 0x0D)


def test_pci_interrupts_reach_the_right_chip() -> None:
    """INTx# is routed as _PRT says, by chip and input."""
    board = AcpiBoard(
        (Cpu(0),), (IoApic(0), IoApic(1, 0xFEC10000, 24)), (IrqOverride(0, 2),), pci=PciHost(intx_gsis=(22, 23, 24, 25))
    )
    pci = {e[5]: (e[6], e[7]) for e in entries(board) if e[0] == 3 and e[4] == 0}
    assert len(pci) == 128
    assert [pci[pin] for pin in range(4)] == [(0, 22), (0, 23), (1, 0), (1, 1)]
    assert pci[3 << 2 | 2] == (0, 23)  # (3 + 2) % 4 = 1


def test_local_interrupts() -> None:
    """External interrupts on LINT0 and NMI on LINT1 of every processor."""
    assert [(e[1], e[6], e[7]) for e in entries(Q35) if e[0] == 4] == [(3, 0xFF, 0), (1, 0xFF, 1)]


def test_what_bytes_cannot_say() -> None:
    """A board with large APIC IDs has no MP table; one that does not fit is refused."""
    assert build(LARGE) == ()
    with pytest.raises(ConfigError, match="MP table"):
        build(Q35, RamRange(0xF8000, 512))
