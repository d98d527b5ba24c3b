"""Files, FIFOs, pseudo terminals, logs and memory as back ends."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from pathlib import Path

import pytest

from aioemu.chardev import Chardevs, Event, RingbufChardev
from aioemu.chardev.pty import PtyChardev
from aioemu.errors import ConfigError, HostError
from tests.chardev.conftest import options, short
from tests.chardev.front import Front


async def test_file_takes_all_output(chardevs: Chardevs, folder: Path) -> None:
    """A file has every byte when write returns; it begins anew, or goes on with append=on."""
    Path("out").write_bytes(b"old")
    front = Front().on(chardevs.add(options("file,id=a,path=out")))
    await chardevs.open_all()
    front.send(b"x" * 100_000)
    assert Path("out").read_bytes() == b"x" * 100_000
    chardevs.close()

    front = Front().on(chardevs.add(options("file,id=a,path=out,append=on")))
    await chardevs.open_all()
    front.send(b"end")
    assert Path("out").read_bytes()[-4:] == b"xend"


async def test_file_gives_input(chardevs: Chardevs, folder: Path) -> None:
    """input-path is read as far as there is room, then ends; output goes on."""
    Path("in").write_bytes(b"0123456789" * 1000)
    front = Front(room=15).on(chardevs.add(options("file,id=a,path=out,input-path=in")))
    await chardevs.open_all()
    await front.gets(b"012345678901234")
    front.give_room(1 << 20)
    await front.gets(b"0123456789" * 1000)
    await front.until(lambda: Event.CLOSED in front.events)
    front.send(b"still here")

    assert Path("out").read_bytes() == b"still here"


async def test_unopenable_file_is_named(chardevs: Chardevs, folder: Path) -> None:
    """A file that cannot be made fails with its name and the reason."""
    chardevs.add(options("file,id=a,path=no/such/out"))
    with pytest.raises(HostError, match="chardev a: open no/such/out: No such file"):
        await chardevs.open_all()


async def test_full_disk_does_not_stop_the_guest(chardevs: Chardevs) -> None:
    """Output that the disk refuses is dropped."""
    front = Front().on(chardevs.add(options("file,id=a,path=/dev/full")))
    await chardevs.open_all()
    front.send(b"lost")

    assert front.queue == b""


async def test_pipe_pair(chardevs: Chardevs, folder: Path) -> None:
    """NAME.in and NAME.out are used where both exist; peers may come and go."""
    os.mkfifo("p.in")
    os.mkfifo("p.out")
    front = Front().on(chardevs.add(short("pipe:p")))
    await chardevs.open_all()
    for word in (b"one", b"two"):
        fd = os.open("p.in", os.O_WRONLY)
        os.write(fd, word)
        os.close(fd)
    await front.gets(b"onetwo")
    front.send(b"answer")
    fd = os.open("p.out", os.O_RDONLY | os.O_NONBLOCK)

    assert os.read(fd, 100) == b"answer"
    os.close(fd)


async def test_fifo_back_pressure(chardevs: Chardevs, folder: Path) -> None:
    """A FIFO that nobody reads holds the output back; a reader gets all of it in order."""
    os.mkfifo("f")
    front = Front().on(chardevs.add(options("file,id=a,path=f")))
    await chardevs.open_all()
    sent = bytes(range(256)) * 2048
    front.send(sent)
    assert front.queue

    fd = os.open("f", os.O_RDONLY)
    got = await asyncio.get_running_loop().run_in_executor(None, read_exactly, fd, len(sent))
    os.close(fd)
    assert got == sent


def read_exactly(fd: int, size: int) -> bytes:
    """Blocks until all is there: for an executor."""
    got = bytearray()
    while len(got) < size:
        got += os.read(fd, size - len(got))
    return bytes(got)


async def test_pty(chardevs: Chardevs, folder: Path) -> None:
    """Whoever opens the terminal is the other side: raw bytes both ways, CLOSED when it leaves, and again."""
    chardev = chardevs.add(options("pty,id=a,path=link"))
    front = Front().on(chardev)
    await chardevs.open_all()
    assert isinstance(chardev, PtyChardev)
    front.send(b"lost, as on an unplugged line")
    for turn in (1, 2):
        fd = os.open("link", os.O_RDWR | os.O_NOCTTY)
        os.write(fd, b"\x03raw\r")
        await front.gets(b"\x03raw\r" * turn)
        front.send(b"a\nb")
        assert read_exactly(fd, 3) == b"a\nb"
        os.close(fd)
        await front.until(lambda turn=turn: front.events.count(Event.CLOSED) == turn)  # type: ignore[misc]
    chardevs.close()

    assert os.listdir() == []


async def test_host_terminal(chardevs: Chardevs) -> None:
    """A terminal device is raw while it is ours."""
    master, slave = os.openpty()
    front = Front().on(chardevs.add(short(os.ttyname(slave))))
    await chardevs.open_all()
    os.write(master, b"\x03\x04\r")
    await front.gets(b"\x03\x04\r")
    front.send(b"a\nb")

    assert read_exactly(master, 3) == b"a\nb"
    assert not termios.tcgetattr(slave)[tty.LFLAG] & termios.ECHO
    os.close(master)
    os.close(slave)


async def test_ringbuf_keeps_the_last(chardevs: Chardevs) -> None:
    """The newest bytes are kept and read once."""
    chardev = chardevs.add(options("ringbuf,id=a,size=8"))
    front = Front().on(chardev)
    await chardevs.open_all()
    front.send(b"0123456789")
    assert isinstance(chardev, RingbufChardev)

    assert chardev.read(3) == b"234"
    front.send(b"ab")
    assert chardev.read(100) == b"56789ab"
    assert chardev.read(100) == b""


async def test_logfile_has_what_was_accepted(chardevs: Chardevs, folder: Path) -> None:
    """Any back end copies its output to logfile=, behind what is there or instead of it."""
    Path("log").write_bytes(b"before ")
    for text in ("null,id=a", "ringbuf,id=b", "socket,id=c,path=s,server=on,wait=off"):
        chardev = chardevs.add(options(f"{text},logfile=log,logappend=on"))
        front = Front().on(chardev)
        await chardev.open()
        front.send(text[:4].encode())
    assert Path("log").read_bytes() == b"before nullringsock"

    chardevs.add(options("null,id=z,logfile=log"))
    assert Path("log").read_bytes() == b""


async def test_hub(chardevs: Chardevs, folder: Path) -> None:
    """A hub writes to all members at the pace of the slowest; the members are taken."""
    os.mkfifo("slow")
    chardevs.add(options("file,id=a,path=out"))
    chardevs.add(options("pipe,id=b,path=slow"))
    front = Front().on(chardevs.add(options("hub,id=h,chardevs.0=a,chardevs.1=b")))
    await chardevs.open_all()
    sent = b"0123456789abcdef" * 8192
    front.send(sent)
    front.send(b"!")
    assert front.queue == b"!"
    with pytest.raises(ConfigError, match="'a' is in use"):
        chardevs.claim("a")

    fd = os.open("slow", os.O_RDONLY)
    got = await asyncio.get_running_loop().run_in_executor(None, read_exactly, fd, len(sent))
    await front.until(lambda: not front.queue)
    os.close(fd)

    assert got == sent
    assert Path("out").read_bytes() == sent + b"!"


async def test_hub_hears_each_member(chardevs: Chardevs, folder: Path) -> None:
    """Input of every member reaches the one front end."""
    for name in ("a", "b"):
        os.mkfifo(name)
        os.mkfifo(f"{name}.in")
        os.mkfifo(f"{name}.out")
        chardevs.add(options(f"pipe,id={name},path={name}"))
    front = Front().on(chardevs.add(options("hub,id=h,chardevs.0=a,chardevs.1=b")))
    await chardevs.open_all()
    for name in ("b", "a"):
        with open(f"{name}.in", "wb") as fifo:
            fifo.write(name.encode())
        await front.until(lambda name=name: name.encode() in front.data)  # type: ignore[misc]

    assert bytes(front.data) == b"ba"


async def test_registry_speaks_of_ids(chardevs: Chardevs) -> None:
    """Unknown, doubled and busy ids are errors that name them; a free one can be removed."""
    chardevs.add(options("null,id=serial0"))
    with pytest.raises(ConfigError, match="'serial1' not found; did you mean serial0"):
        chardevs.claim("serial1")
    with pytest.raises(ConfigError, match="'serial0' already exists"):
        chardevs.add(options("null,id=serial0"))
    claimed = chardevs.claim("serial0")
    with pytest.raises(ConfigError, match="'serial0' is busy"):
        chardevs.remove("serial0")
    assert chardevs.query()[0] == ("serial0", "null", True)
    chardevs.release(claimed)
    chardevs.remove("serial0")

    assert chardevs.query() == []
