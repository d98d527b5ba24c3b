"""Switches and hubs: frames go to the ports they belong to, bounded whatever the stations do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from aioemu.netdev.hub import Hub
from aioemu.netdev.link import Clockwork, Link
from aioemu.netdev.port import Box
from aioemu.netdev.switch import STATIONS_MAX, Switch

LIMIT_S = 10.0
BROADCAST = b"\xff" * 6
A, B, C = (bytes([2, 0, 0, 0, 0, index]) for index in range(3))


def frame(to: bytes, source: bytes, text: bytes = b"") -> bytes:
    return to + source + b"\x88\xb5" + text.ljust(46, b"\0")


class Rig:
    """A switch with a box at each of its ports."""

    def __init__(self, switch: Switch, ports: int, *, frames: int = 1 << 14, waits: bool = False) -> None:
        self.switch = switch
        self.boxes = [Box(frames, waits=waits) for _ in range(ports)]
        for box in self.boxes:
            switch.add_port().join(box)

    def close(self) -> None:
        self.switch.close()
        for box in self.boxes:
            box.close()

    async def take(self, index: int) -> bytes:
        """The next frame at a port."""
        box = self.boxes[index]
        async with asyncio.timeout(LIMIT_S):
            while (found := box.take()) is None:
                await asyncio.sleep(0)
        return found

    async def settle(self) -> None:
        """All that was sent before has arrived: a broadcast from the last port has come out of the others."""
        self.boxes[-1].send(frame(BROADCAST, bytes([2] * 6), b"settle"))
        for index in range(len(self.boxes) - 1):
            while b"settle" not in await self.take(index):
                pass


@pytest.fixture
def rig(clockwork: Clockwork) -> Iterator[Rig]:
    made = Rig(Switch("sw", clockwork), 4)
    yield made
    made.close()


async def test_unknown_stations_are_flooded(rig: Rig) -> None:
    """A frame to nobody known comes out of every port but its own."""
    rig.boxes[0].send(frame(B, A))
    for index in (1, 2, 3):
        assert await rig.take(index) == frame(B, A)
    assert rig.boxes[0].waiting == 0


async def test_known_stations_get_their_own(rig: Rig) -> None:
    """A station that was heard gets its frames, and nobody else does."""
    rig.boxes[1].send(frame(BROADCAST, B))
    for index in (0, 2, 3):
        await rig.take(index)
    rig.boxes[0].send(frame(B, A))
    assert await rig.take(1) == frame(B, A)
    await rig.settle()
    assert rig.boxes[2].waiting == 0
    assert ("02:00:00:00:00:01", 1) in [(station.mac, station.port) for station in rig.switch.stations]


async def test_station_that_moves(rig: Rig) -> None:
    """A station is where it was heard last."""
    for index in (1, 2):
        rig.boxes[index].send(frame(BROADCAST, B))
        await rig.take(3)
    rig.boxes[0].send(frame(B, A, b"where"))
    while b"where" not in await rig.take(2):
        pass


async def test_lost_carrier_forgets(rig: Rig) -> None:
    """What was behind a port that lost its carrier is looked for everywhere."""
    rig.boxes[1].send(frame(BROADCAST, B))
    await rig.take(0)
    rig.boxes[1].set_up(False)
    assert rig.switch.stations == []
    rig.boxes[0].send(frame(B, A, b"where"))
    while b"where" not in await rig.take(2):
        pass
    assert rig.boxes[1].waiting == 0


@pytest.mark.parametrize("passes", [False, True])
async def test_reserved_addresses(clockwork: Clockwork, passes: bool) -> None:
    """STP, LACP and LLDP stay on their port, as with a bridge, unless it is asked to pass them."""
    rig = Rig(Switch("sw", clockwork, pass_reserved=passes), 2)
    rig.boxes[0].send(frame(bytes.fromhex("0180c200000e"), A))
    rig.boxes[0].send(frame(BROADCAST, A))
    assert (await rig.take(1))[:6] == (bytes.fromhex("0180c200000e") if passes else BROADCAST)
    assert rig.switch.ports[0].stats.received.dropped == ({} if passes else {"filtered": 1})
    rig.close()


async def test_hub_sends_everything_everywhere(clockwork: Clockwork) -> None:
    """A hub learns nothing."""
    rig = Rig(Hub("hub", clockwork), 3)
    for sender in (1, 0):
        rig.boxes[sender].send(frame(B, bytes([2, 0, 0, 0, 0, sender])))
        assert await rig.take(1 - sender) == await rig.take(2)
    assert rig.switch.stations == []
    rig.close()


async def test_table_is_bounded(rig: Rig) -> None:
    """A station that invents addresses fills the table and no more, and frames still pass."""
    for index in range(3 * STATIONS_MAX):
        rig.boxes[0].send(frame(BROADCAST, b"\x06" + index.to_bytes(5, "big")))
        for box in rig.boxes[1:]:
            box.take()
    assert len(rig.switch.stations) <= STATIONS_MAX
    await rig.settle()


async def test_groups_are_not_learnt(rig: Rig) -> None:
    """Nobody can draw the broadcasts to himself by sending from their address."""
    rig.boxes[0].send(frame(BROADCAST, BROADCAST))
    await rig.take(1)
    assert rig.switch.stations == []


async def test_port_that_never_reads(clockwork: Clockwork) -> None:
    """A port whose peer takes nothing fills its own queue; the others are not touched."""
    rig = Rig(Switch("sw", clockwork, queue_frames=16), 3, frames=4, waits=True)
    for index in range(100):
        assert rig.boxes[0].send(frame(BROADCAST, A, bytes([index])))
        assert (await rig.take(1))[14] == index
    assert rig.switch.ports[2].stats.sent.dropped == {"queue-full": 80}
    assert [(await rig.take(2))[14] for _ in range(20)] == list(range(20))
    rig.close()


async def test_loop_of_switches(clockwork: Clockwork) -> None:
    """Two switches joined twice are a storm, which costs time only: both stop when a cable is pulled."""
    switches = [Switch(name, clockwork) for name in "ab"]
    box = Box(16)
    switches[0].add_port().join(box)
    cables = [Link(name, clockwork) for name in ("one", "two")]
    for cable in cables:
        cable.a.join(switches[0].add_port())
        cable.b.join(switches[1].add_port())
    box.send(frame(BROADCAST, A))
    async with asyncio.timeout(LIMIT_S):
        while cables[0].a_to_b.stats.frames < 1000:
            await asyncio.sleep(0)
    await cables[0].down()
    for cable in cables:
        cable.close()
    for switch in switches:
        switch.close()
    box.close()
