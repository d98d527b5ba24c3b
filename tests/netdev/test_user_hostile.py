"""User networking under guests that mean harm: the process lives, what they hold is bounded, losses are counted."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from aioemu.netdev.port import FRAME_BYTES
from aioemu.netdev.user import UserNetdev
from tests.netdev.stack import (
    ACK,
    ARP,
    BROADCAST,
    IPV4,
    IPV6,
    PSH,
    URG,
    Stack,
    TcpConnection,
    arp,
    checksum,
    ether,
    ipv4,
    ping,
    tcp,
    udp,
)

GATEWAY = "10.0.2.2"
SOCKETS_MAX = 512  # GUARD_SOCKETS
GARBAGE_FRAMES = 5000
# a sanitizer keeps what was freed
MEMORY_MAX = (512 if "libasan" in os.environ.get("LD_PRELOAD", "") else 16) << 20
Guest = tuple[UserNetdev, Stack]


@pytest.fixture
async def guest(open_back_end: Callable[..., Any]) -> AsyncIterator[Guest]:
    """A guest that has announced itself."""
    netdev = await open_back_end("user")
    stack = Stack()
    stack.box.join(netdev.port)
    stack.announce()
    yield netdev, stack
    stack.box.close()


async def alive(stack: Stack) -> None:
    """The network still answers."""
    while stack.box.take() is not None:
        pass
    while not stack.box.send(ether(ARP, arp(1, stack.address, GATEWAY), BROADCAST)):
        await asyncio.sleep(0)
    await stack.receive(lambda f: f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2")


async def push(stack: Stack, frame: bytes) -> None:
    """Send one frame, as soon as there is room."""
    while not stack.box.send(frame):
        await asyncio.sleep(0)
    while stack.box.take() is not None:
        pass


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_urgent_data_becomes_ordinary_data(guest: Guest) -> None:
    """The library reads beyond its buffer where a guest sends urgent data (CVE-2026-9539): it never sees any."""
    _, stack = guest
    received: list[bytes] = []
    done = asyncio.get_running_loop().create_future()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readexactly(9))
        writer.close()
        done.set_result(None)

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    connection = TcpConnection(stack, 4000, (GATEWAY, server.sockets[0].getsockname()[1]))
    await connection.open()
    connection.segment(ACK | PSH | URG, b"abc", urgent=0xFFFF)
    connection.segment(ACK | PSH | URG, b"def", urgent=1)
    connection.segment(ACK | PSH, b"ghi", urgent=3)

    await asyncio.wait_for(done, 10)
    server.close()
    assert received == [b"abcdefghi"]
    await alive(stack)


async def test_fragments_in_any_order_become_a_packet(guest: Guest) -> None:
    """A datagram in three pieces, the last one first, arrives whole."""
    _, stack = guest
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.setblocking(False)
        data = random.Random(1).randbytes(4000)
        whole = udp((stack.address, 4000), (GATEWAY, sink.getsockname()[1]), data)[20:]
        for at in (2960, 0, 1480):
            part = whole[at : at + 1480]
            more = 0x2000 if at + len(part) < len(whole) else 0
            stack.send(ipv4(17, stack.address, GATEWAY, part, fragment=more | at // 8))

        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sink, 8192), 10) == data


async def test_overlapping_fragments_are_dropped(guest: Guest) -> None:
    """The library's own reassembly writes outside its memory for these: it never sees a fragment."""
    netdev, stack = guest
    for fragment, size in ((0x2000, 800), (0x2001, 808), (0x2000, 8), (0x0001, 0), (0x2005, 7), (0x1FFF, 1400)):
        stack.send(ipv4(17, stack.address, GATEWAY, bytes(size), fragment=fragment))

    await alive(stack)
    assert netdev.port.stats.received.dropped["filtered"] == 4


async def test_a_flood_of_fragments_is_bounded(guest: Guest) -> None:
    """Fragments that never become packets: room for a few datagrams is all that they take."""
    _, stack = guest
    before = resident_bytes()
    for number in range(20_000):
        packet = ipv4(17, stack.address, GATEWAY, bytes(1400), fragment=0x2000 | number % 8, identity=number & 0xFFFF)
        await push(stack, ether(IPV4, packet))

    await alive(stack)
    assert resident_bytes() - before < MEMORY_MAX


async def test_connections_beyond_the_limit_are_not_opened(guest: Guest) -> None:
    """A guest's flows hold at most so many of the host's descriptors; the process keeps the others."""
    netdev, stack = guest
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        port = sink.getsockname()[1]
        for number in range(2000):
            await push(stack, ether(IPV4, udp((stack.address, 10_000 + number), (GATEWAY, port), b"x")))
        async with asyncio.timeout(10):
            while not netdev.port.stats.received.dropped.get("queue-full"):
                await asyncio.sleep(0)

        assert 0 < netdev.sockets <= SOCKETS_MAX + 1
        assert len(list(Path("/proc/self/fd").iterdir())) < SOCKETS_MAX + 200


async def test_a_process_that_runs_out_of_descriptors_keeps_some(open_back_end: Callable[..., Any]) -> None:
    """Several guests that open what they can: the process still opens files, and goes on when they have gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            stacks = []
            for number in range(6):
                stack = Stack()
                stack.box.join((await open_back_end("user", f"n{number}")).port)
                stack.announce()
                stacks.append(stack)
            for flow in range(300):
                for stack in stacks:
                    packet = udp((stack.address, 10_000 + flow), (GATEWAY, sink.getsockname()[1]), b"x")
                    await push(stack, ether(IPV4, packet))

            for stack in stacks:
                await alive(stack)
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            assert 200 < highest < 350
            for stack in stacks:
                stack.box.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_answers_to_unknown_neighbours_are_bounded(guest: Guest) -> None:
    """An answer to an address that nobody has claimed waits for ARP: a guest cannot pile them up."""
    netdev, stack = guest
    before = resident_bytes()
    for number in range(30_000):
        stranger = f"10.0.2.{20 + number % 200}"
        await push(stack, ether(IPV4, ping(stranger, GATEWAY, size=1400)))

    assert netdev.port.stats.received.dropped["filtered"] > 25_000
    assert resident_bytes() - before < MEMORY_MAX
    await alive(stack)


@pytest.mark.parametrize("size", [1, 13, 14, 15, 33, 34, 41, 60, 1514, 1515, 9014, 65549, 65550, FRAME_BYTES])
async def test_frames_of_every_size_pass_or_are_counted(guest: Guest, size: int) -> None:
    """From one byte to the longest frame there is, of each protocol, all zeros or all ones inside."""
    netdev, stack = guest
    for kind in (IPV4, IPV6, ARP, 0x88F8, 0x8100, 0xFFFF):
        for fill in (b"\0", b"\xff", b"\x45"):
            frame = (ether(kind, b"") + fill * size)[:size]
            await push(stack, frame)

    await alive(stack)
    assert netdev.port.stats.received.lost + stack.box.stats.sent.lost > 0


def garbage(random_: random.Random) -> bytes:
    """A frame that is nearly right: headers with checksums, fields from the edges, anything inside."""
    body = random_.randbytes(random_.choice((0, 1, 7, 8, 19, 20, 21, 60, 576, 1480)))
    source, to = (
        random_.choice(("10.0.2.15", "0.0.0.0", "10.0.2.2", "255.255.255.255")),
        random_.choice((GATEWAY, "10.0.2.3", "10.0.2.255", "10.0.2.15", "127.0.0.1", "224.0.0.1", "0.0.0.0")),
    )
    shape = random_.randrange(8)
    if shape == 0:
        return ether(ARP, arp(random_.randrange(4), source, to) + body, BROADCAST)
    if shape == 1:
        return ether(random_.choice((IPV4, IPV6, ARP)), body)
    if shape == 2:
        return ether(IPV6, garbage_ip6(random_, body))
    if shape == 3:
        port = random_.choice((53, 67, 69, 7, 113, 6667, 0))
        return ether(IPV4, udp((source, random_.choice((68, 1023, 0))), (to, port), body))
    if shape == 4:
        flags = random_.randrange(256)
        return ether(IPV4, tcp((source, 40), (to, random_.choice((80, 21, 6667))), flags, 1, 1, body, 0xFFFF))
    if shape == 5:
        return ether(
            IPV4, ipv4(17, source, to, body, fragment=random_.randrange(0x4000), identity=random_.randrange(4))
        )
    if shape == 6:
        message = bytes([random_.randrange(20), random_.randrange(4)]) + bytes(2) + body
        return ether(IPV4, ipv4(1, source, to, message[:2] + struct.pack(">H", checksum(message)) + message[4:]))
    packet = bytearray(ipv4(random_.choice((1, 6, 17, 2, 255)), source, to, body))
    packet[random_.randrange(len(packet))] ^= 1 << random_.randrange(8)
    packet[10:12] = bytes(2)
    header = (packet[0] & 15) * 4
    packet[10:12] = struct.pack(">H", checksum(bytes(packet[:header])))
    return ether(IPV4, bytes(packet))


def garbage_ip6(random_: random.Random, body: bytes) -> bytes:
    addresses = [
        socket.inet_pton(socket.AF_INET6, a) for a in ("fe80::1", "fec0::2", "fec0::3", "ff02::1", "::", "::1")
    ]
    protocol = random_.choice((6, 17, 58, 0, 44, 59))
    if protocol == 58:
        body = bytes([random_.choice((128, 133, 134, 135, 136, 1, 3))]) + body
    length = random_.choice((len(body), len(body) + 8, 0, 0xFFFF))
    head = struct.pack(">IHBB", 6 << 28, length, protocol, random_.choice((0, 1, 255)))
    source, to = random_.choice(addresses), random_.choice(addresses)
    if protocol in (6, 17, 58) and len(body) > 18:
        at = {6: 16, 17: 6, 58: 2}[protocol]
        body = body[:at] + bytes(2) + body[at + 2 :]
        pseudo = source + to + struct.pack(">II", len(body), protocol)
        body = body[:at] + struct.pack(">H", checksum(pseudo + body)) + body[at + 2 :]
    return head + source + to + body


@pytest.mark.parametrize("seed", range(8))
async def test_the_process_outlives_garbage(guest: Guest, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Thousands of frames that are nearly right neither end the process nor print anything."""
    netdev, stack = guest
    random_ = random.Random(seed)
    for _ in range(GARBAGE_FRAMES):
        await push(stack, garbage(random_))
    await alive(stack)

    assert capfd.readouterr().err == ""
    assert netdev.sockets <= SOCKETS_MAX + 1
