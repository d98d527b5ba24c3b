"""Back ends that carry a frame a datagram: unix and UDP, peers that come late, never read or disappear."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioemu.netdev.port import FRAME_BYTES, Box
from tests.netdev.waiting import frame_from, settled

ETHERNET = bytes(12) + b"\x88\xb5"  # a type for experiments
Open = Callable[..., Any]
Boxes = Callable[..., Box]


@pytest.mark.parametrize("family", ["unix", "inet"])
async def test_datagrams_pass_both_ways(open_back_end: Open, boxes: Boxes, tmp_path: Path, family: str) -> None:
    """One frame a datagram; the second end may come later, what was sent before is lost."""

    def end(which: str) -> dict[str, str]:
        if family == "unix":
            return {"type": "unix", "path": str(tmp_path / which)}
        return {"type": "inet", "host": "127.0.0.1", "port": {"a": "24181", "b": "24182"}[which]}

    a, b = boxes(), boxes()
    a.join((await open_back_end("dgram", local=end("a"), remote=end("b"))).port)
    a.send(ETHERNET + b"too early")
    b.join((await open_back_end("dgram", local=end("b"), remote=end("a"))).port)
    frames = [ETHERNET + os.urandom(size) for size in (0, 1, 1486, 9000, 60000)]

    for frame in frames:
        a.send(frame)
        assert await frame_from(b) == frame
        b.send(frame)
        assert await frame_from(a) == frame


async def test_datagrams_that_are_no_frames(open_back_end: Open, boxes: Boxes, tmp_path: Path) -> None:
    """Empty, short and too long ones are dropped and counted; one that UDP cannot carry is lost on the way out."""
    local, remote = ({"type": "unix", "path": str(tmp_path / name)} for name in "ab")
    netdev = await open_back_end("dgram", local=local, remote=remote)
    box, wide = boxes(), boxes()
    box.join(netdev.port)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        for size in (0, 1, 13, FRAME_BYTES + 1, 100_000):
            peer.sendto(bytes(size), str(tmp_path / "a"))
        peer.sendto(ETHERNET, str(tmp_path / "a"))
        assert await frame_from(box) == ETHERNET
    assert netdev.port.stats.sent.dropped == {"too-short": 3, "too-long": 2}

    ends = [{"type": "inet", "host": "127.0.0.1", "port": port} for port in ("24183", "24184")]
    udp = await open_back_end("dgram", local=ends[0], remote=ends[1])
    wide.join(udp.port)
    assert wide.send(ETHERNET + bytes(65_520))
    assert udp.port.stats.received.dropped == {"too-long": 1}


async def test_a_datagram_peer_that_never_reads(open_back_end: Open, boxes: Boxes, tmp_path: Path) -> None:
    """A full queue makes the NIC wait without a busy loop; frames go on when the peer reads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.bind(str(tmp_path / "b"))
        local, remote = ({"type": "unix", "path": str(tmp_path / name)} for name in "ab")
        box = boxes()
        box.join((await open_back_end("dgram", local=local, remote=remote)).port)
        sent = 0
        while box.send(ETHERNET + struct.pack(">I", sent)):
            sent += 1
        assert 0 < sent < 2000
        spent = os.times()
        await asyncio.sleep(0.2)  # time passes: waiting must not burn the processor
        assert sum(os.times()[:2]) - sum(spent[:2]) < 0.1

        for number in range(sent):
            assert peer.recv(100) == ETHERNET + struct.pack(">I", number)
        await settled(lambda: box.send(ETHERNET))


async def test_a_socket_that_disappears(open_back_end: Open, boxes: Boxes, tmp_path: Path) -> None:
    """Frames to a path that nobody answers any more are lost and counted; whoever comes back there is heard."""
    local, remote = ({"type": "unix", "path": str(tmp_path / name)} for name in "ab")
    netdev = await open_back_end("dgram", local=local, remote=remote)
    box = boxes()
    box.join(netdev.port)
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(str(tmp_path / "b"))
            assert box.send(ETHERNET)
            assert peer.recv(100) == ETHERNET
        assert box.send(ETHERNET)
        os.unlink(tmp_path / "b")
        assert box.send(ETHERNET)

    assert netdev.port.stats.received.dropped == {"host": 4}
