"""What a register costs by the way it is served: nothing there, window, Python, coroutine, doorbell.

The guest reads its time stamp counter around each access, at level 3 (native on every KVM host). The baseline is an
access to an address where nothing is: the bare exit to user space and back.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import uvloop

from aioemu._core import lib
from aioemu.bus.registers import Reg, RegisterBlock
from aioemu.bus.wires import MMIO, Placeable
from tests.bench.harness import Figure, Options, interleave, of_samples
from tests.bench.payload import BASE, LIMIT_S, finished, machine, need_kvm

ACCESSES = 20000


class Stored(Reg):
    """Kept and served by the core."""

    width, writable = 4, 0xFFFFFFFF


class Answered(Reg):
    """Read from its device each time."""

    width = 4


class Sent(Reg):
    """Written to its device without waiting for it."""

    width, writable, kind = 4, 0xFFFFFFFF, "posted"


class Window(RegisterBlock):
    """One register that the core serves."""

    layout = {0: Stored}


class Python(RegisterBlock):
    """One register that Python answers."""

    layout = {0: Answered}

    def read_answered(self) -> int:
        return 42


class Async(RegisterBlock):
    """One register that a coroutine answers."""

    layout = {0: Answered}

    async def read_answered(self) -> int:
        return 42


class Posted(RegisterBlock):
    """One register whose writes are posted to Python."""

    layout = {0: Sent}

    def write_sent(self, value: int) -> None:
        pass


async def _access_us(device: Placeable | None, op: str, n: int) -> float:
    vm = machine(f"storm mmio={BASE:#x} size=4 op={op} n={n}", [device] if device else [])
    async with vm:
        result = await finished(vm)
    return float(result["p50"]) / float(result["tsc_per_ms"]) * 1000


async def _doorbell(n: int) -> tuple[float, int, int]:
    """Median us of a doorbell write, user-space exits it caused, times that the event fd counted."""
    bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        async with machine(f"storm mmio={BASE:#x} size=4 op=write n={n}", paused=True) as vm:
            rc = lib.core_doorbell_add(vm.machine.native.ptr, MMIO, BASE, 4, bell, 0, 0)
            assert rc == 0, rc
            await vm.resume()
            result = await finished(vm)
            exits = vm.exits()["mmio-write"]
            lib.core_doorbell_remove(vm.machine.native.ptr, MMIO, BASE, 4, bell, 0, 0)
        return float(result["p50"]) / float(result["tsc_per_ms"]) * 1000, exits, os.eventfd_read(bell)
    finally:
        os.close(bell)


def bench(options: Options) -> Iterator[Figure]:
    """Added cost over the bare exit, p50 of each run, medians of interleaved runs."""
    need_kvm()
    n, rounds = options.pick(ACCESSES, 2000), options.pick(15, 3)
    plans: dict[str, tuple[type[RegisterBlock] | None, str]] = {
        "hole": (None, "read"),
        "window": (Window, "read"),
        "python": (Python, "read"),
        "coroutine": (Async, "read"),
        "hole-write": (None, "write"),
        "posted": (Posted, "write"),
    }

    def take(name: str, run: Callable[[Coroutine[Any, Any, float]], float]) -> float:
        kind, op = plans[name]
        return run(_access_us(kind() if kind else None, op, n))

    takers: dict[str, Callable[[], float]] = {name: partial(take, name, uvloop.run) for name in plans}
    takers["python-asyncio"] = partial(take, "python", asyncio.run)
    samples = interleave(rounds, takers)
    base, base_write = statistics.median(samples["hole"]), statistics.median(samples["hole-write"])
    yield of_samples("bare user-space exit, read", samples["hole"], "us")
    yield _added("register in a window, added", samples["window"], base, 0.5)
    yield _added("register in Python on uvloop, added", samples["python"], base, 10.0)
    yield _added("register in Python on asyncio, added", samples["python-asyncio"], base)
    yield _added("register in a coroutine on uvloop, added", samples["coroutine"], base)
    yield _added("posted write to Python on uvloop, added", samples["posted"], base_write)
    cost, exits, rung = uvloop.run(asyncio.wait_for(_doorbell(n), LIMIT_S))
    yield Figure("doorbell write", cost, "us", note=f"{rung} signals for {n} writes")
    yield Figure("user-space exits of doorbell writes", exits, "", 0, note=f"{n} writes")


def _added(name: str, samples: list[float], base: float, limit: float | None = None) -> Figure:
    return of_samples(name, [sample - base for sample in samples], "us", limit=limit)
