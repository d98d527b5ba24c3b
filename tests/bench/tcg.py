"""The software CPU beside QEMU's: stock Linux booting, programs in it, exact stops, a hundred boots on one busy core.

Both run as commands, in turn, with the same kernel and initramfs: `aioemu -accel tcg` and `qemu-system-x86_64 -accel
tcg -cpu max`, both on the board `microvm`. A boot that QEMU does not finish (its guest's clock calibration hangs at
times) is taken again.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from aioemu.accel.tcg import Tcg, find_engine
from aioemu.errors import EmuError
from aioemu.images import FIRST_LINE, GuestImage, bench_program, debian_guest
from aioemu.log import Log
from tests.bench.harness import Figure, Options, UnavailableError, against, need, of_samples
from tests.bench.payload import LIMIT_S, finished, machine
from tests.bench.start import aioemu_command

BOOT_LIMIT_S = 40.0  # ten times what one takes on an idle host
TRIES = 5
FIRST = re.compile(rf"{FIRST_LINE}([\d.]+)")
TROUBLE = re.compile(r"WARNING:|BUG:|Oops|cut here|stall|lockup")
PROGRAM_LIMIT = 1.25
PROGRAMS = ("getppid", "fault", "fork", "pipe", "memcpy", "sha256")
JITS = ("jit", "jit-alias")
SLEEP_NS = 1_000_000
# the clock that counts in hundredths is exact enough for a loop that takes most of a second
SHELL_LOOP = "read s _ </proc/uptime; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; read e _ </proc/uptime"
RC = f'bench all; {SHELL_LOOP}; echo "shell-loop $s $e"'
STOPS = 20000
BOOTS = 100


@dataclass(frozen=True)
class Boot:
    """One boot: seconds of the guest's clock to /init, of the host's to /init and to the end; what was printed."""

    uptime: float
    to_init: float
    to_end: float
    text: str


def need_tcg() -> None:
    """UnavailableError where no software CPU is installed."""
    try:
        Tcg(Log("bench")).close()
    except EmuError as exc:
        raise UnavailableError(str(exc)) from exc
    if find_engine() is None:
        raise UnavailableError("no engine package (`make engine`): the stock library is not what is measured")


def commands(image: GuestImage, kernel: Path, *more: str) -> dict[str, list[str]]:
    """How to boot this image with each of the two."""
    rest = ["-m", "256", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    rest += ["-kernel", str(kernel), "-initrd", str(image.initrd), "-append", image.append, *more]
    return {
        "aioemu": [*aioemu_command(), "-M", "microvm", "-accel", "tcg", *rest],
        "qemu": [need("qemu-system-x86_64"), "-M", "microvm", "-accel", "tcg", "-cpu", "max", *rest],
    }


def boot(command: Sequence[str]) -> Boot:
    """Run one boot to its end, again if the guest does not come up."""
    for _ in range(TRIES):
        try:
            return _boot(command)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"{command[0]}: the guest did not come up in {TRIES} tries")


def _boot(command: Sequence[str]) -> Boot:
    started, deadline = time.monotonic(), time.monotonic() + BOOT_LIMIT_S
    output, to_init, found = bytearray(), 0.0, None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            while data := _read(process.stdout.fileno(), deadline, command):
                output += data
                if found is None and (found := FIRST.search(output.decode(errors="replace"))):
                    to_init = time.monotonic() - started
            process.wait(max(1, deadline - time.monotonic()))
        finally:
            process.kill()
    text = output.decode(errors="replace")
    assert found, f"{command[0]} ended without /init:\n{text[-2000:]}"
    return Boot(float(found[1]), to_init, time.monotonic() - started, text)


def _read(fd: int, deadline: float, command: Sequence[str]) -> bytes:
    if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
        raise subprocess.TimeoutExpired(list(command), BOOT_LIMIT_S)
    return os.read(fd, 65536)


# ---- benches ---------------------------------------------------------------------------------------------------------


def bench_boot(options: Options) -> Iterator[Figure]:
    """Boot and power off: /init's first line and the whole process, vmlinux beside QEMU and bzImage beside vmlinux."""
    need_tcg()
    image = debian_guest(rc="true")
    both = commands(image, image.vmlinux)
    packed = commands(image, image.kernel)["aioemu"]
    boots: dict[str, list[Boot]] = {"aioemu": [], "qemu": [], "bzimage": []}
    for _ in range(options.pick(9, 2)):
        for name, command in {**both, "bzimage": packed}.items():
            boots[name].append(boot(command))
    ours, theirs = boots["aioemu"], boots["qemu"]
    yield against("/init by the guest's clock", [b.uptime for b in ours], [b.uptime for b in theirs], "s", 1.0)
    yield against("command to /init's first line", [b.to_init for b in ours], [b.to_init for b in theirs], "s", 1.0)
    yield against("command to its end after power off", [b.to_end for b in ours], [b.to_end for b in theirs], "s", 1.0)
    yield against("bzImage to its vmlinux", [b.to_end for b in boots["bzimage"]], [b.to_end for b in ours], "s", 1.2)


def bench_programs(options: Options) -> Iterator[Figure]:
    """The programs of aioemu/images/programs in both guests."""
    need_tcg()
    image = debian_guest(rc=RC, programs={"bench": bench_program()})
    both = commands(image, image.vmlinux)
    runs: dict[str, list[dict[str, dict[str, Any]]]] = {"aioemu": [], "qemu": []}
    for _ in range(options.pick(7, 1)):
        for name, command in both.items():
            runs[name].append(_programs(boot(command).text))
    for program in PROGRAMS:
        ours, theirs = ([run[program]["ns_per_op"] for run in runs[who]] for who in ("aioemu", "qemu"))
        yield against(f"in the guest: {program}", ours, theirs, "ns", PROGRAM_LIMIT)
    ours, theirs = ([run["shell-loop"]["seconds"] for run in runs[who]] for who in ("aioemu", "qemu"))
    yield against("in the guest: shell loop of 100,000", ours, theirs, "s", PROGRAM_LIMIT)
    for who in ("aioemu", "qemu"):
        late = [run["usleep"]["ns_per_op"] - SLEEP_NS for run in runs[who]]
        yield of_samples(f"usleep(1000) is late by, {who}", [ns / 1000 for ns in late], "us")
    for name in JITS:
        stale = max(run[name]["stale"] for run in runs["aioemu"])
        yield Figure(f"stale calls of 10,000, {name}", stale, "", 0)


def _programs(text: str) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        if line.startswith('{"bench"'):
            value = json.loads(line)
            results[value["bench"]] = value
        elif line.startswith("shell-loop "):
            start, end = map(float, line.split()[1:])
            results["shell-loop"] = {"seconds": end - start}
    return results


def bench_stops(options: Options) -> Iterator[Figure]:
    """Asynchronous stops in a loop of read-modify-write instructions: not one may run twice."""
    need_tcg()
    stops = options.pick(STOPS, 500)
    took = uvloop.run(_stop(stops))
    yield Figure(f"doubled instructions in {stops} stops", 0, "", 0, note="the payload compares memory and register")
    yield Figure("one stop and resume", took * 1e6 / stops, "us")


async def _stop(stops: int) -> float:
    """Pause and resume so many times while the payload counts; it fails by itself when a count is wrong."""
    async with machine("rmw n=100000000", accel="tcg") as vm:
        await vm.console.expect("counting", LIMIT_S)
        started = time.monotonic()
        for _ in range(stops):
            await vm.pause()
            await vm.resume()
        took = time.monotonic() - started
        assert "payload: fail" not in vm.console.text, vm.console.text
        assert vm.machine.exit_status is None, vm.report()
    async with machine("rmw n=10", accel="tcg") as vm:
        await finished(vm)  # the test itself can pass
    return took


def bench_endurance(options: Options) -> Iterator[Figure]:
    """Boots in a row on one core that a busy neighbour shares: each reaches its program, none with a kernel warning."""
    need_tcg()
    core = str(max(os.sched_getaffinity(0)))
    image = debian_guest(rc="echo rc-reached", append="console=ttyS0 panic=-1")
    command = [need("taskset"), "-c", core, *commands(image, image.vmlinux)["aioemu"]]
    count, reached, warned, times = options.pick(BOOTS, 3), 0, 0, []
    with busy_neighbour(core):
        for _ in range(count):
            taken = _boot(command)
            reached += "rc-reached" in taken.text
            warned += bool(TROUBLE.search(taken.text))
            times.append(taken.to_end)
    yield Figure(f"of {count} boots on a busy core, not arrived", count - reached, "", 0)
    yield Figure(f"of {count} boots on a busy core, with kernel warnings", warned, "", 0)
    yield of_samples("one boot and power off on a busy core", times, "s")


@contextmanager
def busy_neighbour(core: str) -> Iterator[None]:
    """A process that wants the whole core."""
    with subprocess.Popen(["taskset", "-c", core, sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()
