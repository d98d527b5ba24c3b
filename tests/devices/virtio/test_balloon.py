"""virtio-balloon: what the guest gives back leaves the host's memory, and nothing else does."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.devices.virtio.balloon import STAT, VirtioBalloon, runs
from aioemu.errors import ConfigError
from tests.devices.fakes import FakeTimers
from tests.devices.virtio.driver import BUFFERS_AT, NEEDS_RESET, RAM_BYTES, STATUS, Ring, drive

PAGE = 4096
FIRST_FREE = 0xC0  # page number: behind the rings and buffers


class Guest:
    """A driver of a balloon, in a machine whose memory is all in use."""

    def __init__(self) -> None:
        self.timers = FakeTimers()
        self.device = VirtioBalloon(RAM_BYTES, self.timers, reporting=True)
        self.board, self.rings = drive(self.device, 1 << 1 | 1 << 5, size=8)
        memory = self.board.memory
        for page in range(RAM_BYTES // PAGE):
            memory.write(page * PAGE + 64, b"\1")

    def resident(self) -> int:
        return os.fstat(self.board.memory.fd).st_blocks * 512

    def send(self, ring: Ring, data: bytes) -> None:
        self.board.memory.write(BUFFERS_AT, data)
        ring.add([(BUFFERS_AT, len(data), False)])
        ring.kick()


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.board.close()


def test_inflated_pages_are_holes(guest: Guest) -> None:
    """Pages in the balloon take no host memory and read zero; their neighbours stay."""
    before = guest.resident()
    pages = [FIRST_FREE, FIRST_FREE + 1, FIRST_FREE + 2, FIRST_FREE + 9]
    guest.send(guest.rings[0], struct.pack("<4I", *pages))
    assert len(guest.rings[0].used()) == 1
    assert before - guest.resident() == 4 * PAGE == guest.device.discarded_bytes
    assert guest.board.memory.read(FIRST_FREE * PAGE + 64, 1) == b"\0"
    assert guest.board.memory.read((FIRST_FREE + 3) * PAGE + 64, 1) == b"\1"
    guest.send(guest.rings[1], struct.pack("<4I", *pages))
    assert len(guest.rings[1].used()) == 1


def test_reported_pages_are_holes(guest: Guest) -> None:
    """Free page reporting gives back whole pages of the buffers, not the pages that they only touch."""
    before = guest.resident()
    ring = guest.rings[3]
    ring.add([(FIRST_FREE * PAGE, 4 * PAGE, True), ((FIRST_FREE + 8) * PAGE + 1, 2 * PAGE, True)])
    ring.kick()
    assert len(ring.used()) == 1
    assert before - guest.resident() == 5 * PAGE
    assert guest.board.memory.read((FIRST_FREE + 8) * PAGE + 64, 1) == b"\1"


@pytest.mark.parametrize("pages", [[0xFFFFFFFF], [RAM_BYTES // PAGE], [0x7FFFFFFF, 0x80000000], [1 << 20]])
def test_pages_that_are_no_memory(guest: Guest, pages: list[int]) -> None:
    """Numbers of no page of memory are ignored."""
    before = guest.resident()
    guest.send(guest.rings[0], struct.pack(f"<{len(pages)}I", *pages) + b"\1\2")
    assert len(guest.rings[0].used()) == 1
    assert guest.resident() == before
    assert not guest.board.read(STATUS) & NEEDS_RESET


def test_target_and_actual(guest: Guest) -> None:
    """A target is a configuration change; what the driver says is the actual size, and an event."""
    actual: list[int] = []
    guest.device.on_actual = actual.append
    guest.device.set_target(RAM_BYTES // 2)
    assert guest.board.read(0x100) == RAM_BYTES // 2 // PAGE
    assert guest.board.read(0x60) & 2
    guest.board.write(0x104, 10)
    assert actual == [RAM_BYTES - 10 * PAGE]
    for pages in (0xFFFFFFFF, 0x80000000, RAM_BYTES // PAGE + 1):  # more than there is: none is left, not less
        guest.board.write(0x104, pages)
        assert actual[-1] >= 0
    guest.board.write(0x100, 77)  # the target is not the driver's
    assert guest.board.read(0x100) == RAM_BYTES // 2 // PAGE
    guest.device.set_target(1 << 60)
    assert guest.board.read(0x100) == 0
    for nonsense in (0, -1):
        with pytest.raises(ConfigError):
            guest.device.set_target(nonsense)


def test_statistics_on_demand(guest: Guest) -> None:
    """The driver's buffer is kept until figures are wanted; unknown tags and torn entries are left out."""
    data = STAT.pack(4, 1234) + STAT.pack(99, 5) + STAT.pack(5, 99) + b"\7"
    guest.send(guest.rings[2], data)
    assert guest.rings[2].used() == []
    assert guest.device.stats == {"stat-free-memory": 1234, "stat-total-memory": 99}
    guest.device.poll_stats(2)
    assert len(guest.rings[2].used()) == 1
    guest.send(guest.rings[2], data)
    guest.timers.advance(2_000_000_000)
    assert len(guest.rings[2].used()) == 1


@given(numbers=st.sets(st.integers(0, 60)))
def test_runs_are_all_numbers_once(numbers: set[int]) -> None:
    """Runs cover what they were made of, in order."""
    made: list[Any] = [n for first, count in runs(sorted(numbers)) for n in range(first, first + count)]
    assert made == sorted(numbers)
