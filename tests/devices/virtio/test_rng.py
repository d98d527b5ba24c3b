"""virtio-rng: as many bytes as there is room and budget for, never more."""

from __future__ import annotations

from aioemu.devices.virtio.device import VirtioDevice
from aioemu.devices.virtio.rng import CHAIN_BYTES, RETRY_NS, VirtioRng
from tests.devices.fakes import FakeTimers
from tests.devices.virtio.driver import BUFFERS_AT, drive


class Source:
    """Counts up; has `left` bytes."""

    def __init__(self, left: int = 1 << 30) -> None:
        self.left = left

    def take(self, size: int) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return b"\xa5" * size

    def close(self) -> None:
        """Nothing is held."""


def test_a_request_is_filled() -> None:
    """The room is filled with the source's bytes."""
    board, [ring] = drive(VirtioRng(Source(), FakeTimers()))
    ring.add([(BUFFERS_AT, 100, True)])
    ring.kick()
    assert ring.used() == [(7, 100)]
    assert board.memory.read(BUFFERS_AT, 101) == b"\xa5" * 100 + b"\0"
    board.close()


def test_a_request_for_much_gets_a_piece() -> None:
    """One answer has a bound, whatever the room; a request without room is answered with nothing."""
    board, [ring] = drive(VirtioRng(Source(), FakeTimers()))
    big = ring.add([(0x90000, CHAIN_BYTES + 4096, True)])
    none = ring.add([(0x90000, 16, False)])
    ring.kick()
    assert ring.used() == [(big, CHAIN_BYTES), (none, 0)]
    board.close()


def test_the_limit_holds_over_periods_and_loading() -> None:
    """At most max-bytes go out in a period, though the driver asks for more or the device is loaded."""
    timers = FakeTimers()
    device: VirtioDevice = VirtioRng(Source(), timers, max_bytes=150, period_ms=10)
    board, [ring] = drive(device)
    for _ in range(4):
        ring.add([(BUFFERS_AT, 100, True)])
    ring.kick()
    assert [size for _, size in ring.used()] == [100, 50]
    timers.advance(10_000_000)
    assert [size for _, size in ring.used()] == [100, 50]
    fresh, [again] = drive(VirtioRng(Source(), timers, max_bytes=60, period_ms=10))
    for _ in range(2):
        again.add([(BUFFERS_AT, 60, True)])
    again.kick()
    assert [size for _, size in again.used()] == [60]
    fresh.device.load(fresh.device.save())
    assert again.used() == []
    timers.advance(10_000_000)
    assert [size for _, size in again.used()] == [60]
    board.close()
    fresh.close()


def test_a_source_without_bytes_is_asked_again() -> None:
    """A request waits for a source that has nothing, and is not lost."""
    timers, source = FakeTimers(), Source(0)
    board, [ring] = drive(VirtioRng(source, timers))
    ring.add([(BUFFERS_AT, 8, True)])
    ring.kick()
    assert ring.used() == []
    source.left = 3
    timers.advance(RETRY_NS)
    assert ring.used() == [(7, 3)]
    board.close()
