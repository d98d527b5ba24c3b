"""Two machines on one wire, and the same two payloads on two QEMUs whose wire are datagrams over unix sockets.

Frames a second, round trips, and how soon a guest sees that its link is down. The guests look at memory and need no
interrupts (`tests/guests/payload/net.c`), so what is measured is the way from one guest's ring into the other's.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from aioemu.api import RawRange
from aioemu.lab import Lab
from tests.bench.harness import Figure, Options, against, interleave, need, of_samples
from tests.bench.payload import EXIT_PORT, need_kvm
from tests.guests.build import payload

LIMIT_S = 120.0
STATUS_PORT = 0x510
DOWNS = 20
PARTS = "-m 128 -nodefaults -no-reboot -display none -serial stdio -device isa-debug-exit"
NEW_VIRTIO = "-global virtio-mmio.force-legacy=false"
GUEST: dict[str, Any] = {
    "machine": "microvm",
    "accel": "kvm",
    "memory": "128M",
    "no_reboot": True,
    "devices": [f"isa-debug-exit,iobase={EXIT_PORT:#x}", "virtio-net-device"],
}

Result = dict[str, Any]


async def _pair(speaker: str, listener: str) -> Result:
    """Both machines in one lab; what the speaker or else the listener reported."""
    async with Lab() as lab:
        machines = []
        for name, command in (("listener", listener), ("speaker", speaker)):
            machines.append(lab.machine(name, kernel=payload(), append=command, **GUEST))
        lab.link(machines[0].nic[0], machines[1].nic[0])
        await lab.start()
        async with asyncio.timeout(LIMIT_S):
            for vm in machines:
                await vm.wait()
        return _record("".join(vm.console.text for vm in machines))


def _qemu(speaker: str, listener: str) -> Result:
    """Two QEMUs, each with its best for this: a polling main loop cannot be had, so as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        ends = [Path(folder) / name for name in "ab"]
        running = []
        for command, mine, other in ((listener, ends[0], ends[1]), (speaker, ends[1], ends[0])):
            wire = f"dgram,id=n,local.type=unix,local.path={mine},remote.type=unix,remote.path={other}"
            words = [need("qemu-system-x86_64"), "-M", "microvm", "-accel", "kvm", *PARTS.split(), *NEW_VIRTIO.split()]
            words += ["-kernel", str(payload()), "-append", command, "-netdev", wire]
            words += ["-device", "virtio-net-device,netdev=n"]
            running.append(
                subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            )
        return _record("".join(each.communicate(timeout=LIMIT_S)[0] for each in running))


def _record(text: str) -> Result:
    assert text.count("payload: pass wire") == 2, text
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    found: Result = next((each for each in records if each["test"] in ("wire-count", "wire-ping")), records[0])
    return found


def _frame_us(result: Result) -> float:
    """Microseconds a frame, as the receiver saw them come."""
    return float(result["cycles"]) / float(result["tsc_per_ms"]) * 1000 / float(result["frames"])


def _trip_us(result: Result) -> float:
    return float(result["p50"]) / float(result["tsc_per_ms"]) * 1000


def _ours(speaker: str, listener: str) -> Result:
    return uvloop.run(_pair(speaker, listener))


async def _down_us() -> list[float]:
    """From the return of `link.down()` to the guest's word that it has seen it; up and down in turn."""
    seen: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    command = f"wire op=status n={2 * DOWNS} port={STATUS_PORT}"
    port = RawRange(1, lambda *_: 0, lambda _offset, _size, value: seen.put_nowait((value, time.monotonic_ns())))
    async with Lab() as lab:
        vm = lab.machine("m", kernel=payload(), append=command, **GUEST)
        vm.place(port, port=STATUS_PORT)
        link = lab.link(vm.nic[0], lab.hub())
        await lab.start()
        async with asyncio.timeout(LIMIT_S):
            assert (await seen.get())[0] == 1
            waits = []
            for _ in range(DOWNS):
                await link.down()
                done = time.monotonic_ns()
                value, when = await seen.get()
                assert value == 0
                waits.append((when - done) / 1000)
                await link.up()
                assert (await seen.get())[0] == 1
        return waits


def bench(options: Options) -> Iterator[Figure]:
    """Against QEMU in the same run, taking turns."""
    need_kvm()
    frames, trips, rounds = options.pick(300_000, 50_000), options.pick(10_000, 2000), options.pick(7, 2)
    for size in (64, 1500):
        stream = partial(_stream, frames, size)
        samples = interleave(rounds, {"ours": partial(stream, _ours), "qemu": partial(stream, _qemu)})
        note = f"{1e3 / min(samples['ours']):.0f}k frames/s at best, QEMU {1e3 / min(samples['qemu']):.0f}k"
        yield against(f"frame of {size}, machine to machine", samples["ours"], samples["qemu"], "us", 0.334, note)
    trip = partial(_trip, trips)
    samples = interleave(rounds, {"ours": partial(trip, _ours), "qemu": partial(trip, _qemu)})
    yield against("round trip of 64, machine to machine, p50", samples["ours"], samples["qemu"], "us", 0.5)
    waits = uvloop.run(_down_us())
    yield of_samples("link down seen by the guest", waits, "us")
    yield Figure("link down seen by the guest, at most", max(waits), "us", 1000, note=f"{len(waits)} times")


def _stream(count: int, size: int, run: Callable[[str, str], Result]) -> float:
    return _frame_us(run(f"wire op=send n={count} size={size}", "wire op=count"))


def _trip(count: int, run: Callable[[str, str], Result]) -> float:
    return _trip_us(run(f"wire op=ping n={count} size=64", "wire op=echo"))
