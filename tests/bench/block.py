"""Disks: the time of a request, beside QEMU with the same polling payload, the same file, in the same interleaved run.

QEMU's figure is that of the better of its settings. Requests a second are the inverse; what is bounded is the time, so
1.5 times QEMU's rate is a ratio of 0.667. The file is on tmpfs: nothing but the monitors is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from aioemu.api import Machine
from aioemu.config import DeviceOptions, MachineConfig, OptionGroup
from aioemu.images import debian_guest
from tests.bench.harness import Figure, Options, interleave, need, of_samples
from tests.bench.payload import finished, machine, need_kvm
from tests.guests.build import payload

FILE_BYTES = 256 << 20
MEMORY = "/dev/shm"
LIMIT_S = 60.0
LOADS = {
    "4 KiB random read, qd 1": "qd=1",
    "4 KiB random write, qd 1": "qd=1 write=1",
    "4 KiB random read, qd 32": "qd=32",
    "4 KiB random write, qd 32": "qd=32 write=1",
    "128 KiB sequential read, qd 8": "qd=8 size=131072 seq=1",
    "128 KiB sequential write, qd 8": "qd=8 size=131072 seq=1 write=1",
}
SEQUENTIAL = "128 KiB"
QEMU_SETTINGS = {"io_uring": "io_uring", "native,direct": "native,file.cache.direct=on,cache.direct=on"}
RAW = "driver=raw,node-name=d,file.driver=file,file.filename={file}"
THREAD, LOOP = "iothread", "main loop"
RATIOS = {THREAD: 1 / 1.5, LOOP: 1.0}

Sample = tuple[float, float, float]  # microseconds: of a request, their median and 99th percentile
Taken = dict[str, tuple[list[float], ...]]


def command(program: list[str], file: Path, aio: str, place: str, append: str) -> list[str]:
    """A machine that runs the payload on this disk, in words that both programs take."""
    device = "virtio-blk-device,drive=d" + (",iothread=io0" if place == THREAD else "")
    return [
        *program,
        *("-accel", "kvm", "-cpu", "qemu64", "-m", "128M", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-kernel", str(payload()), "-append", append),
        *("-blockdev", RAW.format(file=file) + (f",file.aio={aio}" if aio else "")),
        *("-object", "iothread,id=io0", "-device", device),
        *("-device", "isa-debug-exit,iobase=0x501"),
    ]


def qemu() -> list[str]:
    board = "microvm,x-option-roms=off"
    return [need("qemu-system-x86_64"), "-M", board, "-global", "virtio-mmio.force-legacy=false"]


def aioemu() -> list[str]:
    return [sys.executable, "-m", "aioemu", "-M", "microvm"]


def parse(text: str) -> Sample:
    """What the payload printed."""
    lines = [json.loads(line) for line in re.findall(r"^\{.*\}", text, re.M)]
    assert len(lines) == 2, text
    total, quantiles = lines
    per_us = quantiles["tsc_per_ms"] / 1000
    return total["cycles"] / per_us / total["done"], quantiles["p50"] / per_us, quantiles["p99"] / per_us


def take(words: list[str]) -> Sample:
    """One run of a program."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL, check=False)
    assert "payload: pass" in done.stdout, done.stdout + done.stderr
    return parse(done.stdout)


def run(takers: Mapping[str, Callable[[], Sample]], rounds: int) -> Taken:
    """Interleaved: the times, medians and the 99th percentiles of each."""
    found: dict[str, list[Sample]] = {name: [] for name in takers}

    def taker(name: str) -> float:
        found[name].append(takers[name]())
        return 0.0

    interleave(rounds, {name: partial(taker, name) for name in takers})
    return {name: tuple([s[i] for s in samples] for i in range(3)) for name, samples in found.items()}


@contextlib.contextmanager
def image() -> Iterator[Path]:
    """A file in memory, all of it there."""
    with tempfile.NamedTemporaryFile(dir=MEMORY, prefix="aioemu-bench-") as file:
        block = os.urandom(1 << 20)
        for _ in range(FILE_BYTES >> 20):
            file.write(block)
        file.flush()
        yield Path(file.name)


def bench(options: Options) -> Iterator[Figure]:
    """On KVM, with an iothread and without."""
    need_kvm()
    ms = options.pick(500, 150)
    with image() as file:
        for name, load in LOADS.items():
            for place in (THREAD, LOOP):
                append = f"blk {load} ms={ms}"
                takers = {"aioemu": partial(take, command(aioemu(), file, "", place, append))}
                for setting, aio in QEMU_SETTINGS.items():
                    words = command(qemu(), file, aio, place, append)
                    takers[setting] = partial(take, words)
                yield from compare(name, place, run(takers, options.pick(7, 2)))


def compare(name: str, place: str, taken: Taken, limit: float | None = None) -> Iterator[Figure]:
    """Ours against the better of QEMU's settings."""
    best = min(QEMU_SETTINGS, key=lambda setting: statistics.median(taken[setting][0]))
    ours, theirs = taken["aioemu"], taken[best]
    if limit is None:
        limit = 1.0 if name.startswith(SEQUENTIAL) else RATIOS[place]
    rate = 1e6 / statistics.median(ours[0])
    note = f"{rate / 1e3:.0f}k/s, QEMU {best}"
    reference = statistics.median(theirs[0])
    yield of_samples(f"{name}, {place}", ours[0], "us", limit=limit, reference=reference, note=note)
    yield of_samples(f"  its p50, {place}", ours[1], "us", reference=statistics.median(theirs[1]))
    yield of_samples(f"  its p99, {place}", ours[2], "us", limit=1.0, reference=statistics.median(theirs[2]))


# ---- with Python busy --------------------------------------------------------------------------------------------


def in_process(file: Path, append: str) -> Machine:
    """The same disk in a program of one's own."""
    node = {"node-name": "d", "file": {"driver": "file", "filename": str(file)}}
    config = MachineConfig(
        blockdevs=(OptionGroup("blockdev", "raw", None, node),),
        objects=(OptionGroup("object", "iothread", "io0", {}),),
        devices=(DeviceOptions("virtio-blk-device", None, None, None, {"drive": "d", "iothread": "io0"}),),
    )
    return machine(append, config=config)


async def _measure(file: Path, append: str, place: str) -> str:
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    async with in_process(file, append) as vm:
        thread = threading.Thread(target=spin)
        elsewhere = None
        if place == "inside":
            thread.start()
        else:
            elsewhere = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            await finished(vm)
        finally:
            stop.set()
            if elsewhere is not None:
                elsewhere.kill()
                elsewhere.wait()
            else:
                thread.join()
        return vm.console.text


def bench_busy(options: Options) -> Iterator[Figure]:
    """A Python thread that spins in the same process takes no more from an iothread's disk than any other program's."""
    need_kvm()
    with image() as file:
        words = [sys.executable, "-m", "tests.bench.block", str(file), f"blk qd=32 ms={options.pick(500, 150)}"]
        takers = {place: partial(take, [*words, place]) for place in ("elsewhere", "inside")}
        taken = run(takers, options.pick(15, 3))
    reference = statistics.median(taken["elsewhere"][0])
    name = "4 KiB random read, qd 32, iothread, Python spinning in it"
    yield of_samples(name, taken["inside"][0], "us", limit=1.1, reference=reference, note="or in another process")


# ---- Linux on a software processor -------------------------------------------------------------------------------

LINUX_RC = """
read -r begin idle </proc/uptime
dd if=/dev/vda of=/dev/null bs=4k count={count} iflag=direct 2>/dev/null
read -r end idle </proc/uptime
echo "took $begin $end"
"""


def take_linux(words: list[str], count: int) -> Sample:
    """Microseconds of one read, by the guest's own clock."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    found = re.search(r"took ([0-9.]+) ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return (float(found[2]) - float(found[1])) * 1e6 / count, 0.0, 0.0


def bench_linux(options: Options) -> Iterator[Figure]:
    """4 KiB direct reads of dd in Debian's kernel, on tcg, with an iothread."""
    count = options.pick(20000, 4000)
    guest = debian_guest(modules=["virtio_pci", "virtio_blk"], rc=LINUX_RC.format(count=count))
    with image() as file:

        def words(program: list[str], aio: str) -> list[str]:
            return [
                *program,
                *("-accel", "tcg", "-m", "256M", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
                *("-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append", guest.append),
                *("-blockdev", RAW.format(file=file) + f",file.aio={aio}", "-object", "iothread,id=io0"),
                *("-device", "virtio-blk-pci,drive=d,iothread=io0"),
            ]

        board = ["-M", "q35"]
        ours = words([sys.executable, "-m", "aioemu", *board], "io_uring")
        takers = {"aioemu": partial(take_linux, ours, count)}
        for setting, aio in QEMU_SETTINGS.items():
            takers[setting] = partial(take_linux, words([need("qemu-system-x86_64"), *board], aio), count)
        taken = run(takers, options.pick(5, 1))
    best = min(QEMU_SETTINGS, key=lambda setting: statistics.median(taken[setting][0]))
    samples, reference = taken["aioemu"][0], statistics.median(taken[best][0])
    note = f"{1e3 / statistics.median(samples):.1f}k/s, QEMU {best}"
    yield of_samples("Linux on tcg, 4 KiB direct read", samples, "us", limit=1 / 1.5, reference=reference, note=note)


BENCHES: dict[str, Any] = {"block": bench, "block-busy": bench_busy, "block-linux": bench_linux}

if __name__ == "__main__":
    print(uvloop.run(_measure(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
