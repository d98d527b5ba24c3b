"""The main job, end to end: boot Debian's stock kernel, use its shell over the serial console, switch it off.

    python examples/demo.py                 # runs by itself and ends with a summary
    python examples/demo.py --interactive   # the same guest on your terminal; Ctrl-A x leaves

The kernel and busybox come from Debian's packages, unpacked into a cache folder and never installed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from dataclasses import dataclass

import uvloop

import aioemu
from aioemu.images.guest import FIRST_LINE, PROMPT, GuestImage, debian_guest

BOOT_LIMIT_S = 120.0  # a busy machine with a software CPU; two seconds is usual
COMMAND_LIMIT_S = 30.0
COMMANDS = ("uname -sr", "grep -c ^processor /proc/cpuinfo", "head -n 1 /proc/meminfo", "cat /proc/uptime")


@dataclass(frozen=True)
class Summary:
    """What ran, and how long it took."""

    accelerator: str
    board: str
    ready_s: float
    init_uptime_s: float
    total_s: float
    exit: str
    answers: dict[str, str]

    def __str__(self) -> str:
        lines = ["", "summary"]
        lines += [f"  {command:<34} {answer}" for command, answer in self.answers.items()]
        lines.append(f"  {'board and accelerator':<34} {self.board}, {self.accelerator}")
        lines.append(f"  {'kernel start to /init':<34} {self.init_uptime_s:.2f} s by the guest's clock")
        lines.append(f"  {'start of the machine to the prompt':<34} {self.ready_s:.2f} s")
        lines.append(f"  {'until it was off':<34} {self.total_s:.2f} s, {self.exit}")
        return "\n".join(lines)


async def ask(vm: aioemu.Machine, command: str) -> str:
    """Type a command at the prompt; the line that it answers with."""
    await vm.console.send(f"{command}\n")
    answer = await vm.console.expect(rf"{re.escape(command)}\r\n(?P<answer>.*)\r\n.*{PROMPT}", COMMAND_LIMIT_S)
    return answer["answer"]


async def demo(image: GuestImage, board: str, accel: str, cpus: int) -> Summary:
    """Boot, ask, press the power button, wait until it is off."""
    start = time.perf_counter()
    async with aioemu.Machine(
        machine=board,
        accel=accel,
        smp=cpus,
        memory="256M",
        kernel=image.kernel,
        initrd=image.initrd,
        append=image.append,
    ) as vm:
        uptime = await vm.console.expect(rf"{FIRST_LINE}(?P<uptime>[0-9.]+)", BOOT_LIMIT_S)
        await vm.console.expect(PROMPT, BOOT_LIMIT_S)
        ready_s = time.perf_counter() - start
        answers = {command: await ask(vm, command) for command in COMMANDS}
        vm.powerdown()
        status = await asyncio.wait_for(vm.wait(), BOOT_LIMIT_S)
        total_s = time.perf_counter() - start
        return Summary(vm.accelerator, board, ready_s, float(uptime["uptime"]), total_s, str(status), answers)


def interactive(image: GuestImage, board: str, accel: str, cpus: int) -> None:
    """Become the command, with the guest on this terminal."""
    command = [sys.executable, "-m", "aioemu.cli", "-M", board, "-accel", accel, "-smp", str(cpus), "-m", "256"]
    command += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.append, "-nographic"]
    print(f"aioemu {' '.join(command[3:])}", flush=True)
    os.execv(command[0], command)


def main() -> int:
    """Parse, fetch, run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--machine", default="microvm", help="board: microvm or q35")
    parser.add_argument("--accel", default="auto", help="kvm, tcg or auto")
    parser.add_argument("--smp", type=int, default=1, help="processors")
    parser.add_argument("--interactive", action="store_true", help="give me the console")
    options = parser.parse_args()
    image = debian_guest()
    if options.interactive:
        interactive(image, options.machine, options.accel, options.smp)
    print(f"booting {image.kernel} on {options.machine}", flush=True)
    print(uvloop.run(demo(image, options.machine, options.accel, options.smp)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
