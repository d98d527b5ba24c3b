"""The main job, end to end: boot Debian's stock kernel, use its shell and a disk, boot again, switch it off.

    python examples/demo.py                 # runs by itself and ends with a summary
    python examples/demo.py --interactive   # the same guest on your terminal; Ctrl-A x leaves

The kernel and busybox come from Debian's packages, unpacked into a cache folder and never installed. The disk is a
qcow2 image over a raw backing file; what is written to it before the reboot must be there afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

import aioemu
from aioemu.blockdev.qcow2.create import create_image
from aioemu.images.guest import FIRST_LINE, PROMPT, GuestImage, debian_guest

BOOT_LIMIT_S = 120.0  # a busy machine with a software CPU; two seconds is usual
COMMAND_LIMIT_S = 30.0
DISK_BYTES = 256 << 20
TRANSPORTS = {"microvm": ("virtio_mmio", "virtio-blk-device"), "q35": ("virtio_pci", "virtio-blk-pci")}
SCRIPTS = {
    "etc/fill": "mke2fs /dev/vda >/dev/null; mkdir -p /mnt; mount -t ext2 /dev/vda /mnt\n"
    "head -c 16777216 /dev/urandom >/mnt/file; sync; md5sum </mnt/file\n",
    "etc/find": "mkdir -p /mnt; mount -t ext2 /dev/vda /mnt; md5sum </mnt/file\n",
}
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
    disk: str
    answers: dict[str, str]

    def __str__(self) -> str:
        lines = ["", "summary"]
        lines += [f"  {command:<34} {answer}" for command, answer in self.answers.items()]
        lines.append(f"  {'board and accelerator':<34} {self.board}, {self.accelerator}")
        lines.append(f"  {'disk: qcow2 over a raw file':<34} {self.disk}")
        lines.append(f"  {'kernel start to /init':<34} {self.init_uptime_s:.2f} s by the guest's clock")
        lines.append(f"  {'start of the machine to the prompt':<34} {self.ready_s:.2f} s")
        lines.append(f"  {'until it was off':<34} {self.total_s:.2f} s, {self.exit}")
        return "\n".join(lines)


async def ask(vm: aioemu.Machine, command: str) -> str:
    """Type a command at the prompt; the line that it answers with."""
    await vm.console.send(f"{command}\n")
    answer = await vm.console.expect(rf"{re.escape(command)}\r\n(?P<answer>.*)\r\n.*{PROMPT}", COMMAND_LIMIT_S)
    return answer["answer"]


async def make_disk(folder: Path) -> Path:
    """An image over a backing file of which it shows every byte, until the guest writes there."""
    (folder / "base.raw").write_bytes(os.urandom(1 << 20) * (DISK_BYTES >> 20))
    await create_image(folder / "disk.qcow2", DISK_BYTES, backing_file="base.raw", backing_fmt="raw")
    return folder / "disk.qcow2"


async def use_disk(vm: aioemu.Machine) -> str:
    """Make a filesystem, write a file, boot again, and find it as it was."""
    before = await ask(vm, "sh /etc/fill")
    await vm.console.send("reboot -f\n")
    await vm.console.expect(FIRST_LINE, BOOT_LIMIT_S)
    await vm.console.expect(PROMPT, BOOT_LIMIT_S)
    after = await ask(vm, "sh /etc/find")
    if before != after:
        raise SystemExit(f"the disk lost what was written: {before}, then {after}")
    return f"16 MiB written, synced, the same after a reboot ({after[:8]})"


def judge(disk: Path) -> str:
    """What qemu-img, where there is one, says of the image."""
    if shutil.which("qemu-img") is None:
        return ""
    found = subprocess.run(["qemu-img", "check", disk], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise SystemExit(f"qemu-img check: {found.stdout}{found.stderr}")
    return "; qemu-img check: clean"


async def demo(image: GuestImage, board: str, accel: str, cpus: int, disk: Path) -> Summary:
    """Boot, ask, use the disk, press the power button, wait until it is off."""
    start = time.perf_counter()
    async with aioemu.Machine(
        machine=board,
        accel=accel,
        smp=cpus,
        memory="256M",
        kernel=image.kernel,
        initrd=image.initrd,
        append=image.append,
        drives=[f"file={disk},format=qcow2,if=none,id=d0,discard=unmap"],
        devices=[f"{TRANSPORTS[board][1]},drive=d0"],
    ) as vm:
        uptime = await vm.console.expect(rf"{FIRST_LINE}(?P<uptime>[0-9.]+)", BOOT_LIMIT_S)
        await vm.console.expect(PROMPT, BOOT_LIMIT_S)
        ready_s = time.perf_counter() - start
        answers = {command: await ask(vm, command) for command in COMMANDS}
        used = await use_disk(vm)
        vm.powerdown()
        status = await asyncio.wait_for(vm.wait(), BOOT_LIMIT_S)
        total_s = time.perf_counter() - start
        accelerator = vm.accelerator
    used += judge(disk)
    return Summary(accelerator, board, ready_s, float(uptime["uptime"]), total_s, str(status), used, answers)


async def with_disk(image: GuestImage, board: str, accel: str, cpus: int) -> Summary:
    """The demo with a disk of its own."""
    with tempfile.TemporaryDirectory(prefix="aioemu-demo-") as folder:
        return await demo(image, board, accel, cpus, await make_disk(Path(folder)))


def interactive(image: GuestImage, board: str, accel: str, cpus: int) -> None:
    """Become the command, with the guest on this terminal."""
    command = [sys.executable, "-m", "aioemu.cli", "-M", board, "-accel", accel, "-smp", str(cpus), "-m", "256"]
    command += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.append, "-nographic"]
    print(f"aioemu {' '.join(command[3:])}", flush=True)
    os.execv(command[0], command)


def main() -> int:
    """Parse, fetch, run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--machine", default="microvm", choices=list(TRANSPORTS), help="board")
    parser.add_argument("--accel", default="auto", help="kvm, tcg or auto")
    parser.add_argument("--smp", type=int, default=1, help="processors")
    parser.add_argument("--interactive", action="store_true", help="give me the console")
    options = parser.parse_args()
    image = debian_guest(modules=[TRANSPORTS[options.machine][0], "virtio_blk"], files=SCRIPTS)
    if options.interactive:
        interactive(image, options.machine, options.accel, options.smp)
    print(f"booting {image.kernel} on {options.machine}", flush=True)
    print(uvloop.run(with_disk(image, options.machine, options.accel, options.smp)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
