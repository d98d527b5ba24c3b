"""The memory map that a guest is told: RAM minus what is reserved, as e820 types.

Built from the machine's RAM ranges, which are right by construction, and from ranges that the board reserves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from msgspec import Struct

from aioemu.boot import lowmem
from aioemu.boot.ram import RamRange
from aioemu.errors import ConfigError

ENTRIES_MAX = 128  # E820_MAX_ENTRIES_ZEROPAGE: what struct boot_params has room for


class E820Type(IntEnum):
    """Address range types (ACPI 6.5 15.1)."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5


class E820Entry(Struct, frozen=True):
    """One line of the map."""

    start: int
    size: int
    kind: E820Type

    @property
    def end(self) -> int:
        return self.start + self.size


FIXED: tuple[E820Entry, ...] = (
    E820Entry(lowmem.EBDA_START, lowmem.VIDEO_START - lowmem.EBDA_START, E820Type.RESERVED),
    E820Entry(lowmem.TABLES.start, lowmem.FIRMWARE.size, E820Type.RESERVED),
)
VIDEO_HOLE = RamRange(lowmem.VIDEO_START, lowmem.TABLES.start - lowmem.VIDEO_START)  # not RAM, and not in the map


def build_map(ram: Sequence[RamRange], reserved: Iterable[E820Entry] = ()) -> list[E820Entry]:
    """The whole map, ascending, without overlap: a reserved range wins over RAM, an earlier one over a later one."""
    entries: list[E820Entry] = []
    for entry in (*FIXED, *reserved):
        entries += _minus(entry, [RamRange(e.start, e.size) for e in entries])
    taken = [RamRange(e.start, e.size) for e in entries] + [VIDEO_HOLE]
    for run in merge(ram):
        entries += _minus(E820Entry(run.start, run.size, E820Type.RAM), taken)
    entries.sort(key=lambda entry: entry.start)
    if len(entries) > ENTRIES_MAX:
        raise ConfigError(f"the memory map has {len(entries)} ranges, a kernel is told of at most {ENTRIES_MAX}")
    return entries


def merge(ranges: Iterable[RamRange]) -> list[RamRange]:
    """Ranges that touch become one: a loader cares for addresses, not for how they are backed."""
    merged: list[RamRange] = []
    for run in sorted(r for r in ranges if r.size > 0):
        if merged and run.start <= merged[-1].end:
            last = merged.pop()
            run = RamRange(last.start, max(last.end, run.end) - last.start)
        merged.append(run)
    return merged


def _minus(entry: E820Entry, holes: Iterable[RamRange]) -> list[E820Entry]:
    """What is left of an entry once every hole is cut out of it."""
    left: list[E820Entry] = []
    start = entry.start
    for hole in merge(holes):
        if hole.end <= start or hole.start >= entry.end:
            continue
        if hole.start > start:
            left.append(E820Entry(start, hole.start - start, entry.kind))
        start = max(start, hole.end)
    if start < entry.end:
        left.append(E820Entry(start, entry.end - start, entry.kind))
    return left
