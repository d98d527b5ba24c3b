"""What holds for every port: joining, passing frames on, waiting, parting, and counting what is lost."""

from __future__ import annotations

import select
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.errors import EmuError, HostError
from aioemu.netdev.port import DROPS, FRAME_BYTES, TAKES, Box, Counters

ETHERNET = bytes(12) + b"\x88\xb5"  # a type for experiments
HEADER = struct.Struct("<BBHHHHH")
Make = Callable[..., Box]


@pytest.fixture
def make() -> Iterator[Make]:
    """Boxes that are closed in the end."""
    made: list[Box] = []

    def box(*args: int, takes: frozenset[str] = frozenset(), waits: bool = False) -> Box:
        made.append(Box(*args, takes=takes, waits=waits))
        return made[-1]

    yield box
    for each in made:
        each.close()


def readable(box: Box) -> bool:
    return bool(select.select([box.fd], [], [], 0)[0])


def test_frames_arrive_in_order_and_are_counted_on_both_ends(make: Make) -> None:
    """What one end sends the other is given, byte for byte; its eventfd says so while frames wait."""
    a, b = make(), make()
    a.join(b)
    frames = [ETHERNET + bytes([n]) * n for n in range(1, 50)]

    assert all(a.send(frame) for frame in frames)
    assert readable(b)

    assert [b.take() for _ in frames] == frames
    assert b.take() is None
    assert not readable(b)
    assert a.stats.sent == b.stats.received == Counters(49, sum(map(len, frames)))


def test_without_a_peer_frames_are_lost_for_that_reason(make: Make) -> None:
    """Nobody there is no reason to wait."""
    a = make()

    assert a.send(ETHERNET)

    assert a.stats.sent == Counters(dropped={"no-peer": 1})


def test_either_end_down_loses_frames_and_takes_the_carrier(make: Make) -> None:
    """Frames pass while both ends are up; each end sees the other's state."""
    a, b = make(), make()
    assert (a.carrier, b.carrier) == (False, False)
    a.join(b)
    assert (a.carrier, b.carrier) == (True, True)

    a.set_up(False)

    assert (a.carrier, b.carrier, a.is_up) == (True, False, False)
    assert a.send(ETHERNET)
    assert b.send(ETHERNET)
    assert a.stats.sent.dropped == b.stats.sent.dropped == {"link-down": 1}
    a.set_up(True)
    assert b.send(ETHERNET)
    assert a.take() == ETHERNET


def test_a_full_box_drops_or_makes_the_sender_wait(make: Make) -> None:
    """A box that does not wait loses what is too much and counts it; one that does refuses it, uncounted."""
    a, b, waiting = make(), make(4), make(4, waits=True)
    a.join(b)
    assert all(a.send(ETHERNET) for _ in range(6))
    assert b.stats.received == Counters(4, 4 * len(ETHERNET), {"queue-full": 2})
    a.part()
    a.join(waiting)

    assert [a.send(ETHERNET) for _ in range(6)] == [True] * 4 + [False] * 2
    assert waiting.stats.received.dropped == {}
    while waiting.take():
        pass
    assert a.send(ETHERNET)


def test_a_wire_has_two_ends(make: Make) -> None:
    """A third port on a wire, or a port on itself, is refused, and changes nothing."""
    a, b, c = make(), make(), make()
    a.join(b)
    for one, other in ((a, c), (c, b), (c, c)):
        with pytest.raises(EmuError):
            one.join(other)
    assert a.send(ETHERNET)
    assert b.take() == ETHERNET
    b.close()
    assert not a.carrier
    a.join(c)


@pytest.mark.parametrize(
    ("header", "size", "why"),
    [
        (HEADER.pack(1, 0, 0, 0, 60, 3, 0), 64, "bad-header"),  # the sum would be outside
        (HEADER.pack(1, 0, 0, 0, 0xFFFF, 0xFFFF, 0), 64, "bad-header"),
        (HEADER.pack(1, 1, 54, 0, 34, 16, 0), 64, "bad-header"),  # segments of no bytes
        (HEADER.pack(1, 0x7F, 54, 10, 34, 16, 0), 64, "bad-header"),  # no such kind
        (HEADER.pack(1, 0x84, 54, 10, 34, 16, 0), 64, "no-offload"),
        (HEADER.pack(1, 1, 65, 10, 34, 16, 0), 64, "bad-header"),  # headers longer than the frame
        (bytes(12), 0, "too-short"),
        (bytes(12), 13, "too-short"),
        (bytes(12), FRAME_BYTES + 1, "too-long"),
        (bytes(12), 1 << 20, "too-long"),
    ],
)
def test_what_cannot_be_a_frame_is_lost_before_the_receiver_sees_it(
    make: Make, header: bytes, size: int, why: str
) -> None:
    """A receiver can rely on sizes and header."""
    a, b = make(), make()
    a.join(b)

    assert a.send(bytes(size), header)

    assert b.take() is None
    assert a.stats.sent.dropped == {why: 1}


@given(header=st.binary(min_size=12, max_size=12), size=st.integers(0, 200))
def test_any_header_is_either_passed_on_whole_or_counted(header: bytes, size: int) -> None:
    """To a receiver that takes everything, a header arrives as it is or not at all."""
    a, b = Box(), Box(takes=frozenset(TAKES))
    a.join(b)
    frame = bytes(range(200))[:size]

    assert a.send(frame, header)

    found = b.take_with_header()
    assert found == (header, frame) if found else a.stats.sent.lost == 1
    a.close()
    b.close()


def test_the_largest_frame_passes(make: Make) -> None:
    """64 KiB of IP with VLAN tags."""
    a, b = make(), make()
    a.join(b)

    assert a.send(bytes(FRAME_BYTES))

    assert b.take() == bytes(FRAME_BYTES)


def test_parting_while_another_thread_sends_leaves_nothing_on_its_way(make: Make) -> None:
    """After parting, nothing more arrives, and every frame is either in the box or counted."""
    a = make()
    stop = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        while not stop.is_set():
            assert a.send(ETHERNET)
            sent += 1

    sender = threading.Thread(target=flood)
    sender.start()
    arrived = 0
    for _ in range(200):
        b = make(16)
        a.join(b)
        a.part()
        received = b.stats.received
        arrived += received.frames + received.lost
        assert b.waiting == received.frames
        b.close()
    stop.set()
    sender.join()

    stats = a.stats.sent
    assert stats.frames == arrived
    assert stats.frames + stats.dropped.get("no-peer", 0) == sent


def test_a_box_has_bounds() -> None:
    """No frames, or more than any queue needs, are refused."""
    for frames in (0, 1 << 30):
        with pytest.raises(HostError):
            Box(frames)


def test_every_reason_has_a_name() -> None:
    """Counters never say just a number."""
    assert all(DROPS)
    assert len(set(DROPS)) == len(DROPS)
