"""Links: how exact delays are, that losses are as many as asked for and the same ones again, and what a lab costs.

Times are those of the link's own capture, taken natively where a frame gets in and where it gets out.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import threading
import time
from collections.abc import Iterator

import uvloop

from aioemu.lab import Lab
from aioemu.netdev.capture import Capture
from aioemu.netdev.link import Clockwork, Link
from aioemu.netdev.port import Box
from tests.bench.harness import Figure, Options, of_samples

DELAY_MS = 10.0
RATE_PPS = 10_000
FRAME = bytes(12) + b"\x88\xb5" + bytes(50)
LOSS = 0.01
LOSS_FRAMES = 100_000
BOUND = 3.29  # standard deviations: 99.9 % of the binomial distribution
MACHINES, LINKS = 100, 300
LIMIT_S = 60.0


def send_paced(box: Box, count: int) -> None:
    """Send numbered frames at RATE_PPS; what the host makes late is made up for."""
    start = time.perf_counter_ns()
    for index in range(count):
        due = start + index * 1_000_000_000 // RATE_PPS
        while (left := due - time.perf_counter_ns()) > 0:
            if left > 60_000:
                time.sleep((left - 60_000) / 1e9)  # time passes: the pace is what is measured at
        box.send(FRAME[:14] + index.to_bytes(4, "big") + FRAME[18:])


async def _delays_us(seconds: float, **impairment: float) -> list[float]:
    """How late each frame came out of the link, after it got in."""
    clockwork, capture = Clockwork(), Capture(buffer_bytes=64 << 20)
    link, a, b = Link("bench", clockwork), Box(), Box(1 << 16)
    link.a.join(a)
    link.b.join(b)
    capture.add(link)
    capture.add(link.b)
    reading = aiter(capture)
    first = asyncio.ensure_future(anext(reading))
    await asyncio.sleep(0)
    await link.a_to_b.impair(**impairment)
    count = round(seconds * RATE_PPS)
    sender = threading.Thread(target=send_paced, args=(a, count))
    sender.start()
    await asyncio.to_thread(sender.join)
    while link.a_to_b.stats.waiting:
        await asyncio.sleep(0.001)  # time passes: frames are on their way
    capture.end()
    packets = [await first, *[packet async for packet in reading]]
    entered = {p.data[14:18]: p.time_ns for p in packets if p.interface == "bench"}
    left = {p.data[14:18]: p.time_ns for p in packets if p.interface == "bench:b"}
    link.close()
    a.close()
    b.close()
    clockwork.close()
    assert len(entered) == len(left) == count, (len(entered), len(left))
    return [(left[key] - entered[key]) / 1000 for key in entered]


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


async def _lost(seed: int) -> list[int]:
    """The numbers of the frames that a link of its own loses."""
    clockwork = Clockwork()
    link, a, b = Link("bench", clockwork), Box(), Box(1 << 16)
    link.a.join(a)
    link.b.join(b)
    await link.a_to_b.impair(loss=LOSS, seed=seed)
    arrived = set()
    for index in range(LOSS_FRAMES):
        a.send(FRAME[:14] + index.to_bytes(4, "big") + FRAME[18:])
        while (frame := b.take()) is not None:
            arrived.add(int.from_bytes(frame[14:18], "big"))
    link.close()
    a.close()
    b.close()
    clockwork.close()
    return [index for index in range(LOSS_FRAMES) if index not in arrived]


async def _big_lab() -> tuple[float, float, float]:
    """Seconds to bring a lab up and down, and what is left of it: descriptors, threads and tasks."""

    def footprint() -> int:
        return len(os.listdir("/proc/self/fd")) + threading.active_count() + len(asyncio.all_tasks())

    async with Lab() as small:
        small.machine("warm", machine="microvm", accel="qtest", memory="2M")
        await small.start()
    before = footprint()
    start = time.perf_counter()
    async with Lab() as lab:
        cards = -(-2 * LINKS // MACHINES)
        devices = ["virtio-net-device"] * cards
        machines = [
            lab.machine(f"m{n}", machine="microvm", accel="qtest", memory="2M", devices=devices)
            for n in range(MACHINES)
        ]
        for index in range(LINKS):
            one, other = index % MACHINES, (index * 7 + 1) % MACHINES
            card = index // MACHINES
            lab.link(machines[one].nic[card], machines[other].nic[cards // 2 + card])
        await lab.start()
        for link in lab.links.values():
            await link.impair(delay_ms=1)
        up = time.perf_counter() - start
        start = time.perf_counter()
    return up, time.perf_counter() - start, footprint() - before


def bench(options: Options) -> Iterator[Figure]:
    """Delay and loss, and a lab of 100 machines and 300 links."""
    seconds = options.pick(10, 1)
    late = [each - DELAY_MS * 1000 for each in uvloop.run(_delays_us(seconds, delay_ms=DELAY_MS))]
    note = f"{len(late)} frames at {RATE_PPS} a second"
    yield Figure("delay of 10 ms, error p50", statistics.median(late), "us", note=note)
    yield Figure("delay of 10 ms, error p99", _percentile([abs(each) for each in late], 0.99), "us", 200, note=note)
    lost = [asyncio.run(_lost(seed)) for seed in (7, 7, 8)]
    allowed = BOUND * math.sqrt(LOSS_FRAMES * LOSS * (1 - LOSS))
    for found, seed in zip(lost, (7, 7, 8), strict=True):
        away = abs(len(found) - LOSS_FRAMES * LOSS)
        yield Figure(f"loss of 1 % over 100k, seed {seed}, away from 1000", away, "frames", round(allowed, 1))
    differ = len(set(lost[0]) ^ set(lost[1]))
    yield Figure("frames lost in only one of two runs of a seed", differ, "frames", 0)
    labs = [uvloop.run(_big_lab()) for _ in range(options.pick(3, 1))]
    yield of_samples("100 machines and 300 links, up", [each[0] for each in labs], "s")
    yield of_samples("100 machines and 300 links, down", [each[1] for each in labs], "s")
    yield Figure("descriptors, threads and tasks left of it", max(each[2] for each in labs), "", 0)
