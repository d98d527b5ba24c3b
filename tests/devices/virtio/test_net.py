"""virtio-net: frames between rings and a port, and drivers that get it wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioemu.devices.virtio import net
from aioemu.devices.virtio.device import EVENT_IDX, INDIRECT_DESC, RING_PACKED
from aioemu.devices.virtio.net import VirtioNet
from aioemu.errors import ConfigError
from aioemu.netdev.port import FRAME_BYTES, Box
from tests.devices.virtio.driver import BUFFERS_AT, NEEDS_RESET, STATUS
from tests.devices.virtio.net_rig import ALL, HEADER, MAC, OTHER, PLAIN, Rig, ethernet

RINGS = [0, EVENT_IDX | INDIRECT_DESC, RING_PACKED, RING_PACKED | EVENT_IDX]


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*args: Any, **keywords: Any) -> Rig:
        made.append(Rig(*args, **keywords))
        return made[-1]

    yield make
    for each in made:
        each.close()


every_ring = pytest.mark.parametrize("ring", RINGS)


@every_ring
def test_what_the_driver_sends_arrives_whole(rig: Callable[..., Rig], ring: int) -> None:
    """In one descriptor or a byte each, in order, and the buffers come back."""
    r = rig(ALL | ring)
    frames = [ethernet(60 + n) for n in range(8)]
    for n, frame in enumerate(frames):
        data = PLAIN + frame
        r.send(data, cuts=() if n % 2 else tuple(range(1, 7)), at=BUFFERS_AT + 0x20000 + 0x100 * n)

    assert [r.box.take_with_header() for _ in frames] == [(PLAIN, frame) for frame in frames]
    assert len(r.tx.used()) == len(frames)
    assert r.port.stats.sent.frames == len(frames)


@every_ring
def test_what_comes_is_put_into_buffers(rig: Callable[..., Rig], ring: int) -> None:
    """One buffer when it fits; the header says so."""
    r = rig(ALL | ring)
    places = r.give_buffers(1526, 1526)
    for n in range(2):
        assert r.box.send(ethernet(60 + n))

    assert [size for _, size in r.rx.used()] == [72, 73]
    for n, place in enumerate(places):
        assert r.board.memory.read(place, 72 + n) == HEADER.pack(0, 0, 0, 0, 0, 0, 1) + ethernet(60 + n)


@every_ring
def test_a_frame_larger_than_a_buffer_takes_several(rig: Callable[..., Rig], ring: int) -> None:
    """Mergeable buffers: each filled, the first one numbered, all of them shown at once."""
    r = rig(ALL | ring)
    sizes = (12, 1, 300, 1000, 4000)
    places = r.give_buffers(*sizes)

    assert r.box.send(ethernet(2000))

    used = r.rx.used()
    assert [size for _, size in used] == [12, 1, 300, 1000, 699]
    whole = b"".join(r.board.memory.read(place, size) for place, (_, size) in zip(places, used, strict=True))
    assert whole == HEADER.pack(0, 0, 0, 0, 0, 0, 5) + ethernet(2000)


def test_without_mergeable_buffers_a_frame_that_does_not_fit_is_lost(rig: Callable[..., Rig]) -> None:
    """Its buffer is used for the next."""
    r = rig(ALL & ~net.F_MRG_RXBUF)
    (place,) = r.give_buffers(200)

    assert r.box.send(ethernet(300))
    assert r.box.send(ethernet(188))

    assert r.port.stats.received.dropped == {"too-long": 1}
    assert r.board.memory.read(place, 200)[12:] == ethernet(188)


@every_ring
def test_without_buffers_the_sender_waits(rig: Callable[..., Rig], ring: int) -> None:
    """A refused frame is offered again when the driver gave a buffer, and nothing is lost."""
    r = rig(ALL | ring)
    assert not r.box.send(ethernet())
    r.give_buffers(100)  # too small to take a second one

    assert r.box.send(ethernet())
    assert not r.box.send(ethernet())

    assert r.port.stats.received.dropped == {}
    assert r.port.stats.received.frames == 1


@every_ring
def test_too_few_buffers_for_a_frame_make_its_sender_wait(rig: Callable[..., Rig], ring: int) -> None:
    """Those that there are stay untouched until more come; frames that came before are the driver's meanwhile."""
    r = rig(ALL | ring)
    r.give_buffers(100, 100, 100)
    assert r.box.send(ethernet(60))

    assert not r.box.send(ethernet(300))

    assert [size for _, size in r.rx.used()] == [72]
    (place,) = r.give_buffers(1000, at=BUFFERS_AT + 0x1000)
    assert r.box.send(ethernet(300))
    assert [size for _, size in r.rx.used()] == [100, 100, 112]
    assert r.board.memory.read(place, 112) == ethernet(300)[-112:]


@every_ring
def test_a_peer_without_room_leaves_frames_in_the_ring(ring: int) -> None:
    """Back-pressure: they come in order when there is room again."""
    r = Rig(ALL | ring, box=Box(4, waits=True, takes=frozenset(("csum",))))
    for n in range(12):
        at = BUFFERS_AT + 0x20000 + 0x100 * n
        r.board.memory.write(at, PLAIN + ethernet(60 + n))
        r.tx.add([(at, 72 + n, False)])
    r.kick(r.tx)
    assert len(r.tx.used()) == 4

    sizes = []
    while (frame := r.box.take()) is not None:
        sizes.append(len(frame))
        r.run()

    assert sizes == list(range(60, 72))
    assert len(r.tx.used()) == 8
    r.close()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", None),  # no descriptors with bytes: a chain of nothing
        (bytes(1), "too-short"),
        (bytes(11), "too-short"),
        (PLAIN, "too-short"),
        (PLAIN + bytes(13), "too-short"),
        (PLAIN + bytes(FRAME_BYTES + 1), "too-long"),
        (PLAIN + bytes(200_000), "too-long"),
        (HEADER.pack(1, 0, 0, 0, 59, 3, 0) + ethernet(), "bad-header"),
        (HEADER.pack(1, 1, 54, 0, 34, 16, 0) + ethernet(), "bad-header"),
        (HEADER.pack(1, 4, 54, 100, 34, 16, 0) + ethernet(), "bad-header"),  # TSO6 was not negotiated
        (HEADER.pack(0, 1, 54, 100, 34, 16, 0) + ethernet(), "bad-header"),  # segments without a checksum
        (HEADER.pack(1, 0x81, 54, 100, 34, 16, 0) + ethernet(), "bad-header"),  # nor was ECN
        (HEADER.pack(1, 2, 54, 100, 34, 16, 0) + ethernet(), "bad-header"),  # no such kind
    ],
)
def test_frames_that_cannot_be_are_counted_and_given_back(
    rig: Callable[..., Rig], data: bytes, why: str | None
) -> None:
    """The card goes on: the next frame passes."""
    r = rig(ALL)
    r.send(data or b"x", at=BUFFERS_AT)
    r.send(PLAIN + ethernet(), at=0xF0000)

    assert r.box.take() == ethernet()
    assert r.port.stats.sent.dropped == {why or "too-short": 1}
    assert len(r.tx.used()) == 2
    assert not r.board.read(STATUS) & NEEDS_RESET


def test_a_chain_with_nothing_to_read_is_no_frame(rig: Callable[..., Rig]) -> None:
    """Writable room in the transmit queue, buffers to read in the receive queue."""
    r = rig(ALL)
    r.tx.add([(BUFFERS_AT, 100, True)])
    r.kick(r.tx)
    r.rx.add([(BUFFERS_AT, 100, False)])
    r.kick(r.rx)

    assert r.box.send(ethernet())

    assert r.port.stats.sent.dropped == {"too-short": 1}
    assert r.port.stats.received.dropped == {"too-long": 1}


def test_a_broken_ring_stops_the_card_until_it_is_reset(rig: Callable[..., Rig]) -> None:
    """An address that is no memory: NEEDS_RESET, the peer does not wait, and a reset brings the card back."""
    r = rig(ALL)
    r.tx.add([(1 << 40, 100, False)])
    r.kick(r.tx)

    assert r.board.read(STATUS) & NEEDS_RESET
    assert r.box.send(ethernet())
    assert r.port.stats.received.dropped == {"no-driver": 1}
    r.board.write(STATUS, 0)
    assert r.board.read(STATUS) == 0


def test_the_driver_sees_its_link(rig: Callable[..., Rig]) -> None:
    """Status follows the peer and the cable, with an interrupt; announcing is asked for and acknowledged."""
    r = rig(ALL)
    assert r.card.config[6] == 1
    r.box.set_up(False)
    assert r.card.config[6] == 0
    r.box.set_up(True)
    assert r.card.announce()
    assert r.card.config[6] == 3
    assert r.command(b"\3\0") == 0
    assert r.card.config[6] == 1
    r.box.part()
    assert r.card.config[6] == 0


def test_a_card_that_is_held_makes_both_sides_wait(rig: Callable[..., Rig]) -> None:
    """Nothing moves, nothing is lost; what waited goes on."""
    r = rig(ALL)
    r.give_buffers(1000)
    r.card.hold(True)
    assert not r.box.send(ethernet())
    r.send(PLAIN + ethernet())
    assert r.box.take() is None

    r.card.hold(False)
    r.run()

    assert r.box.take() == ethernet()
    assert r.box.send(ethernet())


@every_ring
def test_a_saved_card_goes_on_where_it_was(rig: Callable[..., Rig], ring: int) -> None:
    """Rings, filter and offloads are those of the saved one."""
    r = rig(ALL | ring)
    assert r.command(b"\0\0", b"\0") == 0
    assert r.command(b"\5\0", bytes(8)) == 0
    r.send(PLAIN + ethernet(70))
    assert r.box.take() == ethernet(70)
    state = r.card.save()

    r.card.load(state)
    r.run()

    assert (r.card.modes, r.card.offloads) == (0, 0)
    r.send(PLAIN + ethernet(80))
    assert r.box.take() == ethernet(80)
    r.give_buffers(1000)
    assert r.box.send(ethernet(to=OTHER))
    assert r.port.stats.received.dropped == {"filtered": 1}


def test_shapes_that_cannot_be_are_refused() -> None:
    """A card has queues, and not more than a device may have."""
    for pairs in (0, 257):
        with pytest.raises(ConfigError, match="queue pairs"):
            VirtioNet(MAC, features=ALL, pairs=pairs)


@settings(max_examples=300)
@given(st.integers(0, (1 << 64) - 1), st.sampled_from(RINGS))
def test_no_ring_hurts(seed: int, ring: int) -> None:
    """Any descriptors in both queues, frames of any size: the card stops or goes on, and a reset helps."""
    chance = Random(seed)
    r = Rig(ALL | ring)
    try:
        for _ in range(8):
            for queue in (r.rx, r.tx):
                for slot in range(queue.size):
                    address = chance.choice((BUFFERS_AT, chance.randrange(1 << 20), (1 << 20) - 5, 1 << 63, queue.at))
                    size = chance.choice((0, 1, 12, 60, 1526, chance.randrange(1 << 17), 0xFFFFFFFF))
                    flags = chance.choice((0, 0, 1, 2, 2, 3, 4, 0x80, 0x8000, chance.randrange(1 << 16)))
                    queue.put(queue.at + 16 * slot, "QIHH", address, size, flags, chance.randrange(70))
                places = [chance.randrange(70) for _ in range(queue.size)]
                queue.put(queue.avail_at, f"HH{queue.size}H", 0, chance.choice((1, 5, 64, 65, 1000)), *places)
                r.kick(queue)
            for _ in range(4):
                r.box.send(ethernet(chance.choice((14, 60, 1500, 9000, FRAME_BYTES))))
            while r.box.take():
                pass
        r.board.write(STATUS, 0)
        assert r.box.send(ethernet())
        assert r.board.read(STATUS) == 0
    finally:
        r.close()
