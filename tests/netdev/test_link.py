"""Links between two ports: transparent by default, and delayed, lost, damaged, cut on demand, each way by itself."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from aioemu.netdev.link import Clockwork
from aioemu.netdev.port import Box
from tests.netdev.link_rig import FRAME, LIMIT_S, Rig, numbered

SIZES = (14, 60, 64, 1514, 1518, 9018, 65557)


def carriers(rig: Rig) -> tuple[bool, bool]:
    return rig.a.carrier, rig.b.carrier


def direct(rig: Rig) -> tuple[bool, bool]:
    return rig.link.a_to_b.is_direct, rig.link.b_to_a.is_direct


# ---- transparent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("impaired", [False, True])
@pytest.mark.parametrize("size", SIZES)
async def test_frames_pass_unchanged(rig: Rig, size: int, impaired: bool) -> None:
    """Every frame passes as it is in both directions, from the bare header to 64 KiB, delayed or not."""
    if impaired:
        await rig.link.impair(delay_ms=1)
    frame = random.Random(size).randbytes(size)
    assert rig.a.send(frame)
    assert rig.b.send(frame[::-1])
    assert await rig.arrive(1) == [frame]
    assert await rig.arrive(1, rig.a) == [frame[::-1]]


@pytest.mark.parametrize(
    "destination", ["0180c2000000", "0180c2000002", "0180c200000e", "ffffffffffff", "01000ccccccc"]
)
async def test_reserved_addresses_pass(rig: Rig, destination: str) -> None:
    """STP, LACP, LLDP, broadcast and CDP pass: a link is no bridge."""
    frame = bytes.fromhex(destination) + bytes(48)
    rig.a.send(frame)
    assert rig.b.take() == frame


async def test_offload_header_passes(rig: Rig) -> None:
    """The header that says how a frame is to be segmented arrives with it, delayed or not."""
    rig.link.b.part()
    whole = Box(takes=frozenset(("csum", "tso4")))
    rig.link.b.join(whole)
    header = bytes([1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0])
    frame = bytes(60_000)

    rig.a.send(frame, header)
    assert whole.take_with_header() == (header, frame)
    await rig.link.impair(delay_ms=1)
    rig.a.send(frame, header)
    while (found := whole.take_with_header()) is None:
        await asyncio.sleep(0)
    assert found == (header, frame)
    whole.close()


async def test_plain_link_is_direct(rig: Rig) -> None:
    """Only a link that is impaired looks at frames, and it is direct again afterwards."""
    assert direct(rig) == (True, True)
    await rig.link.a_to_b.impair(loss=0.5)
    assert direct(rig) == (False, True)
    await rig.link.a_to_b.clear()
    assert direct(rig) == (True, True)


# ---- impaired --------------------------------------------------------------------------------------------------------


async def test_loss_in_force_at_once(rig: Rig) -> None:
    """The first frame after the await is lost, and the other direction is not touched."""
    await rig.link.a_to_b.impair(loss=1.0)
    rig.a.send(FRAME)
    rig.b.send(FRAME)
    assert rig.b.take() is None
    assert rig.a.take() == FRAME
    assert rig.link.a_to_b.stats.dropped == {"loss": 1}
    await rig.link.a_to_b.impair(loss=0)
    rig.a.send(FRAME)
    assert rig.b.take() == FRAME


async def test_losses_are_those_of_the_seed(rig: Rig) -> None:
    """The frames that a seed loses are known before, and a replay loses them again."""
    await rig.link.a_to_b.impair(loss=0.1, seed=99)
    expected = [i for i, fate in enumerate(rig.link.a_to_b.impairment.fates(2000)) if fate != "loss"]
    for _ in range(2):
        await rig.link.a_to_b.impair(seed=99)
        for frame in numbered(2000):
            rig.a.send(frame)
        arrived = [int.from_bytes(frame[14:18], "big") for frame in await rig.arrive(len(expected))]
        assert arrived == expected


async def test_delay_is_kept(rig: Rig) -> None:
    """No frame arrives before its time, and all do in order."""
    await rig.link.impair(delay_ms=20)
    start = time.monotonic()
    for frame in numbered(100):
        rig.a.send(frame)
    assert rig.link.a_to_b.stats.waiting == 100
    assert await rig.arrive(100) == numbered(100)
    assert time.monotonic() - start >= 0.020
    assert rig.link.a_to_b.stats.waiting == 0


async def test_shorter_delay_is_in_force_at_once(rig: Rig) -> None:
    """A frame after the change does not wait for those that were sent before it."""
    await rig.link.impair(delay_ms=300_000)
    rig.a.send(b"late" + FRAME)
    await rig.link.impair(delay_ms=1)
    rig.a.send(b"soon" + FRAME)
    assert (await rig.arrive(1))[0].startswith(b"soon")
    await rig.link.clear()
    rig.a.send(FRAME)
    assert rig.b.take() == FRAME


async def test_duplicates(rig: Rig) -> None:
    """Every frame comes twice."""
    await rig.link.impair(duplicate=1.0)
    for frame in numbered(10):
        rig.a.send(frame)
    assert await rig.arrive(20) == [frame for frame in numbered(10) for _ in range(2)]
    assert rig.link.a_to_b.stats.duplicated == 10


async def test_corruption_is_one_bit(rig: Rig) -> None:
    """A damaged frame differs in one bit, and nobody vouches for its checksum any more."""
    await rig.link.impair(corrupt=1.0)
    rig.a.send(FRAME, bytes([2]) + bytes(11))
    while (found := rig.b.take_with_header()) is None:
        await asyncio.sleep(0)
    header, frame = found
    assert sum((x ^ y).bit_count() for x, y in zip(frame, FRAME, strict=True)) == 1
    assert header == bytes(12)


async def test_rate_limits(rig: Rig) -> None:
    """A second of frames at a rate takes a second."""
    await rig.link.impair(rate_mbit=8)
    start = time.monotonic()
    for frame in numbered(200, 500):
        rig.a.send(frame)
    await rig.arrive(200)
    assert 0.1 <= time.monotonic() - start < 0.5


async def test_one_value_changes_alone(rig: Rig) -> None:
    """Changing one value keeps the others."""
    await rig.link.impair(delay_ms=5, loss=0.25)
    await rig.link.a_to_b.impair(loss=0.5)
    assert (rig.link.a_to_b.impairment.delay_ms, rig.link.a_to_b.impairment.loss) == (5, 0.5)
    assert (rig.link.b_to_a.impairment.delay_ms, rig.link.b_to_a.impairment.loss) == (5, 0.25)


# ---- carrier ---------------------------------------------------------------------------------------------------------


async def test_carrier_is_the_other_ends_peer(rig: Rig) -> None:
    """An end has carrier while the far peer is joined and up and the link is up."""
    assert carriers(rig) == (True, True)
    rig.b.set_up(False)
    assert carriers(rig) == (False, True)
    rig.b.set_up(True)
    assert carriers(rig) == (True, True)
    rig.link.b.part()
    assert carriers(rig) == (False, False)
    rig.link.b.join(rig.b)
    assert carriers(rig) == (True, True)


async def test_peer_that_is_switched_off(rig: Rig) -> None:
    """What is switched off is joined and yet no carrier."""
    rig.link.set_alive(rig.link.b, False)
    assert carriers(rig) == (False, True)
    rig.link.set_alive(rig.link.b, True)
    assert carriers(rig) == (True, True)


async def test_who_goes_takes_what_is_on_its_way_along(rig: Rig) -> None:
    """A frame that is due when its sender was switched off, or its receiver unplugged, is cut: not delivered."""
    await rig.link.impair(delay_ms=20)
    rig.a.send(FRAME)
    rig.b.send(FRAME)
    rig.link.set_alive(rig.link.a, False)
    rig.a.part()
    async with asyncio.timeout(LIMIT_S):
        while rig.link.a_to_b.stats.waiting or rig.link.b_to_a.stats.waiting:
            await asyncio.sleep(0)
    for stats in (rig.link.a_to_b.stats, rig.link.b_to_a.stats):
        assert (stats.frames, stats.delivered, stats.dropped) == (1, 0, {"cut": 1})
    assert (rig.a.take(), rig.b.take()) == (None, None)


async def test_down_and_up(rig: Rig) -> None:
    """A link that is down has no carrier, passes nothing and loses what was on its way."""
    await rig.link.impair(delay_ms=50)
    rig.a.send(FRAME)
    await rig.link.down()
    assert carriers(rig) == (False, False)
    assert rig.link.a_to_b.stats.dropped == {"cut": 1}
    rig.a.send(FRAME)
    assert rig.a.stats.sent.dropped == {"link-down": 1}
    await rig.link.up()
    await rig.link.clear()
    rig.a.send(FRAME)
    assert await rig.arrive(1) == [FRAME]


async def test_flapping_ends_up(rig: Rig) -> None:
    """A flap loses the carrier as often as asked for, and a cancelled one leaves the link up."""
    seen: list[bool] = []
    rig.link.tell = lambda event, **_: seen.append(event == "link-up")  # type: ignore[method-assign]
    await rig.link.flap(down_ms=1, up_ms=1, times=3)
    assert seen == [False, True] * 3
    task = asyncio.ensure_future(rig.link.flap(down_ms=100_000, up_ms=1, times=3))
    while rig.link.is_up:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert rig.link.is_up


async def test_two_links_in_a_row(clockwork: Clockwork) -> None:
    """Links join to links: frames, carrier and delay go through both."""
    first, second = Rig(clockwork), Rig(clockwork)
    first.link.b.part()
    second.link.a.part()
    first.link.b.join(second.link.a)
    assert carriers(first) == (True, False)  # b has no peer here any more
    await second.link.down()
    assert carriers(first) == (False, False)
    await second.link.up()
    assert carriers(second) == (False, True)
    await first.link.impair(delay_ms=1)
    first.a.send(FRAME)
    assert await second.arrive(1) == [FRAME]
    first.close()
    second.close()
