"""The machine's clock for devices in Python: timers that stand still while the machine does.

Deadlines are nanoseconds of the virtual clock. A client may own the clock (accel qtest): then only `advance` moves it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

from aioemu._core import lib


class VirtualTimer:
    """One shot; arming again replaces the deadline."""

    def __init__(self, clock: VirtualClock, callback: Callable[[], None]) -> None:
        self.deadline_ns: int | None = None
        self._clock = clock
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, deadline_ns: int) -> None:
        """Call back when the clock reaches `deadline_ns`."""
        self.cancel()
        self.deadline_ns = deadline_ns
        self._clock._armed.add(self)
        self._schedule()

    def cancel(self) -> None:
        self.deadline_ns = None
        self._clock._armed.discard(self)
        self._unschedule()

    def _schedule(self) -> None:
        if self._clock.running and self.deadline_ns is not None:
            delay_s = max(0, self.deadline_ns - self._clock.now_ns()) / 1e9
            self._handle = asyncio.get_running_loop().call_later(delay_s, self._due)

    def _unschedule(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _due(self) -> None:
        self._handle = None
        if self.deadline_ns is None:
            return
        if self.deadline_ns > self._clock.now_ns():  # the loop's clock is coarser than ours
            self._schedule()
            return
        self.fire()

    def fire(self) -> None:
        """The deadline has come."""
        self.cancel()
        self._callback()


class VirtualClock:
    """Starts and stops with the machine; satisfies the `Timers` seam of the devices."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine
        self._armed: set[VirtualTimer] = set()
        self.running = False
        self.owned = False  # by a client

    def now_ns(self) -> int:
        return int(lib.core_clock_ns(self._machine))

    def timer(self, callback: Callable[[], None]) -> VirtualTimer:
        return VirtualTimer(self, callback)

    def start(self) -> None:
        """The machine runs."""
        if self.running or self.owned:
            return
        lib.core_clock_start(self._machine)
        self.running = True
        for timer in tuple(self._armed):
            timer._schedule()

    def stop(self) -> None:
        """The machine stands still."""
        if not self.running:
            return
        lib.core_clock_stop(self._machine)
        self.running = False
        for timer in self._armed:
            timer._unschedule()

    def own(self, now_ns: int | None = None) -> None:
        """From now on only `advance` moves the clock. `now_ns` sets it, before any chip has looked at it."""
        self.stop()
        self.owned = True
        lib.core_clock_own(self._machine, self.now_ns() if now_ns is None else now_ns)

    def next_deadline_ns(self) -> int | None:
        """When the earliest timer is due."""
        return min((t.deadline_ns for t in self._armed if t.deadline_ns is not None), default=None)

    def advance(self, to_ns: int) -> int:
        """Move an owned clock forward, firing what falls due in order; the time now."""
        while True:
            due = heapq.nsmallest(1, ((t.deadline_ns or 0, id(t), t) for t in self._armed))
            if not due or due[0][0] > to_ns:
                break
            lib.core_clock_own(self._machine, max(due[0][0], self.now_ns()))
            due[0][2].fire()
        lib.core_clock_own(self._machine, max(to_ns, self.now_ns()))
        return self.now_ns()

    def close(self) -> None:
        """Disarm everything."""
        for timer in tuple(self._armed):
            timer.cancel()
        self.running = False
