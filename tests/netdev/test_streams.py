"""Back ends that carry frames over sockets: the wire is QEMU's, connections come and go, a broken peer harms nobody."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aioemu.errors import ConfigError, HostError
from aioemu.netdev.port import FRAME_BYTES, Box
from aioemu.netdev.registry import NetContext
from tests.netdev.waiting import frame_from, frames_from, settled

ETHERNET = bytes(12) + b"\x88\xb5"  # a type for experiments
LENGTH = struct.Struct(">I")
PEER_MAX = 69632  # the longest frame that a peer may announce
Open = Callable[..., Any]
Boxes = Callable[..., Box]


def framed(frame: bytes) -> bytes:
    return LENGTH.pack(len(frame)) + frame


async def pair(open_back_end: Open, boxes: Boxes, path: Path, **options: Any) -> tuple[Any, Any, Box, Box]:
    """A server, a client, and what is joined to them; connected."""
    server = await open_back_end("stream", "server", server=True, addr={"type": "unix", "path": str(path)})
    client = await open_back_end("stream", "client", addr={"type": "unix", "path": str(path)}, **options)
    left, right = boxes(), boxes()
    left.join(server.port)
    right.join(client.port)
    await settled(lambda: left.carrier and right.carrier)
    return server, client, left, right


@pytest.fixture
async def raw(open_back_end: Open, boxes: Boxes, tmp_path: Path) -> AsyncIterator[tuple[Any, Box, socket.socket]]:
    """A server, what is joined to it, and a bare socket as its client."""
    server = await open_back_end("stream", server=True, addr={"type": "unix", "path": str(tmp_path / "wire")})
    box = boxes()
    box.join(server.port)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "wire"))
        await settled(lambda: box.carrier)
        sock.setblocking(False)
        yield server, box, sock


def events(context: NetContext) -> list[tuple[str, dict[str, Any]]]:
    assert context.log.events is not None
    return [(event.name, dict(event.fields)) for event in context.log.events if event.name.startswith("NETDEV")]


async def test_frames_of_every_size_pass_both_ways(open_back_end: Open, boxes: Boxes, tmp_path: Path) -> None:
    """From the shortest to the longest, in order, byte for byte."""
    *_, left, right = await pair(open_back_end, boxes, tmp_path / "wire")
    frames = [ETHERNET + os.urandom(size) for size in (0, 1, 46, 1486, 1500, 9000, 65000, FRAME_BYTES - 14)]

    for a, b in ((left, right), (right, left)):
        for frame in frames:
            assert a.send(frame)
        assert await frames_from(b, len(frames)) == frames


async def test_the_wire_is_a_length_and_the_frame(raw: tuple[Any, Box, socket.socket]) -> None:
    """Four bytes, most significant first, then the frame: what QEMU's socket and stream speak."""
    _, box, sock = raw
    frame = ETHERNET + b"payload"
    box.send(frame)
    loop = asyncio.get_running_loop()

    assert await loop.sock_recv(sock, 100) == framed(frame)
    await loop.sock_sendall(sock, framed(frame[::-1]))
    assert await frame_from(box) == frame[::-1]


async def test_a_stream_may_be_cut_anywhere(raw: tuple[Any, Box, socket.socket]) -> None:
    """Frames that come byte by byte, and many at once, are the same frames."""
    _, box, sock = raw
    loop = asyncio.get_running_loop()
    frames = [ETHERNET + bytes([n]) * n for n in range(40)]
    stream = b"".join(map(framed, frames))
    for at in range(len(stream)):
        await loop.sock_sendall(sock, stream[at : at + 1])
        await asyncio.sleep(0)
    assert await frames_from(box, len(frames)) == frames

    for cut in range(1, 60):
        two = framed(frames[20]) + framed(frames[21])
        await loop.sock_sendall(sock, two[:cut])
        await asyncio.sleep(0)
        await loop.sock_sendall(sock, two[cut:])
        assert await frames_from(box, 2) == frames[20:22]


async def test_frames_that_are_none_are_dropped_and_counted(raw: tuple[Any, Box, socket.socket]) -> None:
    """A length of 0 or 13, or more than a frame may have: the next frame is found all the same."""
    server, box, sock = raw
    loop = asyncio.get_running_loop()
    for size in (0, 13, FRAME_BYTES + 1, PEER_MAX):
        await loop.sock_sendall(sock, framed(bytes(size)))
    await loop.sock_sendall(sock, framed(ETHERNET))

    assert await frame_from(box) == ETHERNET
    assert server.port.stats.sent.dropped == {"too-short": 2, "too-long": 2}


@pytest.mark.parametrize("length", [PEER_MAX + 1, 1 << 31, (1 << 32) - 1])
async def test_a_length_that_cannot_be_ends_the_connection(
    raw: tuple[Any, Box, socket.socket], length: int, tmp_path: Path
) -> None:
    """Where the framing is lost nothing more is believed; the next client is served."""
    _, box, sock = raw
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, LENGTH.pack(length) + bytes(100))

    assert await asyncio.wait_for(_until_closed(sock), 10)
    await settled(lambda: not box.carrier)
    with socket.socket(socket.AF_UNIX) as again:
        again.connect(str(tmp_path / "wire"))
        await settled(lambda: box.carrier)
        again.sendall(framed(ETHERNET))
        assert await frame_from(box) == ETHERNET


async def _until_closed(sock: socket.socket) -> bool:
    try:
        return await asyncio.get_running_loop().sock_recv(sock, 1) == b""
    except ConnectionResetError:
        return True


async def test_a_peer_that_never_reads_makes_the_nic_wait(raw: tuple[Any, Box, socket.socket]) -> None:
    """What does not fit the socket stays with the sender, not in our memory; all of it arrives when the peer reads."""
    _, box, sock = raw
    frame = ETHERNET + bytes(1486)
    sent = 0
    while box.send(frame):
        sent += 1
        assert sent < 10_000

    assert sent * len(frame) < 4 << 20
    sock.setblocking(True)
    sock.settimeout(10)
    await asyncio.to_thread(_drain, sock, sent * (len(frame) + 4))
    await settled(lambda: box.send(frame))


def _drain(sock: socket.socket, size: int) -> None:
    while size > 0:
        size -= len(sock.recv(min(size, 65536)))


async def test_a_nic_that_takes_nothing_makes_the_peer_wait(open_back_end: Open, boxes: Boxes, tmp_path: Path) -> None:
    """The other way round: nothing is lost and little is held while the guest does not look."""
    await open_back_end("stream", server=True, addr={"type": "unix", "path": str(tmp_path / "wire")})
    server = await open_back_end("stream", "b", server=True, addr={"type": "unix", "path": str(tmp_path / "b")})
    box = boxes(4, waits=True)
    box.join(server.port)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "b"))
        await settled(lambda: box.carrier)
        sock.setblocking(False)
        frames = [ETHERNET + struct.pack(">I", n) + bytes(1000) for n in range(3000)]
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(sock, b"".join(map(framed, frames))))
        await settled(lambda: box.waiting == 4)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not sending.done()

        assert await frames_from(box, len(frames)) == frames
        await sending


async def test_carrier_and_events_follow_the_connection(
    open_back_end: Open, boxes: Boxes, tmp_path: Path, context: NetContext
) -> None:
    """NETDEV_STREAM_CONNECTED and _DISCONNECTED, carrier, and a client that comes back by itself."""
    server, client, left, right = await pair(open_back_end, boxes, tmp_path / "wire", reconnect_ms=1)
    address = {"type": "unix", "path": str(tmp_path / "wire")}
    assert ("NETDEV_STREAM_CONNECTED", {"netdev_id": "client", "addr": address}) in events(context)
    assert client.summary == f"unix:{tmp_path / 'wire'}"

    server.close()
    await settled(lambda: not right.carrier)
    assert ("NETDEV_STREAM_DISCONNECTED", {"netdev_id": "client"}) in events(context)
    assert not right.send(ETHERNET) or right.stats.sent.lost == 1
    assert not (tmp_path / "wire").exists()

    again = await open_back_end("stream", "again", server=True, addr=address)
    left.part()
    left.join(again.port)
    await settled(lambda: left.carrier and right.carrier)
    right.send(ETHERNET)
    assert await frame_from(left) == ETHERNET


async def test_a_storm_of_connections_leaves_nothing(
    open_back_end: Open, boxes: Boxes, tmp_path: Path, context: NetContext
) -> None:
    """Hundreds of clients that leave at once, some within a frame: no descriptor stays, the next is served."""
    server = await open_back_end("stream", server=True, addr={"type": "unix", "path": str(tmp_path / "wire")})
    box = boxes()
    box.join(server.port)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 301):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "wire"))
            sock.send(framed(ETHERNET + bytes(100))[: number % 60])
        if number % 50 == 0:
            await settled(partial(_seen, context, 2 * number))
    with socket.socket(socket.AF_UNIX) as last:
        last.connect(str(tmp_path / "wire"))
        last.sendall(framed(ETHERNET + b"last"))
        assert await frame_from(box) == ETHERNET + b"last"

        assert len(os.listdir("/proc/self/fd")) <= before + 2


def _has_carrier(box: Box) -> bool:
    return box.carrier


def _seen(context: NetContext, count: int) -> bool:
    return len(events(context)) == count


async def test_clients_wait_for_their_turn(raw: tuple[Any, Box, socket.socket], tmp_path: Path) -> None:
    """One connection at a time: the second is served when the first has gone."""
    _, box, sock = raw
    with socket.socket(socket.AF_UNIX) as second:
        second.connect(str(tmp_path / "wire"))
        second.sendall(framed(ETHERNET + b"second"))
        sock.setblocking(True)
        sock.sendall(framed(ETHERNET + b"first"))
        assert await frame_from(box) == ETHERNET + b"first"
        sock.close()

        assert await frame_from(box) == ETHERNET + b"second"


async def test_tcp_and_passed_descriptors(open_back_end: Open, boxes: Boxes) -> None:
    """inet addresses, and sockets given by number."""
    server = await open_back_end("stream", server=True, addr={"type": "inet", "host": "127.0.0.1", "port": "0"})
    port = server._listener.getsockname()[1]
    ours, theirs = socket.socketpair()
    for kind, options in (
        ("stream", {"addr": {"type": "inet", "host": "127.0.0.1", "port": str(port)}}),
        ("stream", {"addr": {"type": "fd", "str": str(ours.detach())}}),
    ):
        netdev = await open_back_end(kind, **options)
        box = boxes()
        box.join(netdev.port)
        await settled(partial(_has_carrier, box))
        box.send(ETHERNET)
    far = boxes()
    far.join(server.port)

    assert await asyncio.get_running_loop().run_in_executor(None, theirs.recv, 100) == framed(ETHERNET)
    theirs.close()


async def test_the_old_names(open_back_end: Open, boxes: Boxes) -> None:
    """`socket` with listen= and connect=, udp= and mcast=: the same wire."""
    server = await open_back_end("socket", listen="127.0.0.1:0")
    port = server._listener.getsockname()[1]
    client = await open_back_end("socket", connect=f"127.0.0.1:{port}")
    left, right = boxes(), boxes()
    left.join(server.port)
    right.join(client.port)
    await settled(lambda: left.carrier and right.carrier)
    left.send(ETHERNET + b"old")
    assert await frame_from(right) == ETHERNET + b"old"

    first, second, third = boxes(), boxes(), boxes()
    for box in (first, second, third):
        box.join((await open_back_end("socket", mcast="230.0.0.77:24077", localaddr="127.0.0.1")).port)
    first.send(ETHERNET + b"all")
    assert await frame_from(second) == await frame_from(third) == ETHERNET + b"all"


async def test_a_server_whose_path_is_taken(open_back_end: Open, tmp_path: Path) -> None:
    """A live socket or a file is left alone, a dead socket is replaced."""
    address = {"type": "unix", "path": str(tmp_path / "wire")}
    await open_back_end("stream", server=True, addr=address)
    with pytest.raises(HostError, match="another process listens"):
        await open_back_end("stream", server=True, addr=address)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(HostError, match="not a socket"):
        await open_back_end("stream", server=True, addr={"type": "unix", "path": str(tmp_path / "file")})
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))

    await open_back_end("stream", server=True, addr={"type": "unix", "path": str(tmp_path / "dead")})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("stream", {}, "Parameter 'addr' is missing"),
        ("stream", {"addr": {"type": "vsock"}}, "does not accept value 'vsock'"),
        ("stream", {"addr": {"type": "unix"}}, "'addr.path' is missing"),
        ("stream", {"addr": {"type": "unix", "path": "x" * 200}}, "UNIX socket path"),
        ("stream", {"addr": {"type": "unix", "path": "p", "host": "h"}}, "'addr.host' is unexpected"),
        ("stream", {"addr": {"type": "fd", "str": "0"}}, "fd 0 is no socket"),
        ("stream", {"addr": {"type": "unix", "path": "p"}, "reconnect": 1, "reconnect_ms": 1}, "exclude each other"),
        ("stream", {"addr": {"type": "unix", "path": "p"}, "server": True, "reconnect_ms": 1}, "does not reconnect"),
        ("dgram", {}, "requires local"),
        ("dgram", {"local": {"type": "unix", "path": "p"}}, "require remote"),
        (
            "dgram",
            {"local": {"type": "unix", "path": "p"}, "remote": {"type": "inet", "host": "127.0.0.1", "port": "1"}},
            "of one type",
        ),
        ("socket", {}, "exactly one of"),
        ("socket", {"listen": ":1", "connect": ":2"}, "exactly one of"),
        ("socket", {"listen": "port"}, "not host:port"),
        ("socket", {"mcast": "10.0.0.1:5"}, "not a multicast address"),
        ("socket", {"udp": "127.0.0.1:5"}, "requires localaddr"),
        ("socket", {"connect": ":5", "localaddr": ":6"}, "goes with"),
    ],
)
async def test_what_does_not_go_together_is_refused(
    open_back_end: Open, kind: str, options: dict[str, Any], message: str
) -> None:
    """Each by a message that names it; a descriptor that was named by number is still its owner's."""
    with pytest.raises(ConfigError, match=message):
        await open_back_end(kind, **options)
    os.fstat(0)
