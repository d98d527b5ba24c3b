"""What a receiver does not understand in a header is done in software: its frames are complete by themselves."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.netdev.port import FRAME_BYTES, Box

HEADER = struct.Struct("<BBHHHHH")
MACS = bytes((2, 0, 0, 0, 0, 1)) + bytes((2, 0, 0, 0, 0, 2))
TCP, UDP = 6, 17
TCPV4, GSO_UDP, TCPV6, UDP_L4, ECN = 1, 3, 4, 5, 0x80
FIN, PSH, ACK, CWR = 1, 8, 16, 0x80


def ones_sum(data: bytes) -> int:
    """RFC 1071, the slow way."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(v6: bool, protocol: int, size: int) -> bytes:
    if v6:
        return bytes(range(32)) + struct.pack("!II", size, protocol)
    return bytes((10, 0, 0, 1, 10, 0, 0, 2)) + struct.pack("!BBH", 0, protocol, size)


def packet(
    payload: bytes, *, v6: bool = False, protocol: int = TCP, tags: int = 0, flags: int = ACK
) -> tuple[bytes, int]:
    """A frame whose checksum is left to the receiver, and where its transport header begins."""
    if protocol == TCP:
        l4 = struct.pack("!HHIIBBHHH", 1, 2, 1000, 7, 8 << 4, flags, 512, 0, 0) + bytes(range(12)) + payload
    else:
        l4 = struct.pack("!HHHH", 1, 2, 8 + len(payload), 0) + payload
    at = 16 if protocol == TCP else 6
    left = ones_sum(pseudo(v6, protocol, len(l4)))
    l4 = l4[:at] + struct.pack("!H", left) + l4[at + 2 :]
    if v6:
        ip = struct.pack("!IHBB", 6 << 28, len(l4), protocol, 64) + bytes(range(32))
    else:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 500, 0x4000, 64, protocol, 0) + bytes(
            (10, 0, 0, 1, 10, 0, 0, 2)
        )
    ethernet = MACS + b"\x81\x00\x00\x07" * tags + struct.pack("!H", 0x86DD if v6 else 0x0800)
    return ethernet + ip + l4, len(ethernet) + len(ip)


def check(frame: bytes, *, v6: bool, protocol: int, tags: int) -> tuple[bytes, bytes]:
    """Every size and sum in a frame is right; its transport header and its payload."""
    l3 = 14 + 4 * tags
    ip = frame[l3 : l3 + (40 if v6 else 20)]
    if v6:
        assert int.from_bytes(ip[4:6], "big") == len(frame) - l3 - 40
    else:
        assert int.from_bytes(ip[2:4], "big") == len(frame) - l3
        assert ones_sum(ip) == 0xFFFF
    l4 = frame[l3 + len(ip) :]
    assert ones_sum(pseudo(v6, protocol, len(l4)) + l4) == 0xFFFF
    size = 32 if protocol == TCP else 8
    assert protocol == TCP or int.from_bytes(l4[4:6], "big") == len(l4)
    return l4[:size], l4[size:]


@pytest.fixture
def wire() -> Iterator[tuple[Box, Box]]:
    """A sender, and a receiver that understands nothing."""
    a, b = Box(), Box(1024)
    a.join(b)
    yield a, b
    a.close()
    b.close()


def drain(box: Box) -> list[bytes]:
    frames = []
    while (found := box.take_with_header()) is not None:
        assert found[0] == bytes(12)
        frames.append(found[1])
    return frames


@given(
    payload=st.binary(max_size=3000),
    v6=st.booleans(),
    protocol=st.sampled_from((TCP, UDP)),
    tags=st.integers(0, 2),
)
def test_checksums_are_completed(payload: bytes, v6: bool, protocol: int, tags: int) -> None:
    """Of any size, over both IPs, behind VLAN tags: nothing else of the frame changes."""
    a, b = Box(), Box()
    a.join(b)
    frame, l4 = packet(payload, v6=v6, protocol=protocol, tags=tags)
    at = 16 if protocol == TCP else 6

    assert a.send(frame, HEADER.pack(1, 0, 0, 0, l4, at, 0))

    (found,) = drain(b)
    assert found[: l4 + at] == frame[: l4 + at]
    assert found[l4 + at + 2 :] == frame[l4 + at + 2 :]
    l3 = 14 + 4 * tags
    assert ones_sum(pseudo(v6, protocol, len(found) - l4) + found[l4:]) == 0xFFFF
    assert found[l3] >> 4 == (6 if v6 else 4)
    a.close()
    b.close()


@given(
    payload=st.binary(min_size=1, max_size=6000), step=st.integers(40, 3000), v6=st.booleans(), tags=st.integers(0, 2)
)
def test_tcp_is_cut_into_segments(payload: bytes, step: int, v6: bool, tags: int) -> None:
    """Each is complete, they follow each other without a gap; FIN and PSH are on the last, CWR on the first alone."""
    a, b = Box(), Box()
    a.join(b)
    frame, l4 = packet(payload, v6=v6, tags=tags, flags=ACK | PSH | FIN | CWR)

    assert a.send(frame, HEADER.pack(1, (TCPV6 if v6 else TCPV4) | ECN, l4 + 32, step, l4, 16, 0))

    found = [check(each, v6=v6, protocol=TCP, tags=tags) for each in drain(b)]
    assert b"".join(data for _, data in found) == payload
    assert all(len(data) == step for _, data in found[:-1])
    at = 0
    for number, (header, data) in enumerate(found):
        assert int.from_bytes(header[4:8], "big") == 1000 + at
        last = number == len(found) - 1
        assert header[13] == ACK | (PSH | FIN if last else 0) | (CWR if number == 0 else 0)
        at += len(data)
    a.close()
    b.close()


@pytest.mark.parametrize("v6", [False, True])
def test_udp_is_cut_into_datagrams(wire: tuple[Box, Box], v6: bool) -> None:
    """USO: each with a length and a checksum of its own."""
    a, b = wire
    payload = bytes(range(256)) * 20
    frame, l4 = packet(payload, v6=v6, protocol=UDP)

    assert a.send(frame, HEADER.pack(1, UDP_L4, l4 + 8, 1000, l4, 6, 0))

    found = [check(each, v6=v6, protocol=UDP, tags=0)[1] for each in drain(b)]
    assert [len(each) for each in found] == [1000] * 5 + [120]
    assert b"".join(found) == payload


def test_udp_is_cut_into_fragments(wire: tuple[Box, Box]) -> None:
    """UFO over IPv4: fragments of one packet, whose checksum covers all of it."""
    a, b = wire
    payload = bytes(range(256)) * 20
    frame, l4 = packet(payload, protocol=UDP)

    assert a.send(frame, HEADER.pack(1, GSO_UDP, l4 + 8, 1480, l4, 6, 0))

    whole = b""
    frames = drain(b)
    for each in frames:
        ip = each[14:34]
        assert ones_sum(ip) == 0xFFFF
        assert ip[4:6] == frame[18:20]
        flags = int.from_bytes(ip[6:8], "big")
        assert (flags & 0x1FFF) * 8 == len(whole)
        assert bool(flags & 0x2000) == (each is not frames[-1])
        whole += each[34:]
    assert ones_sum(pseudo(False, UDP, len(whole)) + whole) == 0xFFFF
    assert whole[8:] == payload


def test_the_largest_frame_is_cut(wire: tuple[Box, Box]) -> None:
    """64 KiB of TCP: as a guest's driver makes them."""
    a, b = wire
    payload = bytes(range(256)) * 255
    frame, l4 = packet(payload)

    assert a.send(frame, HEADER.pack(1, TCPV4, l4 + 32, 1448, l4, 16, 0))

    found = [check(each, v6=False, protocol=TCP, tags=0)[1] for each in drain(b)]
    assert b"".join(found) == payload
    assert b.stats.received.frames == len(found) == a.stats.sent.frames


def test_a_receiver_that_waits_gets_whole_frames_or_loses_counted_segments() -> None:
    """Without room for the first segment the frame is refused whole; what a full receiver misses later is counted."""
    a, b = Box(), Box(8, waits=True)
    a.join(b)
    frame, l4 = packet(bytes(20000))
    header = HEADER.pack(1, TCPV4, l4 + 32, 1000, l4, 16, 0)

    assert a.send(frame, header)
    assert a.stats.sent.dropped == {"queue-full": 12}
    assert not a.send(frame, header)
    assert a.stats.sent.dropped == {"queue-full": 12}
    a.close()
    b.close()


@given(data=st.binary(min_size=14, max_size=300), header=st.binary(min_size=12, max_size=12), kind=st.integers(0, 5))
def test_no_header_hurts(data: bytes, header: bytes, kind: int) -> None:
    """Whatever a guest writes: frames come out or are counted, with bounded work."""
    a, b = Box(), Box(2048)
    a.join(b)
    small = struct.unpack("<BBHHHHH", header)
    header = HEADER.pack(1, kind, small[2] % 300, small[3] % 400, small[4] % 320, small[5] % 40, 0)

    assert a.send(data, header)

    assert b.waiting + a.stats.sent.lost >= 1
    a.close()
    b.close()


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(1, TCPV4, 54, 1, 34, 16, 0),  # sixty thousand segments of a byte
        HEADER.pack(0, TCPV4, 54, 1000, 34, 16, 0),  # segments without a checksum to complete
        HEADER.pack(1, TCPV6, 54, 1000, 34, 16, 0),  # not what the frame is
        HEADER.pack(1, TCPV4, 54, 1000, 10, 16, 0),  # in front of the IP header
        HEADER.pack(1, TCPV4, 54, 1000, 65535, 16, 0),
    ],
)
def test_segments_that_cannot_be_are_counted(wire: tuple[Box, Box], header: bytes) -> None:
    """Lost for a reason with a name, not sent."""
    a, b = wire
    frame, _ = packet(bytes(FRAME_BYTES - 100))

    assert a.send(frame, header)

    assert b.take() is None
    assert a.stats.sent.lost == 1
