"""Links by QMP: cut, impaired and looked at from the monitor of a machine that is on them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioemu import EmuError, Lab, Machine, MonitorError
from aioemu.netdev.link import Link
from aioemu.netdev.port import Box

FRAME = bytes(60)


class Desk:
    """A machine on one link, whose far end is a box."""

    def __init__(self, vm: Machine, link: Link, a: Box, b: Box) -> None:
        self.vm, self.link, self.a, self.b = vm, link, a, b

    async def qmp(self, name: str, **arguments: Any) -> Any:
        return await self.vm.qmp(name, **arguments)

    async def direction(self, index: int) -> dict[str, Any]:
        found: dict[str, Any] = (await self.qmp("aioemu-query-links"))[0]["directions"][index]
        return found


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with Lab() as lab:
        vm = lab.machine("m", machine="microvm", accel="qtest", memory="2M")
        await lab.start()
        a, b = Box(), Box()
        link = lab.link(a, b, "net0", seed=3)
        vm.machine.links["net0"] = link
        yield Desk(vm, link, a, b)


async def test_one_direction(desk: Desk) -> None:
    """Values that are given change, in one direction, and the others stay."""
    await desk.qmp("aioemu-link-set", link="net0", delay_ms=20, loss=0.5)
    await desk.qmp("aioemu-link-set", link="net0", direction="a-to-b", loss=1, jitter="normal")

    there, back = await desk.direction(0), await desk.direction(1)
    assert (there["delay-ms"], there["loss"], there["jitter"]) == (20, 1, "normal")
    assert (back["delay-ms"], back["loss"], back["jitter"]) == (20, 0.5, "uniform")
    desk.a.send(FRAME)
    assert (await desk.direction(0))["dropped"] == [{"reason": "loss", "frames": 1}]


async def test_clear(desk: Desk) -> None:
    """A cleared link passes frames as they are."""
    await desk.qmp("aioemu-link-set", link="net0", loss=1)
    await desk.qmp("aioemu-link-clear", link="net0")
    desk.a.send(FRAME)
    assert desk.b.take() == FRAME


async def test_cut(desk: Desk) -> None:
    """A link that is cut has no carrier when the command is answered."""
    await desk.qmp("aioemu-link-set", link="net0", up=False)
    assert (desk.a.carrier, (await desk.qmp("aioemu-query-links"))[0]["up"]) == (False, False)
    await desk.qmp("aioemu-link-set", link="net0", up=True)
    assert desk.a.carrier


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"link": "net1"}, "Link 'net1' not found"),
        ({"link": "net0", "loss": 2}, "loss is a number from 0 to 1"),
        ({"link": "net0", "loss": 1, "delay_ms": -1}, "delay_ms"),
        ({"link": "net0", "loss": "much"}, "Invalid parameter type for 'loss', expected: number"),
        ({"link": "net0", "direction": "up"}, "does not accept value 'up'"),
        ({"link": "net0", "speed": 1}, "Parameter 'speed' is unexpected"),
    ],
)
async def test_mistakes(desk: Desk, arguments: dict[str, Any], says: str) -> None:
    """What cannot be is refused with its name, and nothing has changed."""
    with pytest.raises(MonitorError, match=says):
        await desk.qmp("aioemu-link-set", **arguments)
    assert (await desk.direction(0))["loss"] == 0


async def test_card_with_a_back_end() -> None:
    """A card of a machine by itself has a link to its back end as soon as one is asked for; its guest sees nothing."""
    network: dict[str, Any] = {
        "netdevs": ["hubport,id=n0,hubid=0"],
        "devices": ["virtio-net-device,id=card0,netdev=n0"],
    }
    async with Machine(machine="microvm", accel="qtest", memory="2M", **network) as vm:

        def up() -> bool:
            return vm.nic[0].link_up

        assert await vm.qmp("aioemu-query-links") == []
        assert up() is True
        await vm.qmp("aioemu-link-set", link="n0", delay_ms=5)
        assert up() is True
        await vm.qmp("aioemu-link-set", link="card0", direction="b-to-a", loss=0.5)
        links = await vm.qmp("aioemu-query-links")
        assert [(each["link"], each["directions"][1]["loss"]) for each in links] == [("n0", 0.5)]
        await vm.qmp("aioemu-link-set", link="n0", up=False)
        assert up() is False
        await vm.link("card0").up()
        assert up() is True
        with pytest.raises(EmuError, match="card1"):
            vm.link("card1")
        vm.nic[0].port.close()  # as when the card is unplugged
        assert await vm.qmp("aioemu-query-links") == []


async def test_replay(desk: Desk) -> None:
    """A seed replays: the same frames are lost again."""
    runs = []
    for _ in range(2):
        await desk.qmp("aioemu-link-set", link="net0", loss=0.5, seed=(1 << 64) - 1)
        for _ in range(64):
            desk.a.send(FRAME)
        runs.append((await desk.direction(0))["delivered"])
    assert runs[1] == 2 * runs[0]


async def test_described_in_the_schema(desk: Desk) -> None:
    """query-qmp-schema knows the commands and their arguments."""
    entities = {entity["name"]: entity for entity in await desk.qmp("query-qmp-schema")}
    arguments = entities[entities["aioemu-link-set"]["arg-type"]]["members"]
    assert {"link", "direction", "delay-ms", "loss", "seed"} <= {member["name"] for member in arguments}
