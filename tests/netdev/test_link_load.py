"""Links under load: receivers that do not take, changes while frames pass, the end with frames on their way."""

from __future__ import annotations

import asyncio
import random
import struct
import threading
from pathlib import Path

import pytest

from aioemu._core import lib
from aioemu.errors import EmuError
from aioemu.netdev.capture import Capture
from aioemu.netdev.link import Clockwork, Link
from aioemu.netdev.port import Box
from tests.netdev.link_rig import FRAME, LIMIT_S, Rig, numbered, rig_of

# ---- receivers that do not take --------------------------------------------------------------------------------------


async def test_back_pressure_goes_through(clockwork: Clockwork) -> None:
    """A direct link queues nothing: its sender waits for the receiver."""
    with rig_of(clockwork, 4, waits=True) as rig:
        assert [rig.a.send(frame) for frame in numbered(6)] == [True] * 4 + [False] * 2
        assert rig.link.a_to_b.stats.waiting == 0
        assert await rig.arrive(4) == numbered(4)
        assert rig.a.send(FRAME)


async def test_impaired_link_waits_for_its_receiver(clockwork: Clockwork) -> None:
    """What a delayed link's receiver does not take waits, in order, until it does."""
    with rig_of(clockwork, 4, waits=True) as rig:
        await rig.link.impair(delay_ms=1)
        for frame in numbered(100):
            assert rig.a.send(frame)
        assert await rig.arrive(100) == numbered(100)


async def test_receiver_that_never_reads_is_given_up(clockwork: Clockwork) -> None:
    """A sender does not wait for ever: soon its frames are taken, kept up to a bound, and then lost by name."""
    with rig_of(clockwork, 4, waits=True) as rig:
        async with asyncio.timeout(LIMIT_S):
            while not rig.link.a_to_b.stats.dropped:
                rig.a.send(FRAME)
                await asyncio.sleep(0)
        assert set(rig.link.a_to_b.stats.dropped) == {"backlog"}
        assert rig.link.a_to_b.stats.waiting == 256
        await rig.arrive(260)
        assert rig.a.send(FRAME)
        assert await rig.arrive(1) == [FRAME]


async def test_a_receiver_is_given_up_in_another_context_as_well(clockwork: Clockwork) -> None:
    """A link that moves while its sender waits goes on looking after it."""
    other = Clockwork()
    with rig_of(clockwork, 4, waits=True) as rig:
        for frame in numbered(5):
            rig.a.send(frame)
        rig.link.a.drive(other.io)
        async with asyncio.timeout(LIMIT_S):
            while not rig.a.send(FRAME):
                await asyncio.sleep(0)
    other.close()


# ---- life ------------------------------------------------------------------------------------------------------------


async def test_closing_with_frames_on_their_way(clockwork: Clockwork) -> None:
    """A link can be closed at any time, twice, and its counters stay readable."""
    rig = Rig(clockwork)
    await rig.link.impair(delay_ms=2, jitter_ms=2)
    for frame in numbered(1000):
        rig.a.send(frame)
    rig.close()
    rig.close()
    assert rig.link.a_to_b.stats.frames == 1000


async def test_moving_to_another_context(rig: Rig) -> None:
    """Frames on their way go on when the link's work moves to another thread."""
    other = Clockwork()
    await rig.link.impair(delay_ms=20)
    for frame in numbered(50):
        rig.a.send(frame)
    rig.link.a.drive(other.io)
    assert await rig.arrive(50) == numbered(50)
    rig.close()
    other.close()


async def test_put_in_between(clockwork: Clockwork) -> None:
    """A link is put between two ports that are in use: nothing is lost, and neither loses its carrier."""
    a, b, frames = Box(), Box(1 << 16), numbered(20_000)
    a.join(b)
    link = Link("in", clockwork)

    def send() -> None:
        for frame in frames:
            a.send(frame)

    sending = asyncio.get_running_loop().run_in_executor(None, send)
    link.insert(a)
    assert (a.carrier, b.carrier, a.peer, b.peer) == (True, True, link.a, link.b)
    passed = link.a_to_b.stats.frames
    await sending
    assert [b.take() for _ in frames] == frames
    assert a.stats.sent.dropped == {}
    assert link.a_to_b.stats.frames >= passed
    await link.a_to_b.impair(loss=1.0)
    a.send(FRAME)
    assert b.take() is None
    with pytest.raises(EmuError, match="in use"):
        link.insert(a)
    link.close()
    a.close()
    b.close()


async def test_changes_while_frames_pass(clockwork: Clockwork) -> None:
    """Nothing is lost or doubled, however often delays are changed while frames come from another thread."""
    with rig_of(clockwork, 1 << 15, waits=False) as rig:
        frames = numbered(20_000)

        def send() -> None:
            for frame in frames:
                rig.a.send(frame)

        sending = asyncio.get_running_loop().run_in_executor(None, send)
        values = random.Random(1)
        while not sending.done():
            await rig.link.impair(delay_ms=values.choice([0, 0, 0.01, 1.0]), jitter_ms=values.choice([0, 0.5]))
            await asyncio.sleep(0)
        await sending
        arrived = await rig.arrive(len(frames))
        assert sorted(arrived) == frames
        stats = rig.link.a_to_b.stats
        assert (stats.frames, stats.delivered, stats.lost) == (20_000, 20_000, 0)
        assert lib.core_link_is_up(rig.link.ptr)


async def test_large_segments_are_cut_before_a_lossy_link(clockwork: Clockwork) -> None:
    """What is lost on an impaired link is a packet, as on a wire, not the 64 KiB that a guest sends at once."""
    payload = bytes(range(256)) * 40
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    )
    tcp = struct.pack(">HHIIBBHHH", 1000, 2000, 1, 0, 0x50, 0x10, 1000, 0, 0)
    frame = bytes([2] * 12) + b"\x08\x00" + ip + tcp + payload
    header = struct.pack("<BBHHHHH", 1, 1, 54, 1024, 34, 16, 0)
    link, a, b = Link("x", clockwork), Box(), Box(takes=frozenset(("csum", "tso4")))
    link.a.join(a)
    link.b.join(b)

    a.send(frame, header)
    assert b.take() == frame
    await link.a_to_b.impair(loss_every=4)
    a.send(frame, header)
    found = list(iter(b.take, None))
    assert link.a_to_b.stats.dropped == {"every": 2}
    assert [each[54:] for each in found] == [
        payload[n : n + 1024] for n in range(0, 10240, 1024) if n // 1024 not in (3, 7)
    ]
    link.close()
    a.close()
    b.close()


async def test_no_damage_hides_behind_an_offload(clockwork: Clockwork) -> None:
    """A frame whose checksum is left to its receiver arrives as it was sent, at the moment of a change as well."""
    payload = bytes(1000)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 1028, 1, 0, 64, 17, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    frame = bytes([2] * 12) + b"\x08\x00" + ip + struct.pack(">HHHH", 1000, 2000, 1008, 0) + payload
    header = struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 6, 0)
    link, a, b = Link("x", clockwork), Box(), Box(1 << 16, takes=frozenset(("csum",)))
    link.a.join(a)
    link.b.join(b)
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            a.send(frame, header)

    sender = threading.Thread(target=send)
    sender.start()
    found = []
    for _ in range(10):
        before = link.a_to_b.stats.corrupted
        await link.a_to_b.impair(corrupt=1.0)
        while link.a_to_b.stats.corrupted == before:
            await asyncio.sleep(0)
        await link.a_to_b.impair(corrupt=0.0)
        found += [b.take_with_header() for _ in range(b.waiting)]
    stop.set()
    await asyncio.to_thread(sender.join)
    assert all(each[1] == frame for each in found if each and each[0][0] & 1)
    link.close()
    a.close()
    b.close()


async def test_everything_at_once(clockwork: Clockwork, tmp_path: Path) -> None:
    """Frames from both ends, changes, cuts and captures at the same time: whatever is taken is accounted for."""
    with rig_of(clockwork, 1 << 15, waits=False) as rig:
        stop = threading.Event()

        def send(box: Box) -> None:
            while not stop.is_set():
                box.send(FRAME)

        senders = [threading.Thread(target=send, args=(box,)) for box in (rig.a, rig.b)]
        for sender in senders:
            sender.start()
        values = random.Random(2)
        for turn in range(60):
            capture = Capture(tmp_path / "x.pcapng" if turn % 2 else None, buffer_bytes=1 << 17)
            capture.add(values.choice((rig.link, rig.link.a, rig.link.b)))
            await rig.link.impair(delay_ms=values.choice((0, 0.1)), loss=values.choice((0, 0.1)), jitter_ms=0.05)
            rig.link.set_up(values.random() < 0.8)
            await asyncio.sleep(0)
            await capture.close()
        stop.set()
        await asyncio.gather(*(asyncio.to_thread(sender.join) for sender in senders))
        rig.link.set_up(False)  # what is on its way is lost, by count
        for direction in rig.link.directions:
            stats = direction.stats
            assert stats.waiting == 0
            assert stats.frames == stats.delivered + stats.lost
