"""User networking, seen by a guest that sends one frame at a time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aioemu.errors import ConfigError
from aioemu.netdev import user
from aioemu.netdev.port import Box
from aioemu.netdev.user import UserNetdev
from tests.netdev.stack import ACK, ARP, BROADCAST, FIN, IPV4, RST, SYN, Stack, TcpConnection, arp, ether, ping, udp

Plug = Callable[..., Awaitable[tuple[UserNetdev, Stack]]]
GATEWAY = "10.0.2.2"
DHCP_MAGIC = bytes.fromhex("63825363")


@pytest.fixture
async def plug(open_back_end: Callable[..., Any]) -> AsyncIterator[Plug]:
    """A guest in a network of its own, announced by ARP."""
    stacks = []

    async def make(address: str = "10.0.2.15", **options: Any) -> tuple[UserNetdev, Stack]:
        netdev = await open_back_end("user", **options)
        stack = Stack(address)
        stacks.append(stack)
        stack.box.join(netdev.port)
        stack.announce()
        return netdev, stack

    yield make
    for stack in stacks:
        stack.box.close()


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """Sends back what it is sent; its port on the loopback."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def dhcp_discover() -> bytes:
    fixed = struct.pack(">BBBBIHH", 1, 1, 6, 0, 0x1234, 0, 0x8000) + bytes(16)
    hardware = bytes.fromhex("525400123456") + bytes(10)
    options = DHCP_MAGIC + bytes([53, 1, 1, 55, 4, 1, 3, 6, 15, 255])
    return udp(("0.0.0.0", 68), ("255.255.255.255", 67), fixed + hardware + bytes(192) + options)


def dhcp_options(frame: bytes) -> dict[int, bytes]:
    rest, found = frame[frame.index(DHCP_MAGIC) + 4 :], {}
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        found[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return found


def is_udp_from(port: int) -> Callable[[bytes], bool]:
    return lambda frame: frame[12:14] == b"\x08\0" and frame[23] == 17 and frame[34:36] == struct.pack(">H", port)


async def test_a_guest_is_given_an_address_and_what_goes_with_it(plug: Plug) -> None:
    """DHCP offers dhcpstart, the router, the name server and the names that the options say."""
    _, guest = await plug(net="192.168.76.0/24", dhcpstart="192.168.76.9", hostname="box", domainname="lab.example")
    guest.send(dhcp_discover(), to=BROADCAST)

    offer = await guest.receive(is_udp_from(67))

    assert socket.inet_ntoa(offer[58:62]) == "192.168.76.9"
    options = dhcp_options(offer)
    assert options[3] == socket.inet_aton("192.168.76.2")
    assert options[6] == socket.inet_aton("192.168.76.3")
    assert (options[12], options[15]) == (b"box", b"lab.example")


async def test_the_gateway_is_the_hosts_loopback(plug: Plug) -> None:
    """A connection to the gateway reaches a server on the host; a hundred kilobytes come back as they were sent."""
    netdev, guest = await plug()
    async with echo_server() as port:
        connection = TcpConnection(guest, 4000, (GATEWAY, port))
        await connection.open()
        sent = os.urandom(100_000)
        got = b""
        for at in range(0, len(sent), 1000):
            connection.segment(ACK, sent[at : at + 1000])
            got += await connection.read(min(1000, len(sent) - at))

        assert got == sent
        assert netdev.sockets == 1


async def test_a_port_of_the_host_leads_into_the_guest(plug: Plug) -> None:
    """hostfwd over TCP: the guest sees a connection from the gateway; the list of connections names it."""
    netdev, guest = await plug(hostfwd=["tcp:127.0.0.1:0-:22"])
    port = int(netdev.connections.split("HOST_FORWARD]")[1].split()[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    frame = await guest.receive(lambda f: f[23] == 6 and f[47] == SYN and f[36:38] == struct.pack(">H", 22))
    connection = TcpConnection(guest, 22, (GATEWAY, struct.unpack(">H", frame[34:36])[0]))
    connection.ack = int.from_bytes(frame[38:42], "big") + 1
    connection.segment(SYN | ACK)
    await connection.next()
    connection.segment(ACK, b"SSH-2.0-none\n")

    assert await reader.readline() == b"SSH-2.0-none\n"
    writer.close()


async def test_datagrams_are_forwarded(plug: Plug) -> None:
    """hostfwd over UDP, by a rule that is added and removed while the guest runs."""
    netdev, guest = await plug()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        free = sender.getsockname()[1] ^ 1
        netdev.add_hostfwd(f"udp:127.0.0.1:{free}-:69")
        sender.sendto(b"ping", ("127.0.0.1", free))
        frame = await guest.receive(lambda f: f[23] == 17 and f[36:38] == struct.pack(">H", 69))
        assert frame.endswith(b"ping")

        assert netdev.remove_hostfwd(f"udp:127.0.0.1:{free}")
        assert not netdev.remove_hostfwd(f"udp:127.0.0.1:{free}")


async def test_time_stands_still_for_connections_too(plug: Plug) -> None:
    """While the machine is paused nothing is sent again and nothing times out; then it goes on where it was."""
    netdev, guest = await plug()
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: writers.append(writer), "127.0.0.1", 0)
    connection = TcpConnection(guest, 4000, (GATEWAY, server.sockets[0].getsockname()[1]))
    await connection.open()
    await settled(lambda: bool(writers))
    writers[0].write(b"lost")
    await guest.receive(lambda frame: frame.endswith(b"lost"))  # and not acknowledged

    netdev.hold(True)
    writers[0].write(b" and found")
    guest.send(ping("10.0.2.15", GATEWAY))
    await asyncio.sleep(1.5)  # time passes: three times what makes it send again
    assert guest.box.take() is None

    netdev.hold(False)
    assert await connection.read(14) == b"lost and found"
    server.close()
    writers[0].close()


async def test_a_unix_socket_leads_into_the_guest(plug: Plug, tmp_path: Path) -> None:
    """hostfwd from a path: an old socket there is replaced, and the path is gone with the network."""
    path = tmp_path / "web"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    netdev, guest = await plug(hostfwd=[f"unix:{path}-:80"])
    _, writer = await asyncio.open_unix_connection(path)

    await guest.receive(lambda f: f[23] == 6 and f[47] == SYN and f[36:38] == struct.pack(">H", 80))
    writer.close()
    netdev.close()

    assert not path.exists()


async def test_a_file_in_the_way_of_a_forwarded_socket_stays(plug: Plug, tmp_path: Path) -> None:
    """What is no socket is not replaced."""
    (tmp_path / "precious").write_text("data")

    with pytest.raises(ConfigError, match="the file is no socket"):
        await plug(hostfwd=[f"unix:{tmp_path}/precious-:80"])

    assert (tmp_path / "precious").read_text() == "data"


async def test_a_port_inside_is_a_command(plug: Plug) -> None:
    """guestfwd to cmd: each connection has a process of its own on its other side."""
    _, guest = await plug(guestfwd=["tcp:10.0.2.100:7000-cmd:tr a-z A-Z"])
    connection = TcpConnection(guest, 4000, ("10.0.2.100", 7000))
    await connection.open()
    connection.segment(ACK | FIN, b"quiet please\n")

    assert await connection.read(13) == b"QUIET PLEASE\n"


async def test_a_port_inside_is_a_chardev(plug: Plug, tmp_path: Path) -> None:
    """guestfwd to a unix socket: what connections send comes out there, what comes in goes to the newest of them."""
    path = tmp_path / "device"
    _, guest = await plug(guestfwd=[f"tcp:10.0.2.100:7000-unix:{path},server=on,wait=off"])
    reader, writer = await asyncio.open_unix_connection(path)
    first, second = (TcpConnection(guest, port, ("10.0.2.100", 7000)) for port in (4000, 4001))
    await first.open()
    first.segment(ACK, b"from the first ")
    assert await reader.readexactly(15) == b"from the first "
    await second.open()
    second.segment(ACK, os.urandom(1200))
    await reader.readexactly(1200)
    first.segment(ACK, b"still there")
    assert await reader.readexactly(11) == b"still there"

    data = os.urandom(40_000)
    writer.write(data)
    assert await second.read(len(data)) == data
    writer.close()


async def test_a_chardev_that_is_taken_or_not_there(plug: Plug) -> None:
    """A guestfwd that cannot be leaves nothing behind."""
    with pytest.raises(ConfigError, match="chardev 'none' not found"):
        await plug(guestfwd=["tcp:10.0.2.100:7000-chardev:none"])
    for _ in range(2):
        with pytest.raises(ConfigError, match="conflicting"):
            await plug(guestfwd=["tcp:10.0.2.100:7000-null", "tcp:10.0.2.100:7000-null"])


async def test_a_restricted_guest_reaches_nothing_outside(plug: Plug) -> None:
    """restrict=on: no connection to the host, but what is forwarded works."""
    netdev, guest = await plug(restrict=True, guestfwd=["tcp:10.0.2.100:7000-cmd:echo inside"])
    async with echo_server() as port:
        refused = TcpConnection(guest, 4001, (GATEWAY, port))
        refused.segment(SYN)
        allowed = TcpConnection(guest, 4002, ("10.0.2.100", 7000))
        await allowed.open()

        assert await allowed.read(7) == b"inside\n"
        assert not any(refused._is_mine(frame) and frame[47] & SYN for frame in guest.seen)
        assert str(port) not in netdev.connections


async def test_a_file_is_fetched_by_tftp(plug: Plug, tmp_path: Path) -> None:
    """tftp= serves that folder, and nothing above it."""
    (tmp_path / "kernel").write_bytes(b"\x7fELF" * 100)
    _, guest = await plug(tftp=str(tmp_path))
    guest.send(udp(("10.0.2.15", 5000), (GATEWAY, 69), b"\0\1kernel\0octet\0"))
    assert b"\x7fELF" * 100 in await guest.receive(is_udp_from(69))

    guest.send(udp(("10.0.2.15", 5001), (GATEWAY, 69), b"\0\1../../etc/passwd\0octet\0"))
    answer = await guest.receive(lambda f: is_udp_from(69)(f) and f[36:38] == struct.pack(">H", 5001))

    assert answer[42:44] == b"\0\5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net": "10.0.2.0/40"}, "4 to 32 bits"),
        ({"net": "nowhere"}, "not an IPv4 address"),
        ({"host": "10.9.9.9"}, "host is not in the network"),
        ({"dns": "10.0.2.2"}, "dns must be different"),
        ({"dhcpstart": "10.0.2.3"}, "dhcpstart must be different"),
        ({"dns": "1.1.1.1", "restrict": True}, "dns is not in the network"),
        ({"ipv4": False, "ipv6": False}, "IPv4 and IPv6 disabled"),
        ({"ipv4": False, "net": "10.0.0.0"}, "IPv4 disabled"),
        ({"ipv6_net": "fd00::/127"}, "0 to 126"),
        ({"ipv6_host": "fd00::1"}, "ipv6-host is not in the network"),
        ({"domainname": ""}, "domainname cannot be empty"),
        ({"bootfile": "b" * 128}, "bootfile cannot exceed"),
        ({"smb": "/srv"}, "smb: not available"),
        ({"hostfwd": ["tcp:127.0.0.1:80"]}, "no '-'"),
        ({"hostfwd": ["sctp::80-:80"]}, "protocol is"),
        ({"hostfwd": ["tcp::80-:0"]}, "bad guest"),
        ({"hostfwd": ["tcp::99999-:80"]}, "bad host"),
        ({"hostfwd": ["unix:web-:80"]}, "must be absolute"),
        ({"guestfwd": ["tcp:8.8.8.8:80-cmd:true"]}, "outside of the network"),
        ({"guestfwd": ["tcp:10.0.2.2:80"]}, "no '-' and target"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(plug: Plug, options: dict[str, Any], message: str) -> None:
    """Options that contradict each other or cannot be read start nothing, and the message says which."""
    with pytest.raises(ConfigError, match=message):
        await plug(**options)


async def test_without_the_library_the_message_says_what_to_install(plug: Plug, monkeypatch: Any) -> None:
    """The library is optional; a back end that needs it names the package."""

    class Absent:
        @staticmethod
        def core_slirp_check(text: Any, room: int) -> int:
            return -errno.ELIBACC

    monkeypatch.setattr(user, "lib", Absent)

    with pytest.raises(ConfigError, match="apt-get install libslirp0"):
        await plug()


async def test_two_networks_know_nothing_of_each_other(plug: Plug) -> None:
    """Each back end is a network of its own, with the same addresses."""
    (_, one), (other_netdev, other) = await plug(), await plug()
    async with echo_server() as port:
        connection = TcpConnection(one, 4000, (GATEWAY, port))
        await connection.open()
        connection.segment(ACK, b"mine")
        assert await connection.read(4) == b"mine"

    assert other_netdev.sockets == 0
    other.send(arp(1, "10.0.2.15", GATEWAY), ARP, BROADCAST)
    await other.receive(lambda f: f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2")


async def test_a_guest_that_reads_nothing_costs_a_bounded_queue(plug: Plug) -> None:
    """What a full NIC does not take waits up to a bound, is dropped and counted beyond; then all goes on."""
    netdev, guest = await plug()
    guest.box.close()
    guest.box = Box(4, waits=True)
    guest.box.join(netdev.port)
    request = ether(IPV4, ping("10.0.2.15", GATEWAY, size=1400))
    for _ in range(5000):
        while not guest.box.send(request):
            await asyncio.sleep(0)
    await settled(lambda: netdev.port.stats.sent.dropped.get("queue-full", 0) > 0)
    assert guest.box.waiting == 4

    await settled(lambda: guest.box.take() is None and guest.box.waiting == 0)
    guest.send(ping("10.0.2.15", GATEWAY, sequence=0x7777))
    await guest.receive(lambda f: f[40:42] == b"\x77\x77")


async def settled(condition: Callable[[], bool]) -> None:
    """Until that is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_reset_connections_give_their_descriptors_back(plug: Plug) -> None:
    """What a guest opens and drops is closed on the host."""
    netdev, guest = await plug()
    async with echo_server() as port:
        for number in range(20):
            connection = TcpConnection(guest, 5000 + number, (GATEWAY, port))
            await connection.open()
            connection.segment(RST | ACK)
        await settled(lambda: netdev.sockets == 0)
