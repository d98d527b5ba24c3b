"""-nographic on a real terminal: raw while it runs, Ctrl-A, and the user's own modes afterwards, always."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

NOGRAPHIC = ["-m", "aioemu", "-machine", "microvm", "-accel", "qtest", "-nographic"]
PATIENCE_S = 30

# A guest's port that echoes: what the serial port of a machine would do, without needing an accelerator.
ECHO = """
import asyncio, os, signal, sys
from aioemu.chardev import Chardevs, MuxKeys
from aioemu.config.chardev_options import parse_short

class Echo:
    def can_receive(self): return 100
    def receive(self, data):
        self.chardev.write(b"<" + data + b">")
        if data.endswith(b"!"):
            self.done.set()
    def event(self, event): pass
    def writable(self): pass

async def main():
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    chardevs = Chardevs(MuxKeys(quit=done.set))
    chardevs.add(parse_short("-serial", "mon:stdio", "serial0"))
    echo = Echo()
    echo.done = done
    echo.chardev = chardevs.claim("serial0")
    echo.chardev.connect(echo)
    await chardevs.open_all()
    os.write(1, b"READY\\n")
    await done.wait()
    if sys.argv[1] == "crash":
        os.abort()
    if sys.argv[1] == "exit":
        sys.exit(3)
    chardevs.close()

asyncio.run(main())
"""


class Terminal:
    """A terminal with the program on it."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = os.openpty()
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        self.seen = b""

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def expect(self, text: bytes) -> None:
        """Wait until the screen shows `text`."""
        while text not in self.seen:
            assert select.select([self.master], [], [], PATIENCE_S)[0], self.seen
            self.seen += os.read(self.master, 4096)
        self.seen = self.seen[self.seen.index(text) + len(text) :]

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait_restored(self) -> None:
        """Wait until the modes are those from before; a watcher may need a moment after the process is gone."""
        self.process.wait(PATIENCE_S)
        poller = select.poll()
        for _ in range(PATIENCE_S * 100):
            if self.modes() == self.before:
                return
            poller.poll(10)
        assert self.modes() == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """The program on a terminal, ready."""
    found = Terminal("-c", ECHO, getattr(request, "param", "close"))
    found.expect(b"READY")
    yield found
    found.close()


def test_raw_while_it_runs(terminal: Terminal) -> None:
    """Keys reach the guest one by one, Ctrl-C and Ctrl-Z too, and nothing is echoed."""
    terminal.type(b"a")
    terminal.expect(b"<a>")
    terminal.type(b"\x03")
    terminal.expect(b"<\x03>")
    terminal.type(b"\x1a\r")
    terminal.expect(b"<\x1a\r>")
    assert not terminal.modes()[3] & (termios.ECHO | termios.ICANON | termios.ISIG)


def test_ctrl_a_x_leaves(terminal: Terminal) -> None:
    """Ctrl-A x ends the program, says so, and gives the terminal back."""
    terminal.type(b"\x01x")
    terminal.expect(b"Terminated")
    terminal.wait_restored()

    assert terminal.process.returncode == 0


@pytest.mark.parametrize(
    ("terminal", "number", "status"),
    [
        ("close", signal.SIGTERM, 0),
        ("exit", signal.SIGTERM, 3),
        ("crash", signal.SIGTERM, -signal.SIGABRT),
        ("close", signal.SIGKILL, -signal.SIGKILL),
        ("close", signal.SIGSEGV, -signal.SIGSEGV),
    ],
    indirect=["terminal"],
)
def test_terminal_is_given_back(terminal: Terminal, number: signal.Signals, status: int) -> None:
    """However the process ends, the terminal has its modes again."""
    assert terminal.modes() != terminal.before
    terminal.process.send_signal(number)
    terminal.wait_restored()

    assert terminal.process.returncode == status


def test_nographic_shares_the_terminal() -> None:
    """The serial port has the terminal first; Ctrl-A c brings the monitor with its greeting, Ctrl-A x the shell."""
    terminal = Terminal(*NOGRAPHIC)
    try:
        while terminal.modes() == terminal.before:
            assert terminal.process.poll() is None
        terminal.type(b"\x01h")
        terminal.expect(b"C-a x")
        assert b"(qemu)" not in terminal.seen
        terminal.type(b"\x01c")
        terminal.expect(b"monitor - type 'help' for more information")
        terminal.expect(b"(qemu) ")
        terminal.type(b"info status\r")
        terminal.expect(b"VM status: ")
        terminal.type(b"\x01x")
        terminal.expect(b"Terminated")
        terminal.wait_restored()
        assert terminal.process.returncode == 0
    finally:
        terminal.close()


def test_shared_flags_are_left_alone(terminal: Terminal) -> None:
    """The terminal's file description stays blocking: the shell and others share it."""
    assert os.get_blocking(terminal.slave)


def test_regular_files_as_stdio(tmp_path: Any) -> None:
    """With files instead of a terminal, all input is read and all output written, in order."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"0123456789" * 1000 + b"!")
    with source.open("rb") as stdin, target.open("wb") as stdout:
        subprocess.run(
            [sys.executable, "-c", ECHO, "close"], stdin=stdin, stdout=stdout, check=True, timeout=PATIENCE_S
        )

    shown = target.read_bytes().replace(b"><", b"")
    assert shown == b"READY\n<" + b"0123456789" * 1000 + b"!>"
