"""Guest RAM: reads and writes stay inside it, whatever address a guest names."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu._core import lib
from aioemu.errors import ConfigError, GuestError, HostError
from aioemu.memory.guest import GuestMemory, RamBackend, split_around_hole
from aioemu.memory.ranges import RamRange

MIB = 1 << 20
LOW, HIGH = RamRange(0, 2 * MIB), RamRange(1 << 32, MIB)


@pytest.fixture
def machine() -> Iterator[Any]:
    """A native machine without processors."""
    pointer = lib.core_machine_new(0)
    yield pointer
    lib.core_machine_free(pointer)


@pytest.fixture
def memory(machine: Any) -> Iterator[GuestMemory]:
    """2 MiB from 0, 1 MiB from 4 GiB."""
    ram = GuestMemory(machine, [HIGH, LOW])
    yield ram
    ram.close()


def test_both_ranges_keep_what_is_written(memory: GuestMemory) -> None:
    """Each range has bytes of its own, and views show them."""
    memory.write(0x1000, b"low")
    memory.write(HIGH.start, b"high")

    assert (memory.read(0x1000, 3), memory.read(HIGH.start, 4)) == (b"low", b"high")
    assert bytes(memory.view(HIGH.start, 4)) == b"high"


def test_view_is_the_memory_itself(memory: GuestMemory) -> None:
    """What is written through a view is there, and a view outlives the memory without harm."""
    view = memory.view(0x1FFF, 2)
    view[:] = b"xy"
    assert memory.read(0x1FFF, 2) == b"xy"
    memory.close()
    assert bytes(view) == b"xy"


def test_ram_is_in_huge_pages_where_the_host_lets_us(machine: Any) -> None:
    """A touched byte brings a whole huge page, not 4 KiB of it, although memfds here get none."""
    memory = GuestMemory(machine, [RamRange(0, 4 * MIB)])
    try:
        if os.readlink(f"/proc/self/fd/{memory.fd}").startswith("/memfd:"):
            pytest.skip("making a tmpfs takes CAP_SYS_ADMIN")
        lib.core_ram_ptr(machine, 0, 1)[0] = 1
        assert os.fstat(memory.fd).st_blocks * 512 == 2 * MIB
    finally:
        memory.close()


@given(st.integers(0, 1 << 64), st.integers(0, 4 * MIB))
def test_nothing_outside_is_touched(address: int, size: int) -> None:
    """Any access is wholly in one range or is refused."""
    machine = lib.core_machine_new(0)
    memory = GuestMemory(machine, [LOW, HIGH])
    try:
        inside = any(each.holds(address, size) for each in (LOW, HIGH))
        if inside:
            assert len(memory.read(address, size)) == size
        else:
            with pytest.raises(GuestError):
                memory.read(address, size)
            with pytest.raises(GuestError):
                memory.view(address, size)
    finally:
        memory.close()
        lib.core_machine_free(machine)


@pytest.mark.parametrize("size", [0, 4095, 1 << 47])
def test_sizes_that_cannot_be(machine: Any, size: int) -> None:
    """Nothing, parts of pages, and more than processors address are refused."""
    with pytest.raises(ConfigError):
        GuestMemory(machine, [RamRange(0, size)])


def test_overlapping_ranges_are_refused(machine: Any) -> None:
    """Two memories cannot share an address; nothing stays open."""
    gc.collect()  # what other tests left goes now, not while this one counts
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError):
        GuestMemory(machine, [RamRange(0, 2 * MIB), RamRange(MIB, 2 * MIB)])
    assert len(os.listdir("/proc/self/fd")) == before


def test_file_backed(machine: Any, tmp_path: Path) -> None:
    """Memory may live in a file."""
    memory = GuestMemory(machine, [LOW], RamBackend(path=str(tmp_path / "ram")))
    memory.write(5, b"kept")
    memory.close()

    assert (tmp_path / "ram").read_bytes()[5:9] == b"kept"


def test_missing_folder_is_named(machine: Any) -> None:
    """A path that cannot be opened is an error that says what was wanted."""
    with pytest.raises(HostError, match="guest memory of 2 MiB: No such file"):
        GuestMemory(machine, [LOW], RamBackend(path="/nonexistent/ram"))


def test_split_around_hole() -> None:
    """What does not fit below the hole goes above 4 GiB, and nothing is lost."""
    assert split_around_hole(MIB, 3 << 30) == [RamRange(0, MIB)]
    assert split_around_hole(4 << 30, 3 << 30) == [RamRange(0, 3 << 30), RamRange(1 << 32, 1 << 30)]
