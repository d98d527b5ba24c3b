"""Machines on links, with guests that drive their cards themselves: what they see of frames, delays and carrier."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from aioemu import Lab, Link, Machine, RawRange
from tests.guests.build import payload

LIMIT_S = 60.0
DEVICES = ["isa-debug-exit,iobase=0x501", "virtio-net-device"]
GUEST: dict[str, Any] = {"machine": "microvm", "memory": "128M", "no_reboot": True, "devices": DEVICES}

pytestmark = pytest.mark.guest


@pytest.fixture(params=["tcg", pytest.param("kvm", marks=pytest.mark.kvm)])
def accel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pair(lab: Lab, accel: str, speaker: str, listener: str) -> tuple[Machine, Machine, Link]:
    a = lab.machine("speaker", kernel=payload(), append=speaker, accel=accel, **GUEST)
    b = lab.machine("listener", kernel=payload(), append=listener, accel=accel, **GUEST)
    return a, b, lab.link(a.nic[0], b.nic[0], seed=1)


async def ended(vm: Machine) -> dict[str, Any]:
    """The guest passed; what it reported."""
    await asyncio.wait_for(vm.wait(), LIMIT_S)
    text = vm.console.text
    assert "payload: pass wire" in text, text
    found: dict[str, Any] = next((json.loads(line) for line in text.splitlines() if line.startswith("{")), {})
    return found


async def test_no_frame_is_lost_between_guests(accel: str) -> None:
    """Every frame that one guest sends as fast as it can reaches the other, without a queue in between."""
    async with Lab() as lab:
        a, b, link = pair(lab, accel, "wire op=send n=5000 size=1500", "wire op=count")
        await lab.start()
        assert (await ended(b))["frames"] == 5000
        assert link.a_to_b.is_direct
        await ended(a)


async def test_delay_is_seen_by_the_guest(accel: str) -> None:
    """A round trip takes the link's delay both ways, by the guest's own clock."""
    async with Lab() as lab:
        a, b, link = pair(lab, accel, "wire op=ping n=20", "wire op=echo")
        await link.impair(delay_ms=5)
        await lab.start()
        result = await ended(a)
        await ended(b)
    assert result["min"] / result["tsc_per_ms"] >= 9.5  # the guest's clock is good to a few per cent


async def test_captured_and_delayed_at_once(accel: str) -> None:
    """A capture of the link sees every frame of both guests while it is impaired."""
    async with Lab() as lab:
        a, b, link = pair(lab, accel, "wire op=ping n=50", "wire op=echo")
        capture = lab.capture(None, link)
        reading = aiter(capture)
        first = asyncio.ensure_future(anext(reading))
        await asyncio.sleep(0)
        await link.impair(delay_ms=1)
        await lab.start()
        await asyncio.gather(ended(a), ended(b))
        capture.end()
        packets = [await first, *[packet async for packet in reading]]
    pings = [packet for packet in packets if packet.data[12:14] == b"\x88\xb5"]
    assert [packet.inbound for packet in pings] == [False, True] * 50


async def test_guest_sees_its_link_go_down(accel: str) -> None:
    """The status in the card's configuration changes with the link, each time."""
    seen: asyncio.Queue[int] = asyncio.Queue()
    port = RawRange(1, lambda *_: 0, lambda _offset, _size, value: seen.put_nowait(value))
    async with Lab() as lab:
        vm = lab.machine("m", kernel=payload(), append="wire op=status n=4 port=0x510", accel=accel, **GUEST)
        vm.place(port, port=0x510)
        link = lab.link(vm.nic[0], lab.hub())
        await lab.start()
        for up in (True, False, True, False, True):
            link.set_up(up)
            assert bool(await asyncio.wait_for(seen.get(), LIMIT_S)) is up
        await ended(vm)
