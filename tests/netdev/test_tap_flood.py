"""A TAP device that brings a flood: looked at by the clock meanwhile, watched again afterwards, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu._core import lib
from aioemu.netdev.port import Box
from tests.netdev.namespaces import Namespace
from tests.netdev.test_tap import FRAME, OPEN_LIMIT_S, Bench, arrival

BURST = 400  # frames: fewer than the device keeps, and a flood even if they take 6 ms


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.close()


def watched(bench: Bench) -> bool:
    """Whether the io context waits for the device's descriptor."""
    text = Path(f"/proc/self/fdinfo/{lib.core_io_fd(bench.io.ptr)}").read_text()
    fds = [line.split()[1] for line in text.splitlines() if line.startswith("tfd:")]
    return any(os.readlink(f"/proc/self/fd/{fd}") == "/dev/net/tun" for fd in fds)


async def burst(sniffer: socket.socket, box: Box) -> None:
    """Frames as fast as can be, and all of them arrive in order."""
    numbers = [index.to_bytes(2, "big") for index in range(BURST)]
    for number in numbers:
        sniffer.send(FRAME + number)
    assert [(await arrival(box))[-2:] for _ in range(BURST)] == numbers


async def flooded(bench: Bench, sniffer: socket.socket, box: Box) -> None:
    """Send until it is looked at by the clock; several bursts, as the first only begins to be counted."""
    end = time.monotonic() + OPEN_LIMIT_S
    while watched(bench):
        assert time.monotonic() < end, "a flood is never looked at by the clock"
        await burst(sniffer, box)


async def calm(bench: Bench) -> None:
    """Until the descriptor is waited for again."""
    async with asyncio.timeout(OPEN_LIMIT_S):
        while not watched(bench):
            await asyncio.sleep(0)


@pytest.fixture
async def tap(bench: Bench, netns: Namespace) -> Any:
    return await bench.open(ifname="lab0", netns=netns.name)


async def test_a_flood_is_looked_at_by_the_clock_and_ends(bench: Bench, netns: Namespace, tap: Any) -> None:
    """The descriptor is left alone in a flood, watched again soon after it, and every frame arrives in order."""
    box = bench.box(tap, frames=2 * BURST)
    with netns.packet_socket("lab0") as sniffer:
        for _ in range(3):
            await flooded(bench, sniffer, box)
            await calm(bench)
            await burst(sniffer, box)


async def test_what_is_answered_is_no_flood(bench: Bench, netns: Namespace, tap: Any) -> None:
    """Who answers each frame is told of the next one at once."""
    box = bench.box(tap, frames=2 * BURST)
    with netns.packet_socket("lab0") as sniffer:
        for _ in range(20):
            for _ in range(BURST):
                assert box.send(FRAME)
                sniffer.send(FRAME)
            for _ in range(BURST):
                await arrival(box)
                assert watched(bench)


async def test_a_flood_into_a_port_without_room_waits(bench: Bench, netns: Namespace, tap: Any) -> None:
    """What the peer does not take in a flood is not lost, and comes when there is room."""
    box = bench.box(tap, frames=4, waits=True)
    with netns.packet_socket("lab0") as sniffer:
        for _ in range(5):
            await burst(sniffer, box)
    await calm(bench)


@pytest.mark.parametrize("how", ["closed", "deleted"])
async def test_a_device_may_go_in_a_flood(bench: Bench, netns: Namespace, tap: Any, how: str) -> None:
    """A device that is closed or deleted meanwhile leaves a context that serves others as before."""
    box = bench.box(tap, frames=2 * BURST)
    with netns.packet_socket("lab0") as sniffer:
        await flooded(bench, sniffer, box)
        if how == "closed":
            tap.close()
        else:
            netns.netlink(lambda ip: ip.link("del", index=ip.link_lookup(ifname="lab0")[0]))
    other = await bench.open(ifname="lab1", netns=netns.name)
    second = bench.box(other)
    with netns.packet_socket("lab1") as sniffer:
        sniffer.send(FRAME)
        assert await arrival(second) == FRAME
