"""Guest memory as a loader sees it: ranges of RAM, and ways to put bytes there.

This is the seam to the memory layer, which implements GuestRam. Not here: MMIO, dirty logging, permissions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class RamRange:
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


class GuestRam(Protocol):
    """Guest RAM. An access that leaves RAM raises GuestError or ValueError and changes nothing."""

    @property
    def ranges(self) -> Sequence[RamRange]:
        """Where RAM is, ascending and without overlap."""

    def write(self, address: int, data: bytes | memoryview) -> None: ...

    def read(self, address: int, size: int) -> bytes: ...

    def view(self, address: int, size: int) -> memoryview:
        """Writable memory itself, within one range: large images are read from the file straight into it."""
