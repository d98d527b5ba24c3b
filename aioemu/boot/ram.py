"""Guest memory as a loader sees it: ranges of RAM, and ways to put bytes there.

This is the seam to the memory layer, which implements GuestRam. Not here: MMIO, dirty logging, permissions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aioemu.memory.ranges import RamRange

__all__ = ["GuestRam", "RamRange", "runs_of"]


class GuestRam(Protocol):
    """Guest RAM. An access that leaves RAM raises GuestError or ValueError and changes nothing."""

    @property
    def ranges(self) -> Sequence[RamRange]:
        """Where RAM is, ascending and without overlap."""

    def write(self, address: int, data: bytes | memoryview) -> None: ...

    def read(self, address: int, size: int) -> bytes: ...

    def view(self, address: int, size: int) -> memoryview:
        """Writable memory itself, within one range, for images read straight into it. The caller releases it."""

    def written(self, address: int, size: int) -> None:
        """Bytes were changed through a view."""


def runs_of(ram: GuestRam) -> str:
    """The ranges in words, for an error message."""
    return ", ".join(map(str, ram.ranges))
