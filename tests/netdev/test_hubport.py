"""hubport: back ends and cards that hear each other by the number of a hub."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from aioemu.errors import ConfigError
from aioemu.netdev.port import Box
from aioemu.netdev.registry import NetContext
from tests.netdev.waiting import frame_from

FRAME = bytes(12) + b"\x88\xb5" + b"to all"
Open = Callable[..., Any]
Boxes = Callable[..., Box]


async def test_all_ports_of_a_hub_hear_each_other(open_back_end: Open, boxes: Boxes, context: NetContext) -> None:
    """Two cards and a back end on hub 7; hub 8 hears nothing. The hub is there as long as one of its ports."""
    cards = []
    for name, number in (("a", 7), ("b", 7), ("other", 8)):
        cards.append(boxes())
        cards[-1].join((await open_back_end("hubport", name, hubid=number)).port)
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    await open_back_end("socket", "wire", fd=str(ours.detach()))
    plugged = await open_back_end("hubport", "c", hubid="7", netdev="wire")
    assert plugged.summary == "hubid=7,netdev=wire"

    cards[0].send(FRAME)
    assert await frame_from(cards[1]) == FRAME
    theirs.send(FRAME[::-1])
    assert await frame_from(cards[0]) == await frame_from(cards[1]) == FRAME[::-1]
    assert theirs.recv(100) == FRAME
    assert cards[2].waiting == 0
    theirs.close()
    assert sorted(context.hubs) == [7, 8]


async def test_ports_are_used_again_and_hubs_go_with_the_last(open_back_end: Open, context: NetContext) -> None:
    """A thousand ports come and go; nothing is left."""
    keep = await open_back_end("hubport", "keep", hubid=1)
    for _ in range(1000):
        port = await open_back_end("hubport", "p", hubid=1)
        port.close()
        port.close()
    keep.close()

    assert context.hubs == {}


async def test_what_cannot_be_plugged_in_is_named(open_back_end: Open, boxes: Boxes) -> None:
    """A back end that is not there, or that a card has."""
    with pytest.raises(ConfigError, match="netdev 'wire' not found"):
        await open_back_end("hubport", hubid=1, netdev="wire")
    wire = await open_back_end("hubport", "wire", hubid=2)
    boxes().join(wire.port)
    with pytest.raises(ConfigError, match="netdev 'wire' is in use"):
        await open_back_end("hubport", hubid=1, netdev="wire")
