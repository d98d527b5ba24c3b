"""Runs of guest-physical addresses."""

from __future__ import annotations

from msgspec import Struct


class RamRange(Struct, frozen=True, order=True):
    """One run of guest-physical addresses, [start, end)."""

    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    def holds(self, address: int, size: int) -> bool:
        """Whether [address, address + size) lies wholly inside."""
        return self.start <= address and address + size <= self.end

    def overlaps(self, other: RamRange) -> bool:
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{self.start:#x}..{max(self.start, self.end - 1):#x}"
