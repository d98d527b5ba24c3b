"""Captures: what passes links, in one file that tshark reads and as packets for the program."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.errors import EmuError, HostError
from aioemu.netdev.capture import Capture, CaptureStats, Packet
from aioemu.netdev.link import Clockwork, Link
from aioemu.netdev.port import Box

LIMIT_S = 10.0
LLDP = bytes.fromhex("0180c200000e") + bytes(6) + b"\x88\xcc" + bytes(46)


def numbered(count: int) -> list[bytes]:
    return [bytes(12) + b"\x88\xb5" + index.to_bytes(4, "big") + bytes(42) for index in range(count)]


class Rig:
    """Two links with boxes at their ends."""

    def __init__(self) -> None:
        self.clockwork = Clockwork()
        self.links = [Link(name, self.clockwork, seed=1) for name in ("r1-r2", "r2-r3")]
        self.boxes = [Box(1 << 16) for _ in range(4)]
        for index, link in enumerate(self.links):
            link.a.join(self.boxes[2 * index])
            link.b.join(self.boxes[2 * index + 1])

    def close(self) -> None:
        for link in self.links:
            link.close()
        for box in self.boxes:
            box.close()
        self.clockwork.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def direct(link: Link) -> bool:
    return link.a_to_b.is_direct


def tshark(path: Path, *fields: str) -> list[dict[str, Any]]:
    """What tshark reads of a file, one dictionary a packet; it fails on a file that is not sound."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    command = ["tshark", "-n", "-r", str(path), "-T", "json", *(f"-e{field}" for field in fields)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return [packet["_source"]["layers"] for packet in json.loads(answer.stdout or "[]")]


async def test_several_links_in_one_file(rig: Rig, tmp_path: Path) -> None:
    """tshark sees every frame with its interface's name, in the order of time, with both directions."""
    path = tmp_path / "lab.pcapng"
    async with Capture(path) as capture:
        for link in rig.links:
            capture.add(link, comment=f"cable {link.name}")
        for frame in numbered(50):
            for box in rig.boxes:
                box.send(frame)

    packets = tshark(path, "frame.interface_name", "frame.interface_description", "frame.time_epoch", "frame.p2p_dir")
    assert len(packets) == 200
    assert [packet["frame.interface_name"][0] for packet in packets[:4]] == ["r1-r2", "r1-r2", "r2-r3", "r2-r3"]
    times = [packet["frame.time_epoch"][0] for packet in packets]
    assert times == sorted(times)
    assert capture.stats["r1-r2"].seen == 100
    assert capture.stats["r1-r2"].dropped == 0


async def test_impaired_and_captured_at_once(rig: Rig, tmp_path: Path) -> None:
    """The capture of an impaired link says of each frame what became of it."""
    path = tmp_path / "impaired.pcapng"
    async with Capture(path) as capture:
        capture.add(rig.links[0])
        await rig.links[0].a_to_b.impair(delay_ms=2, loss_every=4)
        for frame in numbered(8):
            rig.boxes[0].send(frame)
    comments = [packet["frame.comment"][0] for packet in tshark(path, "frame.comment")]
    assert comments == (["delayed 0.002000 s"] * 3 + ["lost: every"]) * 2


async def test_end_of_a_link(rig: Rig, tmp_path: Path) -> None:
    """At an end one sees what is sent there, and what arrives there: nothing of what is lost on the way."""
    path = tmp_path / "end.pcapng"
    link = rig.links[0]
    async with Capture(path) as capture:
        capture.add(link.b)
        await link.a_to_b.impair(loss_every=2)
        for frame in numbered(10):
            rig.boxes[0].send(frame)
        rig.boxes[1].send(LLDP)
    packets = tshark(path, "frame.interface_name", "eth.type", "frame.p2p_dir")
    assert {packet["frame.interface_name"][0] for packet in packets} == {"r1-r2:b"}
    assert len(packets) == 6
    assert packets[-1]["eth.type"] == ["0x88cc"]


async def test_what_is_joined_names_its_end(rig: Rig, tmp_path: Path) -> None:
    """A card or a back end on a link is recorded where it is; what is on no link is refused with the way there."""

    class Card:
        port = rig.boxes[1]

    alone = Box()
    async with Capture(tmp_path / "ends.pcapng") as capture:
        capture.add(Card())
        capture.add(rig.boxes[0])
        with pytest.raises(EmuError, match="box is not on a link"):
            capture.add(alone)
        rig.boxes[0].send(LLDP)
    packets = tshark(tmp_path / "ends.pcapng", "frame.interface_name")
    assert sorted(packet["frame.interface_name"][0] for packet in packets) == ["r1-r2:a", "r1-r2:b"]
    alone.close()


async def test_segments_are_noted(rig: Rig, tmp_path: Path) -> None:
    """A frame that is yet to be segmented is whole in the file, and says so."""
    path = tmp_path / "gso.pcapng"
    rig.links[0].b.part()
    whole = Box(takes=frozenset(("csum", "tso4")))
    rig.links[0].b.join(whole)
    frame = bytes(12) + b"\x08\x00" + bytes(64_000)
    async with Capture(path) as capture:
        capture.add(rig.links[0])
        rig.boxes[0].send(frame, bytes([1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0]))
    whole.close()
    packet = tshark(path, "frame.comment", "frame.len", "frame.cap_len")[0]
    assert packet["frame.comment"] == ["to be segmented, 1448 bytes each; checksum not filled in"]
    assert packet["frame.len"] == packet["frame.cap_len"] == ["64014"]


async def test_packets_for_the_program(rig: Rig) -> None:
    """`async for` gives the packets from its start on, with what becomes of them."""
    capture = Capture()
    capture.add(rig.links[0])
    found: list[Packet] = []

    async def read() -> None:
        found.extend([packet async for packet in capture])

    reader = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    rig.boxes[0].send(LLDP)
    await rig.links[0].impair(loss=1.0)
    rig.boxes[1].send(LLDP)
    await capture.close()
    await asyncio.wait_for(reader, LIMIT_S)
    assert [(p.interface, p.data, p.inbound, p.lost) for p in found] == [
        ("r1-r2", LLDP, False, None),
        ("r1-r2", LLDP, True, "loss"),
    ]
    assert found[0].time_ns <= found[1].time_ns


async def test_file_and_program_at_once(rig: Rig, tmp_path: Path) -> None:
    """A capture may do both, and leaving the loop early leaves the file whole."""
    path = tmp_path / "both.pcapng"
    async with Capture(path) as capture:
        capture.add(rig.links[0])
        reading = aiter(capture)
        first = asyncio.ensure_future(anext(reading))
        await asyncio.sleep(0)
        for frame in numbered(3):
            rig.boxes[0].send(frame)
        assert (await asyncio.wait_for(first, LIMIT_S)).data == numbered(3)[0]
        await reading.aclose()  # type: ignore[attr-defined]
        rig.boxes[0].send(LLDP)
    assert len(tshark(path, "frame.len")) == 4


async def test_starts_and_stops_at_any_time(rig: Rig, tmp_path: Path) -> None:
    """A link is direct again when its last capture has ended, and frames pass all the while."""
    link = rig.links[0]
    for index in range(20):
        capture = Capture(tmp_path / f"{index}.pcapng")
        rig.boxes[0].send(LLDP)
        capture.add(link)
        assert direct(link) is False
        rig.boxes[0].send(LLDP)
        await capture.close()
        assert direct(link) is True
        assert capture.stats["r1-r2"].seen == 1
    assert rig.boxes[1].waiting == 40


async def test_a_link_is_recorded_once_and_lets_go_of_captures_that_ended(rig: Rig) -> None:
    """Added twice it is one interface; removed it is not recorded; added again it counts on; nothing of it stays."""
    link, box = rig.links[0], rig.boxes[0]
    for _ in range(3):
        capture = Capture()
        capture.add(link)
        capture.add(link)
        packets = [aiter(capture)]
        first = asyncio.ensure_future(anext(packets[0]))
        await asyncio.sleep(0)
        for frame in numbered(2):
            box.send(frame)
        capture.remove(link)
        assert direct(link)
        box.send(LLDP)
        capture.add(link)
        box.send(LLDP)
        assert capture.stats == {"r1-r2": CaptureStats(3, 0)}
        capture.end()
        assert [(await first).data, *[packet.data async for packet in packets[0]]] == [*numbered(2), LLDP]
        await capture.close()
    assert link.closers == []


async def test_full_buffer_drops_by_count(rig: Rig) -> None:
    """A program that does not read costs packets of the capture, none of the link."""
    capture = Capture(buffer_bytes=1 << 16)
    capture.add(rig.links[0])
    reading = aiter(capture)
    first = asyncio.ensure_future(anext(reading))
    await asyncio.sleep(0)
    for frame in numbered(2000):
        rig.boxes[0].send(frame)
    stats = capture.stats["r1-r2"]
    assert stats.seen == 2000
    assert stats.dropped > 0
    assert rig.boxes[1].waiting == 2000
    got = 1
    assert (await first).data == numbered(1)[0]
    capture.end()
    async for _ in reading:
        got += 1
    assert got == 2000 - stats.dropped


async def test_disk_that_is_full(rig: Rig) -> None:
    """A file that cannot be written to is an error of the capture, and the link goes on."""
    with pytest.raises(HostError, match="/dev/full"):
        Capture("/dev/full")
    rig.boxes[0].send(LLDP)
    assert rig.boxes[1].waiting == 1


async def test_pipe_that_breaks(rig: Rig, tmp_path: Path) -> None:
    """A reader that goes away during the capture is reported when it is closed."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    capture = Capture(path)
    capture.add(rig.links[0])
    os.close(reader)
    rig.boxes[0].send(LLDP)
    with pytest.raises(HostError, match="Broken pipe"):
        await capture.close()
    assert rig.boxes[1].waiting == 1


async def test_file_that_cannot_be_made(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(HostError, match="No such file"):
        Capture(tmp_path / "nowhere" / "x.pcapng")


async def test_link_that_is_closed_while_captured(rig: Rig, tmp_path: Path) -> None:
    """Closing a link ends its part of the capture only."""
    path = tmp_path / "rest.pcapng"
    async with Capture(path) as capture:
        for link in rig.links:
            capture.add(link)
        rig.boxes[0].send(LLDP)
        rig.links[0].close()
        rig.boxes[2].send(LLDP)
        with pytest.raises(EmuError, match="closed"):
            capture.add(rig.links[0])
    assert len(tshark(path, "frame.len")) == 2


async def test_snap_length(rig: Rig, tmp_path: Path) -> None:
    """Only the first bytes are kept where that is asked for; the length is the frame's."""
    path = tmp_path / "snap.pcapng"
    async with Capture(path, snap_bytes=20) as capture:
        capture.add(rig.links[0])
        rig.boxes[0].send(LLDP)
    packet = tshark(path, "frame.len", "frame.cap_len")[0]
    assert (packet["frame.len"], packet["frame.cap_len"]) == (["60"], ["20"])


async def test_statistics_end_the_file(rig: Rig, tmp_path: Path) -> None:
    """The file ends with how many frames each interface saw and lost (Interface Statistics Block)."""
    path = tmp_path / "stats.pcapng"
    async with Capture(path) as capture:
        capture.add(rig.links[0])
        rig.boxes[0].send(LLDP)
    data = path.read_bytes()
    size = struct.unpack("<I", data[-4:])[0]
    kind, _, interface = struct.unpack_from("<III", data, len(data) - size)
    assert (kind, interface) == (5, 0)
    assert struct.unpack_from("<HHQHHQ", data, len(data) - size + 20) == (4, 8, 1, 5, 8, 0)
