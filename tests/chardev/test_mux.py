"""The mux: one terminal, several front ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from aioemu.chardev import Chardevs, Event, MuxKeys, MuxPort
from aioemu.chardev.mux import HELD_INPUT_BYTES
from aioemu.errors import ConfigError
from tests.chardev.conftest import options
from tests.chardev.front import Front


class Desk(NamedTuple):
    """A terminal with a monitor and a serial port on it."""

    chardevs: Chardevs
    fd: int
    monitor: Front
    serial: Front
    quits: list[str]

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.fd, keys)

    def screen(self, end: bytes) -> bytes:
        """What was shown since the last look, up to `end`."""
        shown = b""
        while not shown.endswith(end):
            shown += os.read(self.fd, 65536)
        return shown


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A pty plays the terminal; the monitor asks first, the serial port for the focus."""
    quits: list[str] = []
    chardevs = Chardevs(MuxKeys(quit=lambda: quits.append("x"), commit=lambda: quits.append("s")))
    master, slave = os.openpty()
    chardevs.add(options(f"serial,id=t,path={os.ttyname(slave)},mux=on"))
    monitor = Front().on(chardevs.claim("t", focus=False))
    serial = Front(room=1000).on(chardevs.claim("t"))
    await chardevs.open_all()
    yield Desk(chardevs, master, monitor, serial, quits)
    chardevs.close()
    os.close(master)
    os.close(slave)


async def test_focus_starts_with_the_serial_port_and_rotates(desk: Desk) -> None:
    """Input goes to the port in focus, Ctrl-A c moves it on, each learns of it; output comes from both."""
    desk.type(b"to serial\x01cto monitor\x01cagain")
    await desk.serial.gets(b"to serialagain")
    await desk.monitor.gets(b"to monitor")

    assert desk.serial.events == [Event.MUX_IN, Event.OPENED, Event.MUX_OUT, Event.MUX_IN]
    assert desk.monitor.events == [Event.MUX_IN, Event.MUX_OUT, Event.OPENED, Event.MUX_IN, Event.MUX_OUT]
    desk.monitor.send(b"m")
    desk.serial.send(b"s")
    assert desk.screen(b"s") == b"ms"


async def test_escape_commands(desk: Desk) -> None:
    """Ctrl-A: itself, break, commit, help, quit, unknown keys; they never reach a front end."""
    desk.type(b"a\x01\x01b\x01b\x01s\x01?c\x01hd\x01z\x01X.")
    await desk.serial.gets(b"a\x01bcd.")

    assert Event.BREAK in desk.serial.events
    assert Event.BREAK not in desk.monitor.events
    assert desk.quits == ["s", "x"]
    screen = desk.screen(b"Terminated\n\r")
    assert screen.count(b"C-a x") == 2
    assert b"C-a c" in screen


async def test_escape_split_over_reads(desk: Desk) -> None:
    """The key after Ctrl-A may come much later."""
    desk.type(b"a\x01")
    await desk.serial.gets(b"a")
    desk.type(b"c")
    desk.type(b"m")

    await desk.monitor.gets(b"m")


async def test_ctrl_a_works_in_front_of_a_hanging_guest(desk: Desk) -> None:
    """A port that takes nothing does not stop Ctrl-A x, and what was typed comes when it takes again."""
    desk.serial.room = 0
    desk.type(b"typed ahead\x01x\x01cm")
    await desk.monitor.gets(b"m")
    assert desk.quits == ["x"]
    desk.serial.give_room(100)

    await desk.serial.gets(b"typed ahead")


async def test_paste_is_held_back_not_lost(desk: Desk) -> None:
    """A paste beyond what is held waits in the terminal, and comes whole and in order."""
    desk.serial.room = 0
    paste = b"".join(b"%06d " % number for number in range(3 * HELD_INPUT_BYTES // 7))
    left = paste
    os.set_blocking(desk.fd, False)
    while len(desk.serial.data) < len(paste):
        with contextlib.suppress(BlockingIOError):
            left = left[os.write(desk.fd, left) :] if left else left
        before = len(desk.serial.data)
        desk.serial.give_room(100)
        await desk.serial.until(lambda before=before: len(desk.serial.data) > before)  # type: ignore[misc]

    assert bytes(desk.serial.data) == paste


async def test_time_stamps(desk: Desk) -> None:
    """Ctrl-A t puts the time before each line from then on, until the next one."""
    desk.type(b"\x01t!")
    await desk.serial.gets(b"!")
    desk.serial.send(b"rest\none\n")
    desk.serial.send(b"tw")
    desk.serial.send(b"o\n")
    lines = desk.screen(b"two\n").split(b"\n")
    assert lines[0] == b"rest"
    assert lines[1].startswith(b"[00:00:")
    assert lines[1].endswith(b"] one")
    assert lines[2].endswith(b"] two")
    desk.type(b"\x01t.")
    await desk.serial.gets(b"!.")
    desk.serial.send(b"plain\n")

    assert desk.screen(b"\n") == b"plain\n"


async def test_ports_are_counted_and_given_back(desk: Desk) -> None:
    """A fifth front end is refused; one that leaves makes room; another has the focus, but not before the next key."""
    more = [desk.chardevs.claim("t") for _ in range(2)]
    with pytest.raises(ConfigError, match="too many front ends"):
        desk.chardevs.claim("t")
    for port in more:
        desk.chardevs.release(port)
    assert isinstance(desk.serial.chardev, MuxPort)
    desk.chardevs.release(desk.serial.chardev)
    assert desk.monitor.events[-1] is not Event.MUX_IN
    desk.type(b"m")

    await desk.monitor.gets(b"m")
