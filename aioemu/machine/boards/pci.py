"""Where PCI's address windows lie."""

from __future__ import annotations

from collections.abc import Sequence

from aioemu.boot.acpi import Window
from aioemu.memory.ranges import RamRange

WINDOW64_BYTES = 32 << 30  # for 64-bit BARs: fits twice into the 36 address bits that every processor has


def window64(ranges: Sequence[RamRange]) -> Window:
    """Where 64-bit BARs go: above all memory, aligned to its own size."""
    top = max((each.end for each in ranges), default=0)
    return Window(max(1, -(-top // WINDOW64_BYTES)) * WINDOW64_BYTES, WINDOW64_BYTES)
