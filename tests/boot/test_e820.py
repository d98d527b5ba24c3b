"""The memory map that kernels are told."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.boot.e820 import ENTRIES_MAX, E820Entry, E820Type, build_map
from aioemu.boot.ram import RamRange
from aioemu.errors import ConfigError
from tests.boot.fakes import MIB

ECAM = E820Entry(0xB0000000, 256 * MIB, E820Type.RESERVED)


def test_pc_with_memory_above_4_gib() -> None:
    """Base memory, the firmware area, low and high RAM, and what the board reserves, in order."""
    ram = [RamRange(0, 0x80000000), RamRange(1 << 32, 0x80000000)]
    assert [(e.start, e.end, e.kind.name) for e in build_map(ram, [ECAM])] == [
        (0, 0x9FC00, "RAM"),
        (0x9FC00, 0xA0000, "RESERVED"),
        (0xE0000, 0x100000, "RESERVED"),
        (0x100000, 0x80000000, "RAM"),
        (0xB0000000, 0xC0000000, "RESERVED"),
        (1 << 32, 0x180000000, "RAM"),
    ]


def test_reserved_wins_over_ram() -> None:
    """RAM under a reserved range is cut out, whatever side it overlaps on."""
    reserved = [E820Entry(3 * MIB, MIB, E820Type.NVS), E820Entry(7 * MIB, 2 * MIB, E820Type.RESERVED)]
    kinds = [(e.start // MIB, e.end // MIB, e.kind) for e in build_map([RamRange(0, 8 * MIB)], reserved)[3:]]
    assert kinds == [(1, 3, 1), (3, 4, 4), (4, 7, 1), (7, 9, 2)]


def test_ranges_that_touch_are_one_line() -> None:
    """RAM that is backed in pieces is told as one."""
    pieces = [RamRange(0, 4 * MIB), RamRange(4 * MIB, 4 * MIB)]
    assert build_map(pieces)[-1] == E820Entry(MIB, 7 * MIB, E820Type.RAM)


def test_too_many_ranges() -> None:
    """A map that no kernel could be told is refused."""
    with pytest.raises(ConfigError, match=f"at most {ENTRIES_MAX}"):
        build_map([RamRange(i * 2 * MIB, MIB) for i in range(ENTRIES_MAX + 1)])


ranges = st.lists(st.tuples(st.integers(0, 64), st.integers(0, 16)), max_size=8)


@given(ranges, ranges)
def test_map_is_ordered_disjoint_and_complete(ram: list[tuple[int, int]], reserved: list[tuple[int, int]]) -> None:
    """Lines ascend and never overlap; an address is RAM in the map just if it is RAM and not reserved."""
    grain = 0x10000
    runs = [RamRange(start * grain, size * grain) for start, size in ram]
    held = [E820Entry(start * grain, size * grain, E820Type.NVS) for start, size in reserved]

    entries = build_map(runs, held)

    assert all(a.end <= b.start for a, b in pairwise(entries))
    assert all(e.size > 0 for e in entries)
    for page in range(80):
        address = page * grain + (0xFC00 if page == 9 else 0)
        kind = next((e.kind for e in entries if e.start <= address < e.end), None)
        expected = E820Type.RAM if any(r.holds(address, 1) for r in runs) else None
        if address == 0x9FC00 or 0xE0000 <= address < MIB:
            expected = E820Type.RESERVED
        elif any(e.start <= address < e.end for e in held):
            expected = E820Type.NVS
        elif 0xA0000 <= address < 0xE0000:
            expected = None
        assert kind == expected
