"""Timers of the virtual clock: in order, in time, and still while the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from aioemu._core import lib
from aioemu.machine.clock import VirtualClock

MS = 1_000_000


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """The clock of a machine that has never run."""
    machine: Any = lib.core_machine_new(0)
    clock = VirtualClock(machine)
    yield clock
    clock.close()
    lib.core_machine_free(machine)


async def test_stands_still_until_started(clock: VirtualClock) -> None:
    """No time passes and no timer fires on a machine that does not run."""
    fired = asyncio.Event()
    clock.timer(fired.set).arm(0)
    before = clock.now_ns()
    await asyncio.sleep(0)

    assert clock.now_ns() == before
    assert not fired.is_set()
    clock.start()
    await asyncio.wait_for(fired.wait(), 5)


async def test_timer_never_fires_early(clock: VirtualClock) -> None:
    """When a timer fires, the clock has reached its deadline."""
    clock.start()
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    deadline = clock.now_ns() + 3 * MS
    clock.timer(lambda: done.set_result(clock.now_ns())).arm(deadline)

    assert await asyncio.wait_for(done, 5) >= deadline


async def test_stop_and_start_keep_the_rest(clock: VirtualClock) -> None:
    """A timer that was armed before a stop fires after the start, at its own deadline."""
    clock.start()
    fired = asyncio.Event()
    clock.timer(fired.set).arm(clock.now_ns() + MS)
    clock.stop()
    stood = clock.now_ns()
    await asyncio.sleep(0)
    assert clock.now_ns() == stood
    assert not fired.is_set()
    clock.start()
    await asyncio.wait_for(fired.wait(), 5)


def test_owned_clock_moves_by_its_owner(clock: VirtualClock) -> None:
    """A client that owns the clock fires exactly what falls due, in order, each at its own time."""
    clock.own()
    start = clock.now_ns()
    seen: list[tuple[str, int]] = []
    for name, delay in (("b", 20), ("a", 10), ("c", 30)):
        clock.timer(lambda name=name: seen.append((name, clock.now_ns() - start))).arm(start + delay)  # type: ignore[misc]

    assert clock.next_deadline_ns() == start + 10
    assert clock.advance(start + 25) == start + 25
    assert seen == [("a", 10), ("b", 20)]
    clock.advance(start + 30)
    assert [name for name, _ in seen] == ["a", "b", "c"]


def test_cancel_and_arm_again(clock: VirtualClock) -> None:
    """A cancelled timer is silent; arming again replaces the deadline."""
    clock.own()
    start = clock.now_ns()
    seen: list[int] = []
    timer = clock.timer(lambda: seen.append(clock.now_ns() - start))
    timer.arm(start + 5)
    timer.arm(start + 50)
    clock.advance(start + 10)
    assert seen == []
    timer.cancel()
    clock.advance(start + 100)
    assert seen == []
