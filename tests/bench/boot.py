"""Stock Linux on hardware KVM, in the rig: time to /init's first line and user-space exits, QEMU interleaved.

Time is the guest's own uptime. Absolute times in the rig mean nothing (its processor is emulated); ratios do. Exits are
those of KVM's tracepoint, for QEMU and aioemu alike.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from aioemu.api import Machine
from aioemu.images import FIRST_LINE, debian_guest
from tests.bench.harness import Figure, Options, of_samples
from tests.rig.inside import publish
from tests.rig.outer import run_inside

BOARDS = ("microvm", "q35")
APPENDS = {"verbose": "console=ttyS0 panic=-1", "quiet": "console=ttyS0 panic=-1 quiet"}
LIMIT_S = 200.0
IO_EVENT = Path("/sys/kernel/tracing/events/kvm/kvm_userspace_exit/trigger")
REASONS = {2: "port", 6: "memory", 5: "halt", 8: "shutdown", 10: "interrupted", 24: "system event"}
HIST_LINE = re.compile(r"\{ reason: +(\d+) +\} +hitcount: +(\d+)")

Boot = Callable[[], float]


# ---- inside the rig --------------------------------------------------------------------------------------------------


async def _boot_ours(files: dict[str, str], board: str, append: str) -> float:
    vm = Machine(
        machine=board, accel="kvm", memory="256M", kernel=files["kernel"], initrd=files["initrd"], append=append
    )
    async with vm:
        found = await vm.console.expect(rf"{FIRST_LINE}([\d.]+)", LIMIT_S)
        await asyncio.wait_for(vm.wait(), LIMIT_S)
        return float(found[1])


def _ours(files: dict[str, str], board: str, append: str) -> float:
    return uvloop.run(_boot_ours(files, board, append))


def _boot_qemu(files: dict[str, str], board: str, append: str) -> float:
    command = ["qemu-system-x86_64", "-machine", board, "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults"]
    command += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", files["kernel"]]
    command += ["-initrd", files["initrd"], "-append", append]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=True)
    found = re.search(rf"{FIRST_LINE}([\d.]+)".encode(), done.stdout)
    assert found, done.stdout[-2000:]
    return float(found[1])


def _boots(files: dict[str, str]) -> dict[str, Boot]:
    """Every boot to take, by name."""
    boots: dict[str, Boot] = {}
    for kind, append in APPENDS.items():
        for board in BOARDS:
            boots[f"aioemu {board} {kind}"] = partial(_ours, files, board, append)
            boots[f"qemu {board} {kind}"] = partial(_boot_qemu, files, board, append)
    return boots


def _exits_of(boot: Boot) -> dict[str, int]:
    """User-space exits by reason while this boots."""
    IO_EVENT.write_text("hist:keys=reason\n")
    try:
        boot()
        text = IO_EVENT.with_name("hist").read_text()
    finally:
        IO_EVENT.write_text("!hist:keys=reason\n")
    counts: Counter[str] = Counter()
    for reason, hits in HIST_LINE.findall(text):
        counts[REASONS.get(int(reason), f"reason {reason}")] += int(hits)
    return dict(counts)


def inside(job: dict[str, Any]) -> None:
    """Take every boot in turn, then count the exits of each kind of boot once."""
    boots = _boots(job["files"])
    for _ in range(job["rounds"]):
        for name, boot in boots.items():
            publish(boot=name, uptime=boot())
    for name, boot in boots.items():
        publish(exits=name, reasons=_exits_of(boot))


# ---- outside ---------------------------------------------------------------------------------------------------------


def bench(options: Options) -> Iterator[Figure]:
    """One rig machine for all of it."""
    image = debian_guest(rc="true")
    job = {"files": {"kernel": str(image.kernel), "initrd": str(image.initrd)}, "rounds": options.pick(7, 1)}
    lines = run_inside([sys.executable, "-m", "tests.bench.boot", json.dumps(job)], limit_s=LIMIT_S * 2)
    uptimes: dict[str, list[float]] = {}
    for line in lines:
        if "boot" in line:
            uptimes.setdefault(line["boot"], []).append(line["uptime"])
    for kind in APPENDS:
        yield from _times(kind, uptimes)
        yield from _exits(kind, {line["exits"]: line["reasons"] for line in lines if "exits" in line})


def _times(kind: str, uptimes: dict[str, list[float]]) -> Iterator[Figure]:
    theirs = [of_samples(f"/init, {kind}, QEMU {board}", uptimes[f"qemu {board} {kind}"], "s") for board in BOARDS]
    best = min(figure.value for figure in theirs)
    for board in BOARDS:
        samples = uptimes[f"aioemu {board} {kind}"]
        yield of_samples(f"/init, {kind}, {board}", samples, "s", limit=0.9, reference=best)
    yield from theirs


def _exits(kind: str, counted: dict[str, dict[str, int]]) -> Iterator[Figure]:
    for board in BOARDS:
        ours, theirs = (counted[f"{who} {board} {kind}"] for who in ("aioemu", "qemu"))
        note = f"{_kinds(ours)}; QEMU {_kinds(theirs)}"
        total, reference = sum(ours.values()), sum(theirs.values())
        yield Figure(f"exits of a boot, {kind}, {board}", total, "", 1.0, reference=reference, note=note)


def _kinds(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    inside(json.loads(sys.argv[1]))
