"""Socket chardevs as their peers see them."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import stat
from pathlib import Path

import pytest

from aioemu.chardev import Chardev, Chardevs, Event, Frontend
from aioemu.chardev.sockets import SocketChardev
from aioemu.errors import HostError
from tests.chardev.conftest import options, short
from tests.chardev.front import PATIENCE_S, Front
from tests.chardev.peers import dial, hang_up, raw_dial


async def test_bytes_pass_both_ways(chardevs: Chardevs, folder: Path) -> None:
    """A client of a listening socket talks to the front end, which sees it come and go."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    assert front.events == []
    reader, writer = await dial("s")
    writer.write(b"hello")
    await front.gets(b"hello")
    front.send(b"world")

    assert await reader.readexactly(5) == b"world"
    assert front.events == [Event.OPENED]
    await hang_up(writer)
    await front.until(lambda: front.events[-1] is Event.CLOSED)


async def test_path_appears_only_when_it_answers(folder: Path) -> None:
    """Whoever sees the socket's path can connect: a client that spins on the path is never refused."""
    done = asyncio.Event()
    refused = 0

    def spin() -> None:
        nonlocal refused
        while not done.is_set():
            if os.path.exists("s"):
                with socket.socket(socket.AF_UNIX) as sock:
                    try:
                        sock.connect("s")
                    except ConnectionRefusedError:
                        refused += 1
                    except FileNotFoundError:
                        pass  # closed between the two calls

    spinner = asyncio.get_running_loop().run_in_executor(None, spin)
    for _ in range(200):
        chardev = SocketChardev(short("unix:s,server=on,wait=off"))  # type: ignore[arg-type]
        await chardev.open()
        await asyncio.sleep(0)
        os.unlink("s")  # as seen from outside the path goes before the listener
        chardev.close()
    done.set()
    await spinner

    assert refused == 0
    assert os.listdir() == []


async def test_stale_socket_is_replaced_and_own_path_removed(chardevs: Chardevs, folder: Path) -> None:
    """What a killed process left behind is no obstacle, and nothing is left behind at close."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("s")
    await chardevs.add(short("unix:s,server=on,wait=off")).open()
    reader, writer = await dial("s")
    await hang_up(writer)
    assert await reader.read() == b""

    chardevs.close()

    assert os.listdir() == []


async def test_live_socket_and_plain_file_are_left_alone(chardevs: Chardevs, folder: Path) -> None:
    """A path that somebody answers at, or that is no socket, is an error that names it."""
    with socket.socket(socket.AF_UNIX) as live:
        live.bind("live")
        live.listen()
        with pytest.raises(HostError, match="live: another process listens"):
            await chardevs.add(options("socket,id=a,path=live,server=on,wait=off")).open()
    Path("file").write_text("precious")
    with pytest.raises(HostError, match="not a socket"):
        await chardevs.add(options("socket,id=b,path=file,server=on,wait=off")).open()

    assert Path("file").read_text() == "precious"
    assert stat.S_ISSOCK(os.stat("live").st_mode)


async def test_path_that_was_taken_over_is_not_unlinked(chardevs: Chardevs, folder: Path) -> None:
    """Close removes the socket that it made, not another one that has its name by now."""
    await chardevs.add(short("unix:s,server=on,wait=off")).open()
    os.unlink("s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("s")
        chardevs.close()

        assert os.path.exists("s")


@pytest.mark.parametrize("size", [107, 108])
async def test_longest_path(chardevs: Chardevs, tmp_path: Path, size: int) -> None:
    """Every path that fits a socket address works, though the temporary name is longer; a longer one is named."""
    folder = tmp_path / "d"
    folder.mkdir()
    path = str(folder) + "/" + "x" * (size - len(str(folder)) - 1)
    chardev = chardevs.add(options(f"socket,id=a,path={path},server=on,wait=off"))
    if size == 108:
        with pytest.raises(HostError, match="too long"):
            await chardev.open()
        return
    await chardev.open()
    _, writer = await dial(path)
    await hang_up(writer)


async def test_slow_reader_holds_back_and_loses_nothing(chardevs: Chardevs, folder: Path) -> None:
    """Output that the client does not read yet is not accepted, and comes whole and in order when it does."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    sent = bytes(range(256)) * 16384  # 4 MiB, far beyond the kernel's buffers
    client = raw_dial("s")
    await front.until(lambda: Event.OPENED in front.events)
    front.send(sent)
    assert front.queue
    assert chardev.write(b"x") == 0

    loop = asyncio.get_running_loop()
    got = bytearray()
    while len(got) < len(sent):
        got += await loop.sock_recv(client, 1 << 16)
    client.close()

    assert bytes(got) == sent


async def test_input_waits_for_room(chardevs: Chardevs, folder: Path) -> None:
    """A front end without room gets nothing; what it makes room for comes, and no more than that."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    front = Front(room=3).on(chardev)
    await chardev.open()
    _, writer = await dial("s")
    writer.write(b"abcdefgh")
    await front.gets(b"abc")
    front.give_room(2)
    await front.gets(b"abcde")
    front.give_room(100)
    await front.gets(b"abcdefgh")
    await hang_up(writer)


async def test_second_client_waits_its_turn(chardevs: Chardevs, folder: Path) -> None:
    """A single front end serves one client at a time; the next one is served when the first leaves."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    front = Front().on(chardev)
    await chardev.open()
    first_reader, first = await dial("s")
    second_reader, second = await dial("s")
    second.write(b"two")
    first.write(b"one")
    await front.gets(b"one")
    await hang_up(first)
    await front.gets(b"onetwo")
    front.send(b"!")

    assert await second_reader.readexactly(1) == b"!"
    assert await first_reader.read() == b""
    assert front.events == [Event.OPENED, Event.CLOSED, Event.OPENED]
    await hang_up(second)


async def test_many_clients_each_have_their_own_front_end(chardevs: Chardevs, folder: Path) -> None:
    """With `serve`, a hundred clients at once are each answered by their own front end."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    fronts: list[Front] = []

    def greet(client: Chardev) -> Frontend:
        front = Front()
        front.chardev = client
        fronts.append(front)
        client.write(b"early")  # lost: not open yet
        return front

    chardev.serve(greet)
    await chardev.open()
    peers = [await dial("s") for _ in range(100)]
    for at, (_, writer) in enumerate(peers):
        writer.write(b"%d" % at)
    for at, (reader, _) in enumerate(peers):
        await fronts[at].gets(b"%d" % at)
        fronts[at].send(b"<%d>" % at)
        assert await reader.readuntil(b">") == b"<%d>" % at
    assert isinstance(chardev, SocketChardev)
    assert chardev.clients == 100
    for _, writer in peers:
        await hang_up(writer)
    for front in fronts:
        await front.until(lambda front=front: front.events[-1] is Event.CLOSED)  # type: ignore[misc]

    assert chardev.clients == 0


async def test_running_out_of_descriptors_passes(chardevs: Chardevs, folder: Path) -> None:
    """More clients than descriptors: those that fit are served, the rest when there is room again."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    fronts: list[Front] = []

    def greet(client: Chardev) -> Frontend:
        front = Front()
        front.chardev = client
        fronts.append(front)
        return front

    chardev.serve(greet)
    await chardev.open()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(30)]
    for client in clients:
        client.setblocking(False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 11, limits[1]))
    try:
        for at, client in enumerate(clients):
            client.connect("s")
            client.send(b"%02d" % at)
        while len(fronts) < 10:
            await asyncio.sleep(0)
        for client in clients[:15]:
            client.close()
        async with asyncio.timeout(PATIENCE_S):
            while len(fronts) < 30:
                await asyncio.sleep(0)
                if len(fronts) >= 20:
                    for client in clients[15:20]:
                        client.close()
                if len(fronts) >= 25:
                    clients[20].close()
                    clients[21].close()
                    clients[22].close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for client in clients:
            client.close()

    for at, front in enumerate(fronts):
        await front.gets(b"%02d" % at)


async def test_last_words_are_read_to_the_end(chardevs: Chardevs, folder: Path) -> None:
    """What is written before close reaches a client that had sent more than was read, and then it sees the end."""
    chardev = chardevs.add(short("unix:s,server=on,wait=off"))
    front = Front(room=0).on(chardev)
    await chardev.open()
    reader, writer = await dial("s")
    writer.write(b"never read" * 1000)
    await writer.drain()
    await front.until(lambda: Event.OPENED in front.events)
    front.send(b"bye")
    chardevs.close()

    assert await reader.read() == b"bye"
    await hang_up(writer)


async def test_waiting_server_waits_for_its_client(chardevs: Chardevs, folder: Path) -> None:
    """With wait=on, open returns when the first client is there."""
    chardev = chardevs.add(short("unix:s,server=on"))
    front = Front().on(chardev)
    opening = asyncio.ensure_future(chardev.open())
    while not os.path.exists("s"):
        await asyncio.sleep(0)
    assert not opening.done()
    _, writer = await dial("s")
    async with asyncio.timeout(PATIENCE_S):
        await opening

    assert front.events == [Event.OPENED]
    await hang_up(writer)


async def test_client_that_comes_before_the_front_end_is_kept(chardevs: Chardevs, folder: Path) -> None:
    """A client may connect and write before there is a front end: it is served when there is one."""
    chardev = chardevs.add(short("unix:s,server=on"))
    opening = asyncio.ensure_future(chardev.open())
    while not os.path.exists("s"):
        await asyncio.sleep(0)
    _, writer = await dial("s")
    writer.write(b"patience")
    await opening
    front = Front().on(chardev)

    await front.gets(b"patience")
    assert front.events == [Event.OPENED]
    await hang_up(writer)
