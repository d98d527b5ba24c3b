"""How long it takes until a guest runs: in a program that is there already, and from the command's start.

The command's first instruction is told from outside by the first byte that the payload prints, for QEMU as for aioemu.
What the guest itself needs until then (it calibrates its clock) is measured in a program, and taken off both.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import uvloop

from tests.bench.harness import Figure, Options, interleave, need, of_samples
from tests.bench.payload import LIMIT_S, finished, machine, need_kvm
from tests.guests.build import payload

ENDED_S = 30.0
COMMAND = "load"  # prints, and counts until it is ended


async def _first_entry_ms(board: str) -> float:
    started = time.monotonic_ns()
    async with machine("hello", machine=board) as vm:
        await finished(vm)
        return (vm.machine.native.first_entry_ns() - started) / 1e6


def _take(board: str) -> float:
    return uvloop.run(_first_entry_ms(board))


def bench(options: Options) -> Iterator[Figure]:
    """Create to first guest instruction, in one process, after a first machine."""
    need_kvm()
    boards = ("microvm", "q35")
    for board in boards:
        uvloop.run(_first_entry_ms(board))
    takers = {board: partial(_take, board) for board in boards}
    for board, samples in interleave(options.pick(100, 10), takers).items():
        yield of_samples(f"create to first guest instruction, {board}", samples, "ms", limit=10)


def first_byte_ms(command: Sequence[str]) -> float:
    """From the process' start to the first byte of the guest's output on its standard output."""
    started = time.monotonic_ns()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            first = os.read(process.stdout.fileno(), 1)
            took = time.monotonic_ns() - started
            assert first, f"{command[0]} ended without output"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(ENDED_S)
    return took / 1e6


def aioemu_command() -> list[str]:
    """The installed command of this environment."""
    return [str(Path(sys.executable).with_name("aioemu"))]


async def _guest_ms() -> float:
    """From the guest's first instruction to the first byte it prints."""
    async with machine(COMMAND) as vm:
        await vm.console.expect(".", LIMIT_S)
        return (time.monotonic_ns() - vm.machine.native.first_entry_ns()) / 1e6


def bench_command(options: Options) -> Iterator[Figure]:
    """Command start to the guest's first instruction, QEMU's microvm beside it."""
    need_kvm()
    rest = f"-m 128 -nodefaults -display none -serial stdio -kernel {payload()} -append {COMMAND}".split()
    qemu = [need("qemu-system-x86_64"), "-M", "microvm", "-accel", "kvm", "-cpu", "qemu64", *rest]
    samples = interleave(
        options.pick(25, 4),
        {
            "aioemu microvm": lambda: first_byte_ms([*aioemu_command(), "-M", "microvm", "-accel", "kvm", *rest]),
            "aioemu q35": lambda: first_byte_ms([*aioemu_command(), "-M", "q35", "-accel", "kvm", *rest]),
            "qemu": lambda: first_byte_ms(qemu),
            "python": lambda: first_byte_ms([sys.executable, "-c", "print(1, flush=True)"]),
            "guest": lambda: uvloop.run(_guest_ms()),
        },
    )
    guest = statistics.median(samples["guest"])
    for board in ("microvm", "q35"):
        took = [ms - guest for ms in samples[f"aioemu {board}"]]
        yield of_samples(f"command to first guest instruction, {board}", took, "ms", limit=200)
    yield of_samples("the same, QEMU -M microvm", [ms - guest for ms in samples["qemu"]], "ms")
    yield of_samples("of it, a bare Python interpreter", samples["python"], "ms")
    yield of_samples("then, the guest's first byte after", samples["guest"], "ms")
