"""Host memory of machines and how many idle ones a process carries. Taken in a fresh process, for honest numbers.

Guest RAM is shared memory and counted apart: what is left (RssAnon and RssFile) is what the program itself costs.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from aioemu.machine.runstate import RunState
from tests.bench.harness import Figure, Options, of_samples
from tests.bench.payload import LIMIT_S, machine, need_kvm

FURTHER = 20
IDLE = "halt"
CHILD_LIMIT_S = 300


def resident_kib() -> dict[str, int]:
    """This process' resident memory by kind: RssAnon, RssFile, RssShmem."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}


def own_mib() -> float:
    """Resident memory without guest RAM."""
    kinds = resident_kib()
    return (kinds["RssAnon"] + kinds["RssFile"]) / 1024


async def _idle(stack: AsyncExitStack, board: str = "microvm") -> object:
    vm = await stack.enter_async_context(machine(IDLE, machine=board))
    await vm.console.expect("halt: interrupts off", LIMIT_S)
    return vm


async def _memory(board: str) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        await _idle(stack, board)
        one = own_mib()
        for _ in range(FURTHER):
            await _idle(stack, board)
        return {"one": one, "further": (own_mib() - one) / FURTHER, "guest": resident_kib()["RssShmem"] / 1024}


async def _many(count: int) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        started = time.monotonic()
        vms = [await stack.enter_async_context(machine(IDLE)) for _ in range(count)]
        for vm in vms:
            await vm.console.expect("halt: interrupts off", LIMIT_S)
        up = time.monotonic()
        await asyncio.gather(*(vm.pause() for vm in vms))
        assert {vm.state for vm in vms} == {RunState.PAUSED}
        paused = time.monotonic()
        await asyncio.gather(*(vm.resume() for vm in vms))
        assert {vm.state for vm in vms} == {RunState.RUNNING}
        resumed = time.monotonic()
        cpu = time.process_time()
        await asyncio.sleep(2)  # time passes: what idle machines cost while nothing happens
        cpu = time.process_time() - cpu
    return {
        "up": up - started,
        "pause": (paused - up) * 1000,
        "resume": (resumed - paused) * 1000,
        "cpu": cpu / 2 * 100,
        "own": own_mib(),
    }


def _child(*words: str) -> dict[str, float]:
    """Run a part of this module in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.density", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    values: dict[str, float] = json.loads(done.stdout)
    return values


def bench_memory(options: Options) -> Iterator[Figure]:
    """One machine of 128 MiB in a process, and each further one."""
    need_kvm()
    for board in ("microvm", "q35"):
        taken = [_child("memory", board) for _ in range(options.pick(5, 1))]
        note = f"{taken[0]['guest'] / (FURTHER + 1):.1f} MiB of guest RAM touched in each, not counted"
        yield of_samples(f"process with one machine, {board}", [t["one"] for t in taken], "MiB", limit=45, note=note)
        yield of_samples(f"each further machine, {board}", [t["further"] for t in taken], "MiB", limit=2)


def bench_idle(options: Options) -> Iterator[Figure]:
    """Two hundred idle machines in one process."""
    need_kvm()
    count = options.pick(200, 20)
    taken = [_child("many", str(count)) for _ in range(options.pick(3, 1))]
    yield of_samples(f"start {count} machines, one after the other", [t["up"] for t in taken], "s")
    yield of_samples(f"pause {count} idle machines", [t["pause"] for t in taken], "ms")
    yield of_samples(f"resume {count} idle machines", [t["resume"] for t in taken], "ms")
    yield of_samples(f"processor time of {count} idle machines", [t["cpu"] for t in taken], "%")


if __name__ == "__main__":
    what, argument = sys.argv[1:]
    print(json.dumps(uvloop.run(_memory(argument) if what == "memory" else _many(int(argument)))))
