"""Stand-ins for what a board wires a chip to: they record, and the test moves time."""

from __future__ import annotations

from collections.abc import Callable

from aioemu.bus.wires import Placeable


class Line:
    """An interrupt line that remembers its level and its rising edges."""

    def __init__(self) -> None:
        self.level = False
        self.rises = 0

    def set(self, level: bool) -> None:
        self.rises += level and not self.level
        self.level = level

    def up(self) -> bool:
        """Whether it is driven now."""
        return self.level


class Sink:
    """Bytes that arrived."""

    def __init__(self) -> None:
        self.data = bytearray()

    def put(self, value: int) -> None:
        self.data.append(value)


class Messages:
    """Message signalled interrupts that were sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []

    def send(self, address: int, data: int) -> None:
        self.sent.append((address, data))


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.deadline_ns: int | None = None

    def arm(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns

    def cancel(self) -> None:
        self.deadline_ns = None


class FakeTimers:
    """A clock that moves only by `advance`, firing what falls due."""

    def __init__(self) -> None:
        self.now = 0
        self.timers: list[FakeTimer] = []

    def now_ns(self) -> int:
        return self.now

    def timer(self, callback: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(callback))
        return self.timers[-1]

    def advance(self, by_ns: int) -> None:
        end = self.now + by_ns
        while due := [t for t in self.timers if t.deadline_ns is not None and t.deadline_ns <= end]:
            first = min(due, key=lambda t: t.deadline_ns or 0)
            self.now = max(self.now, first.deadline_ns or 0)
            first.deadline_ns = None
            first.callback()
        self.now = end


class Mapper:
    """A bus on which ranges must not overlap."""

    def __init__(self) -> None:
        self.places: dict[object, tuple[int, int, Placeable]] = {}

    def map(self, space: int, base: int, device: Placeable, name: str) -> object | None:
        end = base + device.size
        if any(s == space and b < end and base < b + d.size for s, b, d in self.places.values()):
            return None
        place = object()
        self.places[place] = (space, base, device)
        return place

    def unmap(self, place: object) -> None:
        del self.places[place]

    def bases(self) -> set[tuple[int, int]]:
        return {(space, base) for space, base, _ in self.places.values()}
