"""Lays the tables out in memory: RSDP first, where guests look for it, then all that it leads to."""

from __future__ import annotations

import struct

from aioemu.boot import lowmem
from aioemu.boot.acpi import fadt, optional
from aioemu.boot.acpi.board import AcpiBoard
from aioemu.boot.acpi.dsdt import dsdt
from aioemu.boot.acpi.header import HEADER, OEM_ID, checksum, table
from aioemu.boot.acpi.madt import madt
from aioemu.boot.ram import RamRange
from aioemu.boot.tables import Placement
from aioemu.errors import ConfigError

RSDP_V1_SIZE, RSDP_SIZE, RSDP_REVISION = 20, 36, 2
FACS_ALIGN, ALIGN = 64, 16


def build_tables(board: AcpiBoard, area: RamRange = lowmem.TABLES) -> tuple[Placement, ...]:
    """Every table at its address; the first placement is the RSDP, at the start of `area`."""
    layout = _Layout(area)
    layout.take(RSDP_SIZE)
    facs = layout.place(fadt.facs(), FACS_ALIGN)
    differentiated = layout.place(dsdt(board))
    listed = [layout.place(fadt.fadt(board, facs.address, differentiated.address)), layout.place(madt(board))]
    if board.pci is not None:
        listed.append(layout.place(optional.mcfg(board.pci)))
    if board.hpet_address is not None:
        listed.append(layout.place(optional.hpet(board.hpet_address)))
    if board.spcr and board.uarts:
        listed.append(layout.place(optional.spcr(board.uarts[0])))
    listed += [layout.place(_checked(data)) for data in board.extra]
    addresses = [placement.address for placement in listed]
    rsdt = layout.place(table(b"RSDT", 1, struct.pack(f"<{len(addresses)}I", *addresses)))
    xsdt = layout.place(table(b"XSDT", 1, struct.pack(f"<{len(addresses)}Q", *addresses)))
    rsdp = Placement("RSDP", area.start, _rsdp(rsdt.address, xsdt.address))
    return (rsdp, facs, differentiated, *listed, rsdt, xsdt)


def _rsdp(rsdt_at: int, xsdt_at: int) -> bytes:
    data = bytearray(
        struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, OEM_ID, RSDP_REVISION, rsdt_at, RSDP_SIZE, xsdt_at, 0)
    )
    data[8] = checksum(data[:RSDP_V1_SIZE])
    data[32] = checksum(data)
    return bytes(data)


def _checked(data: bytes) -> bytes:
    """A table that the user gave: its own length must be true, or guests read past it."""
    length = int.from_bytes(data[4:8], "little")
    if len(data) < HEADER.size or length != len(data):
        raise ConfigError(f"an ACPI table of {len(data)} bytes says that it has {length}", option="acpitable")
    return data


class _Layout:
    """Hands out addresses from an area, upwards."""

    def __init__(self, area: RamRange) -> None:
        self.area = area
        self.next = area.start

    def take(self, size: int, align: int = ALIGN) -> int:
        address = -(-self.next // align) * align
        if address + size > self.area.end:
            raise ConfigError(f"the ACPI tables need more than the {self.area.size} bytes that are kept for them")
        self.next = address + size
        return address

    def place(self, data: bytes, align: int = ALIGN) -> Placement:
        return Placement(data[:4].decode("latin-1"), self.take(len(data), align), data)
