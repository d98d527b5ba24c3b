"""Firmware tables with their addresses, as they are put into guest RAM before a kernel starts."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from aioemu.boot.ram import GuestRam


class Placement(Struct, frozen=True):
    """Bytes at a guest-physical address; `name` is the table's signature."""

    name: str
    address: int
    data: bytes


class FirmwareTables(Struct, frozen=True):
    """Everything to write, and where the search for ACPI begins (0: no ACPI)."""

    placements: tuple[Placement, ...]
    rsdp: int = 0

    @classmethod
    def of(cls, *groups: Sequence[Placement]) -> FirmwareTables:
        """All groups together; the RSDP is found by its name."""
        placements = tuple(placement for group in groups for placement in group)
        return cls(placements, next((p.address for p in placements if p.name == "RSDP"), 0))

    def write(self, ram: GuestRam) -> None:
        for placement in self.placements:
            ram.write(placement.address, placement.data)
