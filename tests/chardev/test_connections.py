"""Sockets that are not a listener at a path: inherited ones, clients, TCP and telnet; descriptors that come along."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from pathlib import Path

import pytest

from aioemu.chardev import Chardevs, Event
from aioemu.chardev.sockets import SocketChardev
from aioemu.errors import EmuError, HostError
from tests.chardev.conftest import options, short
from tests.chardev.front import Front
from tests.chardev.peers import hang_up, raw_dial


@pytest.mark.parametrize("listening", [False, True])
async def test_inherited_descriptor(chardevs: Chardevs, folder: Path, listening: bool) -> None:
    """fd= takes a connected socket or a listening one, whichever it is."""
    if listening:
        ours = socket.socket(socket.AF_UNIX)
        ours.bind("s")
        ours.listen()
        flags = ",server=on,wait=off"
    else:
        ours, theirs = socket.socketpair()
        flags = ""
    chardev = chardevs.add(options(f"socket,id=mon,fd={ours.detach()}{flags}"))
    front = Front().on(chardev)
    await chardev.open()
    peer = raw_dial("s") if listening else theirs
    peer.setblocking(False)
    await front.until(lambda: Event.OPENED in front.events)
    front.send(b"greeting")

    assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"greeting"
    peer.close()


@pytest.mark.parametrize("fd", ["999", "x", "0x3", "-1"])
async def test_bad_descriptor_is_named(chardevs: Chardevs, fd: str) -> None:
    """fd= that is no socket, or no number, fails with its name."""
    with pytest.raises(EmuError, match=f"fd={fd}|descriptor {fd}|number '{fd}'"):
        await chardevs.add(options(f"socket,id=a,fd={fd}")).open()


async def test_descriptors_come_with_the_data(chardevs: Chardevs, folder: Path) -> None:
    """SCM_RIGHTS descriptors, with a lone space or with a command, wait to be taken; those not taken are closed."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    client = raw_dial("s")
    read_end, write_end = os.pipe()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write_end]))
    client.sendmsg([b" "], [rights])
    await front.gets(b" ")
    (taken,) = chardev.take_fds()
    assert chardev.take_fds() == []
    os.write(taken, b"through")
    assert os.read(read_end, 100) == b"through"
    os.close(taken)
    client.sendmsg([b"{"], [rights])
    await front.gets(b" {")
    os.close(write_end)

    chardevs.close()

    assert os.read(read_end, 1) == b""  # no copy of the write end is open
    os.close(read_end)
    client.close()


async def test_flood_of_descriptors_is_bounded(chardevs: Chardevs, folder: Path) -> None:
    """A client that only sends descriptors does not fill the process's table."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    client = raw_dial("s")
    before = len(os.listdir("/proc/self/fd"))
    for count in range(1, 201):
        client.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
        await front.gets(b" " * count)

    assert len(os.listdir("/proc/self/fd")) <= before + 65
    client.close()


async def test_client_mode_fails_without_listener(chardevs: Chardevs, folder: Path) -> None:
    """Connecting to nobody is an error that names the place."""
    with pytest.raises(HostError, match="connect to unix:gone: No such file"):
        await chardevs.add(options("socket,id=a,path=gone")).open()
    with pytest.raises(HostError, match=r"connect to tcp:127.0.0.1:1: Connection refused"):
        await chardevs.add(options("socket,id=b,host=127.0.0.1,port=1")).open()


async def test_client_connects_again(chardevs: Chardevs, folder: Path) -> None:
    """With reconnect-ms, a client that finds nobody, or is left, comes back."""
    chardev = chardevs.add(options("socket,id=a,path=s,reconnect-ms=5"))
    front = Front().on(chardev)
    await chardev.open()
    greeted = 0

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.write(b"%d" % greeted)
        await hang_up(writer)

    server = await asyncio.start_unix_server(greet, "s")
    await front.until(lambda: len(front.data) >= 3)
    server.close()

    assert front.data.startswith(b"123")
    assert front.events[:3] == [Event.OPENED, Event.CLOSED, Event.OPENED]


async def test_tcp_and_port_zero(chardevs: Chardevs) -> None:
    """TCP listens on the given host; port 0 gets a free port, which can be asked for."""
    chardev = chardevs.add(short("tcp:127.0.0.1:0,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    assert isinstance(chardev, SocketChardev)
    reader, writer = await asyncio.open_connection("127.0.0.1", chardev.port)
    writer.write(b"ping")
    await front.gets(b"ping")
    front.send(b"pong")

    assert await reader.readexactly(4) == b"pong"
    assert chardev.filename == f"tcp:127.0.0.1:{chardev.port},server=on"
    await hang_up(writer)


async def test_telnet(chardevs: Chardevs) -> None:
    """Telnet negotiates once, keeps 255 apart from commands both ways, and knows a break."""
    chardev = chardevs.add(short("telnet:127.0.0.1:0,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    assert isinstance(chardev, SocketChardev)
    reader, writer = await asyncio.open_connection("127.0.0.1", chardev.port)
    assert (await reader.readexactly(12))[:3] == b"\xff\xfb\x01"
    writer.write(b"a\xff\xff\xff\xf3b\xff\xfd\x01\xff\xfa\x18\x00x\xff\xf0c\r\x00d")
    await front.gets(b"a\xffbc\rd")
    front.send(b"1\xff2")

    assert await reader.readexactly(4) == b"1\xff\xff2"
    assert Event.BREAK in front.events
    await hang_up(writer)


async def test_telnet_back_pressure_keeps_doubled_bytes_whole(chardevs: Chardevs) -> None:
    """A stream of 255 to a slow telnet client arrives with every byte doubled, however the kernel cuts it."""
    chardev = chardevs.add(short("telnet:127.0.0.1:0,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    assert isinstance(chardev, SocketChardev)
    reader, writer = await asyncio.open_connection("127.0.0.1", chardev.port)
    await reader.readexactly(12)
    await front.until(lambda: Event.OPENED in front.events)
    sent = (b"\xff" * 1001 + b"x") * 8000
    front.send(sent)

    got = await reader.readexactly(8000 * 2003)

    assert got.replace(b"\xff\xff", b"\xff") == sent
    await hang_up(writer)


async def test_listen_if_free(chardevs: Chardevs, folder: Path) -> None:
    """`-qmp unix:PATH` listens where nobody does, and connects where somebody does."""
    from msgspec.structs import replace

    first = chardevs.add(replace(options("socket,id=a,path=s"), listen_if_free=True))
    front = Front().on(first)
    await first.open()
    second = chardevs.add(replace(options("socket,id=b,path=s"), listen_if_free=True))
    other = Front().on(second)
    await second.open()
    other.send(b"hello")

    await front.gets(b"hello")


async def test_abstract_socket(chardevs: Chardevs) -> None:
    """An abstract name needs no file."""
    name = f"aioemu-test-{os.getpid()}"
    chardev = chardevs.add(options(f"socket,id=a,path={name},abstract=on,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")
        client.send(b"abstract")
        await front.gets(b"abstract")


@pytest.mark.parametrize("host", [".", "a..b", "x" * 70 + ".test", "nul\0byte"])
async def test_name_that_no_host_can_have(chardevs: Chardevs, host: str) -> None:
    """What cannot be resolved for its form is an error by name too."""
    with pytest.raises(HostError, match="address resolution failed for"):
        await chardevs.add(options(f"socket,id=c,host={host},port=1")).open()
