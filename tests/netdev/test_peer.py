"""Peers in Python: an object is the other end of a wire."""

from __future__ import annotations

import asyncio

from aioemu.netdev.link import Clockwork, Link
from aioemu.netdev.peer import BOX_FRAMES, PENDING, Wire
from aioemu.netdev.port import Box

LIMIT_S = 10.0
FRAME = bytes(range(60))


class Echo:
    """Sends back what comes, turned around."""

    def __init__(self) -> None:
        self.wire: Wire | None = None
        self.seen = 0

    def wired(self, wire: Wire) -> None:
        self.wire = wire

    def frame_received(self, frame: bytes) -> None:
        assert self.wire is not None
        self.seen += 1
        self.wire.send(frame[::-1])


class Keeper:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def frame_received(self, frame: bytes) -> None:
        self.frames.append(frame)


async def until(condition: object) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0)


async def test_peer_answers_over_a_link(clockwork: Clockwork) -> None:
    """A peer gets each frame, in order, and what it sends arrives at the other end."""
    link, echo, keeper = Link("x", clockwork), Echo(), Keeper()
    ends = [Wire(echo), Wire(keeper)]
    link.a.join(ends[0])
    link.b.join(ends[1])
    frames = [bytes([index]) * 60 for index in range(200)]
    ends[1].send_all(frames)
    await until(lambda: len(keeper.frames) == 200)
    assert keeper.frames == frames
    link.close()
    for end in ends:
        end.close()


async def test_impaired_link_between_peers(clockwork: Clockwork) -> None:
    """What a link does to frames, it does to those of peers."""
    link, keeper = Link("x", clockwork), Keeper()
    ends = [Wire(Echo()), Wire(keeper)]
    link.a.join(ends[0])
    link.b.join(ends[1])
    await link.impair(delay_ms=10)
    start = asyncio.get_running_loop().time()
    ends[1].send(FRAME)
    await until(lambda: keeper.frames)
    assert asyncio.get_running_loop().time() - start >= 0.020
    link.close()
    for end in ends:
        end.close()


async def test_busy_peer_loses_by_count(clockwork: Clockwork) -> None:
    """A program that does not return to the loop loses frames beyond a bound, and its sender is not held up."""
    keeper = Keeper()
    wire, other = Wire(keeper), Box()
    wire.join(other)
    assert all(other.send(FRAME) for _ in range(BOX_FRAMES + 100))
    await until(lambda: len(keeper.frames) == BOX_FRAMES)
    assert wire.stats.received.dropped == {"queue-full": 100}
    wire.close()
    other.close()


async def test_other_end_that_takes_nothing() -> None:
    """Frames wait for the other end up to a bound, in order, and then are lost by count."""
    wire, other = Wire(Keeper()), Box(4, waits=True)
    wire.join(other)
    results = [wire.send(index.to_bytes(2, "big") + FRAME) for index in range(4 + PENDING + 3)]
    assert results == [True] * (4 + PENDING) + [False] * 3
    assert wire.lost == 3
    found: list[bytes] = []

    def more() -> bool:
        while (frame := other.take()) is not None:
            found.append(frame)
        return len(found) == 4 + PENDING

    await until(more)
    assert [int.from_bytes(frame[:2], "big") for frame in found] == list(range(4 + PENDING))
    wire.close()
    other.close()


async def test_what_waits_keeps_its_header() -> None:
    """A frame that the other end took late is sent with the header that it was given."""
    header = (
        bytes((1, 0)) + (0).to_bytes(4, "little") + (14).to_bytes(2, "little") + (6).to_bytes(2, "little") + bytes(2)
    )
    wire, other = Wire(Keeper()), Box(1, waits=True, takes=frozenset(("csum",)))
    wire.join(other)
    assert [wire.send(FRAME, header) for _ in range(2)] == [True, True]
    found: list[tuple[bytes, bytes]] = []

    def more() -> bool:
        while (frame := other.take_with_header()) is not None:
            found.append(frame)
        return len(found) == 2

    await until(more)
    assert found == [(header, FRAME)] * 2
    wire.send(FRAME)
    wire.send(FRAME)
    wire.close()
    assert wire.lost == 1  # what waited is gone, by count
    other.close()


async def test_peer_that_fails(clockwork: Clockwork) -> None:
    """An exception of a peer goes to the loop's handler; the next frame is handed over."""

    class Failing(Keeper):
        def frame_received(self, frame: bytes) -> None:
            super().frame_received(frame)
            raise ValueError("no")

    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    failing = Failing()
    wire, other = Wire(failing), Box()
    wire.join(other)
    other.send(FRAME)
    other.send(FRAME)
    await until(lambda: len(failing.frames) == 2)
    assert told == ["Failing.frame_received failed"] * 2
    wire.close()
    other.close()


async def test_peer_that_closes_itself() -> None:
    """A peer may close its wire while it is being called."""

    class Once(Keeper):
        wire: Wire

        def frame_received(self, frame: bytes) -> None:
            super().frame_received(frame)
            self.wire.close()

    once = Once()
    once.wire = wire = Wire(once)
    other = Box()
    wire.join(other)
    other.send(FRAME)
    other.send(FRAME)
    await until(lambda: once.frames)
    await asyncio.sleep(0)
    assert len(once.frames) == 1
    other.close()
