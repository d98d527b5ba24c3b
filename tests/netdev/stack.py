"""A guest's IPv4 stack, as little of it as the tests of user networking need: one frame in, one frame out, by hand."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from aioemu.netdev.port import Box

MAC = bytes.fromhex("525400123456")
BROADCAST = b"\xff" * 6
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
SYN, ACK, PSH, FIN, RST, URG = 2, 16, 8, 1, 4, 32
WAIT_S = 10.0


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(int(word) for word in struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ether(kind: int, payload: bytes, to: bytes = BROADCAST, source: bytes = MAC) -> bytes:
    return to + source + struct.pack(">H", kind) + payload


def ipv4(protocol: int, source: str, to: str, payload: bytes, *, fragment: int = 0, identity: int = 1) -> bytes:
    """A packet; (fragment) is the flags and offset field."""
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), identity, fragment, 64, protocol, 0)
    header += socket.inet_aton(source) + socket.inet_aton(to)
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def transport(protocol: int, source: str, to: str, segment: bytes, at: int) -> bytes:
    """(segment) with its checksum at (at) filled in."""
    pseudo = socket.inet_aton(source) + socket.inet_aton(to) + struct.pack(">BBH", 0, protocol, len(segment))
    return segment[:at] + struct.pack(">H", checksum(pseudo + segment)) + segment[at + 2 :]


def udp(source: tuple[str, int], to: tuple[str, int], data: bytes) -> bytes:
    segment = struct.pack(">HHHH", source[1], to[1], 8 + len(data), 0) + data
    return ipv4(17, source[0], to[0], transport(17, source[0], to[0], segment, 6))


def ping(source: str, to: str, sequence: int = 1, size: int = 56) -> bytes:
    """An echo request (RFC 792)."""
    body = struct.pack(">BBHHH", 8, 0, 0, 7, sequence) + bytes(size)
    return ipv4(1, source, to, body[:2] + struct.pack(">H", checksum(body)) + body[4:])


def tcp(
    source: tuple[str, int], to: tuple[str, int], flags: int, seq: int, ack: int, data: bytes = b"", urgent: int = 0
) -> bytes:
    segment = struct.pack(">HHIIBBHHH", source[1], to[1], seq, ack, 0x50, flags, 60000, 0, urgent) + data
    return ipv4(6, source[0], to[0], transport(6, source[0], to[0], segment, 16))


def arp(operation: int, source: str, to: str, target_mac: bytes = bytes(6)) -> bytes:
    body = struct.pack(">HHBBH", 1, IPV4, 6, 4, operation)
    return body + MAC + socket.inet_aton(source) + target_mac + socket.inet_aton(to)


class Stack:
    """A guest at one end of a wire. Answers ARP for its address; everything else is the test's."""

    def __init__(self, address: str = "10.0.2.15") -> None:
        self.address = address
        self.box = Box(4096)
        self.seen: list[bytes] = []

    def send(self, packet: bytes, kind: int = IPV4, to: bytes = bytes.fromhex("525500000202")) -> None:
        """One packet to the network."""
        assert self.box.send(ether(kind, packet, to))

    def announce(self) -> None:
        """Say where this address is."""
        self.send(arp(1, self.address, self.address), ARP, BROADCAST)

    async def receive(self, wanted: Callable[[bytes], bool]) -> bytes:
        """The next frame that is (wanted); others are remembered in `seen`."""
        async with asyncio.timeout(WAIT_S):
            while True:
                while (frame := self.box.take()) is not None:
                    self._answer_arp(frame)
                    if wanted(frame):
                        return frame
                    self.seen.append(frame)
                await self._readable()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.box.fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.box.fd)

    def _answer_arp(self, frame: bytes) -> None:
        is_request = frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1"
        if is_request and frame[38:42] == socket.inet_aton(self.address):
            sender = socket.inet_ntoa(frame[28:32])
            self.send(arp(2, self.address, sender, frame[22:28]), ARP, frame[6:12])


class TcpConnection:
    """One TCP connection of a guest's: the other side is local, nothing is lost, so nothing is sent twice."""

    def __init__(self, stack: Stack, port: int, peer: tuple[str, int]) -> None:
        self.stack, self.here, self.peer = stack, (stack.address, port), peer
        self.seq, self.ack = 1000, 0
        self.closed = False

    def segment(self, flags: int, data: bytes = b"", urgent: int = 0) -> None:
        """Send one segment from where the connection is."""
        self.stack.send(tcp(self.here, self.peer, flags, self.seq, self.ack, data, urgent))
        self.seq += len(data) + bool(flags & SYN) + bool(flags & FIN)

    async def next(self) -> tuple[int, bytes]:
        """Flags and data of the next segment that comes in order."""
        while True:
            frame = await self.stack.receive(self._is_mine)
            segment = frame[14 + (frame[14] & 15) * 4 : 14 + int.from_bytes(frame[16:18], "big")]
            seq, flags = int.from_bytes(segment[4:8], "big"), segment[13]
            data = segment[(segment[12] >> 4) * 4 :]
            if flags & SYN:
                self.ack = seq + 1
                return flags, b""
            if seq == self.ack:
                self.ack += len(data) + bool(flags & FIN)
                return flags, data

    def _is_mine(self, frame: bytes) -> bool:
        ports = struct.pack(">HH", self.peer[1], self.here[1])
        return len(frame) >= 54 and frame[12:14] == b"\x08\0" and frame[23] == 6 and frame[34:38] == ports

    async def open(self) -> None:
        """The handshake, from this side."""
        self.segment(SYN)
        flags, _ = await self.next()
        assert flags & (SYN | ACK) == SYN | ACK, f"flags {flags:#x}"
        self.segment(ACK)

    async def read(self, size: int) -> bytes:
        """(size) bytes, acknowledged as they come."""
        got = b""
        while len(got) < size:
            flags, data = await self.next()
            assert not flags & RST
            got += data
            if data or flags & FIN:
                self.segment(ACK)
            if flags & FIN:
                self.closed = True
                break
        return got
