"""How long it takes until a guest runs: in a program that is there already, and from the command's start.

The command's first instruction is seen from outside as the first byte that the payload prints, a few hundred guest
instructions later, for QEMU as for aioemu.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import uvloop

from tests.bench.harness import Figure, Options, against, interleave, need, of_samples
from tests.bench.payload import finished, machine, need_kvm
from tests.guests.build import payload

ENDED_S = 30.0


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


def bench_command(options: Options) -> Iterator[Figure]:
    """Command start to the guest's first byte, QEMU's microvm beside it."""
    need_kvm()
    rest = f"-m 128 -nodefaults -display none -serial stdio -kernel {payload()} -append load".split()
    qemu = [need("qemu-system-x86_64"), "-M", "microvm", "-accel", "kvm", "-cpu", "qemu64", *rest]
    samples = interleave(
        options.pick(25, 4),
        {
            "aioemu microvm": lambda: first_byte_ms([*aioemu_command(), "-M", "microvm", "-accel", "kvm", *rest]),
            "aioemu q35": lambda: first_byte_ms([*aioemu_command(), "-M", "q35", "-accel", "kvm", *rest]),
            "qemu": lambda: first_byte_ms(qemu),
            "python": lambda: first_byte_ms([sys.executable, "-c", "print(1, flush=True)"]),
        },
    )
    for board in ("microvm", "q35"):
        yield of_samples(f"command to the guest's first byte, {board}", samples[f"aioemu {board}"], "ms", limit=200)
    yield of_samples("the same, QEMU -M microvm", samples["qemu"], "ms")
    yield of_samples("of it, a bare Python interpreter", samples["python"], "ms")
    yield against("ratio to QEMU -M microvm", samples["aioemu microvm"], samples["qemu"], "ms", 10)
