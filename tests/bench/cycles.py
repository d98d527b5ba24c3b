"""Ten thousand machines made, started, stopped and destroyed in one process: nothing may grow."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import uvloop

from tests.bench.density import own_mib
from tests.bench.harness import Figure, Options
from tests.bench.payload import machine, need_kvm

WARM_UP = 1000  # caches, the allocator and the garbage collector come to rest within these
SECONDS_PER_CYCLE = 0.2  # far more than one takes


def counts() -> tuple[int, int, float]:
    """Open file descriptors, threads, resident MiB without guest RAM."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), own_mib()


async def _cycle() -> None:
    async with machine("load", memory="16M") as vm:
        await vm.pause()


async def _run(cycles: int) -> dict[str, object]:
    for _ in range(WARM_UP):
        await _cycle()
    before, started = counts(), time.monotonic()
    for _ in range(cycles):
        await _cycle()
    seconds = time.monotonic() - started
    return {"before": before, "after": counts(), "ms": seconds * 1000 / cycles}


def bench(options: Options) -> Iterator[Figure]:
    """Growth from after the first thousand to the end."""
    need_kvm()
    cycles = options.pick(10000, 500)
    command = [sys.executable, "-m", "tests.bench.cycles", str(cycles)]
    limit = 60 + cycles * SECONDS_PER_CYCLE
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (fds, threads, mib), (fds_after, threads_after, mib_after) = result["before"], result["after"]
    yield Figure(f"file descriptors gained in {cycles} cycles", fds_after - fds, "", 0)
    yield Figure(f"threads gained in {cycles} cycles", threads_after - threads, "", 0)
    yield Figure(f"memory gained in {cycles} cycles", mib_after - mib, "MiB", 1, note=f"from {mib:.1f} MiB")
    yield Figure("one cycle: create, start, stop, destroy", result["ms"], "ms")


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_run(int(sys.argv[1])))))
