"""Links, switches, ports and wires that are used after they were closed: an error or nothing, never a crash."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioemu import Lab
from aioemu.errors import EmuError
from aioemu.netdev.filter_dump import FilterDump
from aioemu.netdev.link import Clockwork, Link
from aioemu.netdev.peer import Wire
from aioemu.netdev.port import Box
from aioemu.netdev.switch import Switch
from tests.netdev.link_rig import FRAME

CLOSED = "was closed"


class Quiet:
    """A peer that says nothing."""

    def frame_received(self, frame: bytes) -> None:
        """Nobody sends it any."""


async def test_a_link_that_was_closed(clockwork: Clockwork) -> None:
    """What would change it is an error; it is down, and passes nothing."""
    link, box = Link("x", clockwork), Box()
    link.close()
    changes: list[Callable[[], Any]] = [
        lambda: link.set_up(False),
        lambda: link.insert(box),
        lambda: link.a.join(box),
        lambda: box.join(link.b),
        lambda: link.a.set_up(True),
        lambda: link.a.drive(clockwork.io),
    ]
    for change in changes:
        with pytest.raises(EmuError, match=CLOSED):
            change()
    for changing in (link.impair(loss=0.5), link.clear(), link.down(), link.up()):
        with pytest.raises(EmuError, match=CLOSED):
            await changing
    assert [link.is_up, link.a_to_b.is_direct, link.a.carrier, link.a.is_up, link.a.takes] == [False] * 4 + [
        frozenset()
    ]
    box.close()


async def test_a_flap_outlives_its_link(clockwork: Clockwork) -> None:
    """Its next change is an error, and being cancelled is none."""
    link = Link("x", clockwork)
    flaps = [asyncio.ensure_future(link.flap(down_ms=each, up_ms=1, times=2)) for each in (1, 60_000)]
    await asyncio.sleep(0)
    link.close()
    flaps[1].cancel()
    with pytest.raises(EmuError, match=CLOSED):
        await flaps[0]
    with pytest.raises(asyncio.CancelledError):
        await flaps[1]


async def test_ports_and_switches_that_were_closed(clockwork: Clockwork, tmp_path: Path) -> None:
    """Boxes are empty and send nothing; a switch has no ports to give."""
    box, wire, switch = Box(), Wire(Quiet()), Switch("s", clockwork)
    switch.free_port()
    for each in (box, wire, switch):
        each.close()
    assert [box.send(FRAME), box.take(), box.waiting, wire.send(FRAME), wire.lost] == [False, None, 0, False, 1]
    for use in (
        switch.free_port,
        switch.add_port,
        lambda: switch.stations,
        lambda: FilterDump(box, str(tmp_path / "x")),
    ):
        with pytest.raises(EmuError, match=CLOSED):
            use()


async def test_what_a_lab_leaves_behind() -> None:
    """Cards, back ends and links of a lab that has ended; and it makes no new ones."""
    async with Lab() as lab:
        vm = lab.machine("a", machine="microvm", accel="qtest", memory="2M", devices=["virtio-net-device"])
        link = lab.link(vm.nic[0], lab.switch())
        user = await lab.netdev("user")
        await lab.start()
        nic = vm.nic[0]
    uses: list[Callable[[], Any]] = [
        lambda: nic.set_link(False),
        lambda: link.set_up(False),
        lambda: user.hold(True),  # type: ignore[attr-defined]
        lambda: user.add_hostfwd("tcp::0-:22"),  # type: ignore[attr-defined]
        lambda: user.remove_hostfwd("tcp::1"),  # type: ignore[attr-defined]
        lambda: user.connections,  # type: ignore[attr-defined]
        lambda: lab.link(Quiet(), Quiet()),
        lab.switch,
        lab.hub,
    ]
    for use in uses:
        with pytest.raises(EmuError):
            use()
    with contextlib.suppress(EmuError):
        _ = nic.link_up, nic.stats, nic.mac, nic.queues
    assert user.sockets == 0  # type: ignore[attr-defined]
