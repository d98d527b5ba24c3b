"""qtest: the protocol by itself, and a real machine driven over it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.accel.cpuid import Leaf
from aioemu.config import AccelOptions, MachineConfig, MachineOptions, SocketOptions, UnixAddress
from aioemu.errors import EmuError
from aioemu.machine.machine import Machine
from aioemu.protocol.qtest import QtestSession
from aioemu.protocol.qtest_server import MachineTarget, serve
from tests.protocol.rig import TIMEOUT_S


class Target:
    """4 KiB of memory, one port that drives line 8, a clock with one timer at 1000 ns."""

    def __init__(self) -> None:
        self.bytes = bytearray(4096)
        self.now = 0
        self.level = False
        self.fired = 0

    def read_port(self, port: int, size: int) -> int:
        return int(self.level)

    def write_port(self, port: int, size: int, value: int) -> None:
        self.level = bool(value)

    def read_memory(self, address: int, size: int) -> bytes:
        if address + size > len(self.bytes):
            raise EmuError("nothing there")
        return bytes(self.bytes[address : address + size])

    def write_memory(self, address: int, data: bytes) -> None:
        if address + len(data) > len(self.bytes):
            raise EmuError("nothing there")
        self.bytes[address : address + len(data)] = data

    def now_ns(self) -> int:
        return self.now

    def next_deadline_ns(self) -> int | None:
        return 1000 if self.now < 1000 else None

    def advance(self, to_ns: int) -> int:
        if self.now < 1000 <= to_ns:
            self.level = True
        self.now = to_ns
        return self.now

    def lines(self, path: str, outputs: bool) -> Callable[[], Sequence[bool]] | None:
        return (lambda: [False] * 8 + [self.level]) if path == "ioapic" else None

    def set_line(self, path: str, name: str, number: int, level: int) -> None:
        self.level = bool(level)


def talk(*lines: str) -> list[str]:
    return QtestSession(Target()).feed("".join(f"{line}\n" for line in lines).encode()).decode().splitlines()


def test_replies_have_the_form_that_clients_parse() -> None:
    """Ports answer four digits or more, memory sixteen, blocks their bytes in order."""
    assert talk("endianness", "inb 0x70", "outl 0xcf8 0x80000000") == ["OK little", "OK 0x0000", "OK"]
    assert talk("writel 16 0x12345678", "readq 0x10", "readb 020") == [
        "OK",
        "OK 0x0000000012345678",
        "OK 0x0000000000000078",
    ]
    assert talk("write 0 4 0xaabbccdd", "read 0 5", "b64read 0 3") == ["OK", "OK 0xaabbccdd00", "OK qrvM"]
    assert talk("b64write 1 3 AQID", "memset 0 1 0x55", "read 0 4") == ["OK", "OK", "OK 0x55010203"]


def test_clock_belongs_to_the_client() -> None:
    """A bare step goes to the next timer; time never goes back."""
    assert talk("clock_step 100", "clock_step", "clock_step", "clock_set 5000", "clock_set 1") == [
        "OK 100",
        "OK 1000",
        "OK 1000",
        "OK 5000",
        "OK 5000",
    ]


def test_interrupts_come_before_the_reply_that_they_belong_to() -> None:
    """Watched lines are reported when they change, once."""
    assert talk("irq_intercept_in ioapic", "outb 1 1", "inb 1", "outb 1 0", "clock_step 2000") == [
        "OK",
        "IRQ raise 8",
        "OK",
        "OK 0x0001",
        "IRQ lower 8",
        "OK",
        "IRQ raise 8",
        "OK 2000",
    ]
    assert talk("irq_intercept_in nope")[0].startswith("FAIL")


@pytest.mark.parametrize(
    "line",
    [
        "nope",
        "readb",
        "inb zz",
        "read 0 0",
        "read 0 0x10000000000",
        "write 0 4 0xzz",
        "readq 0xfffffffffffffffe",
        "out 1",
    ],
)
def test_what_cannot_be_done_fails_by_name(line: str) -> None:
    """A wrong line gets FAIL and the next one works."""
    wrong, right = talk(line, "endianness")

    assert wrong.startswith("FAIL ")
    assert right == "OK little"


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_survived(parts: list[bytes]) -> None:
    """Garbage is answered line by line, never raised."""
    session = QtestSession(Target())
    replies = b"".join(session.feed(part) for part in [*parts, b"\nendianness\n"])

    assert replies.endswith(b"OK little\n")


async def test_real_machine(tmp_path: Path) -> None:
    """The board's devices answer over a socket without a processor, on the client's clock."""
    path = str(tmp_path / "qtest")
    config = MachineConfig(
        machine=MachineOptions("q35"),
        accel=(AccelOptions("qtest"),),
        chardevs=(SocketOptions(id="qtest", address=UnixAddress(path), server=True),),
    )
    machine = Machine(config)
    await machine.open()
    serve(machine.chardevs.claim("qtest"), machine)
    reader, writer = await asyncio.open_unix_connection(path)

    async def ask(line: str) -> str:
        writer.write(f"{line}\n".encode())
        return (await asyncio.wait_for(reader.readline(), TIMEOUT_S)).decode().strip()

    assert await ask("outl 0xcf8 0x80000000") == "OK"
    assert (await ask("inl 0xcfc")).endswith("8086")
    assert await ask("writel 0x1000 0x12345678") == "OK"
    assert await ask("read 0x1000 4") == "OK 0x78563412"
    before = int((await ask("clock_step 5")).split()[1])
    assert await ask("clock_step 1000000000") == f"OK {before + 1_000_000_000}"
    writer.close()
    machine.close()


TAIL = "-audio none -M q35 -rtc clock=vm -accel qtest"
LAUNCHES = {  # the tool listens at {folder}/qtest and {folder}/qmp, or hands over connected sockets
    "libqtest": "-qtest unix:{folder}/qtest -qtest-log {folder}/log -chardev socket,path={folder}/qmp,id=char0"
    " -mon chardev=char0,mode=control -display none",
    "QEMUQtestMachine": "-display none -vga none -chardev socket,id=mon,path={folder}/qmp -mon chardev=mon,mode=control"
    " -qtest unix:path={folder}/qtest -qtest-log {folder}/log",
    "descriptors": "-display none -vga none -chardev socket,id=mon,fd={qmp} -mon chardev=mon,mode=control"
    " -chardev socket,id=qtest,fd={qtest} -qtest chardev:qtest -qtest-log {folder}/log",
}


class Launched:
    """The command, launched by a test that holds the other end of two sockets."""

    def __init__(self, folder: Path, line: str) -> None:
        self.log = folder / "log"
        pairs = [socket.socketpair() for _ in "12"]
        fds = [theirs.fileno() for _, theirs in pairs]
        listeners = [_listen(folder / name) for name in ("qtest", "qmp")]
        words = f"{line} {TAIL}".format(folder=folder, qtest=fds[0], qmp=fds[1]).split()
        command = [sys.executable, "-m", "aioemu", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, pass_fds=fds)
        self.irqs: list[str] = []
        self.peers = [ours for ours, _ in pairs] if "fd=" in line else [each.accept()[0] for each in listeners]
        self.qtest, self.qmp = [each.makefile("rwb", buffering=0) for each in self.peers]
        for each in (*listeners, *(one for pair in pairs for one in pair)):
            if each not in self.peers:
                each.close()

    def close(self) -> None:
        """The process is gone, and every descriptor."""
        self.process.kill()
        self.process.communicate()
        self.qtest.close()
        self.qmp.close()
        for each in self.peers:
            each.close()

    def ask(self, line: str) -> str:
        """One line's reply, without the interrupts before it."""
        self.qtest.write(f"{line}\n".encode())
        while (reply := self.qtest.readline().decode().strip()).startswith("IRQ"):
            self.irqs.append(reply)
        return reply


def _listen(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(30)
    made.bind(str(path))
    made.listen(1)
    return made


@pytest.fixture(params=LAUNCHES)
def launched(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Launched]:
    made = Launched(tmp_path, LAUNCHES[request.param])
    yield made
    made.close()


def test_launched_as_tools_do(launched: Launched) -> None:
    """A test listens, launches, drives registers and clock, sees interrupts, and ends it by SIGTERM with status 0."""
    assert b'"QMP"' in launched.qmp.readline()
    assert launched.ask("endianness") == "OK little"
    assert launched.ask("irq_intercept_in ioapic") == "OK"
    # the clock's update interrupt, once a second of the client's time (MC146818A, register B bit 4)
    assert launched.ask("outb 0x70 0x0b") == "OK"
    assert launched.ask("outb 0x71 0x12") == "OK"
    assert launched.irqs == []
    assert launched.ask("clock_step 1000000000") == "OK 1000000000"
    assert launched.irqs == ["IRQ raise 8"]
    assert launched.ask("outb 0x70 0x0c") == "OK"
    assert launched.ask("inb 0x71") == "OK 0x00d0"
    assert launched.irqs == ["IRQ raise 8", "IRQ lower 8"]

    launched.process.terminate()
    assert launched.process.wait(30) == 0
    lines = launched.log.read_text().splitlines()
    assert lines[:2] == ["[R] endianness", "[S] OK little"]
    assert lines[-3:] == ["[R] inb 0x71", "[S] IRQ lower 8", "[S] OK 0x00d0"]


async def test_machine_that_runs_keeps_its_clock() -> None:
    """Beside a running processor qtest reads and writes, but time is the guest's."""
    config = MachineConfig(machine=MachineOptions("q35"), accel=(AccelOptions("qtest"),))
    machine = Machine(config)
    await machine.open()
    machine.accelerator = Manned()
    target = MachineTarget(machine)

    assert target.read_memory(0, 1) == b"\0"
    with pytest.raises(EmuError, match="not -accel qtest"):
        target.advance(1)
    machine.close()


class Manned:
    """An accelerator by another name."""

    name = "tcg"

    def attach(self, machine: object, needs: object) -> None: ...

    def supported(self) -> Sequence[Leaf]:
        return ()

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-qtest", "chardev:nope"], "nope"),
        (["-qtest", "null", "-qtest-log", "/nodir/log"], "-qtest-log /nodir/log"),
    ],
)
def test_what_cannot_be_served_is_named(options: list[str], message: str) -> None:
    """A missing chardev or an impossible log ends the start with one line that names it."""
    done = subprocess.run(
        [sys.executable, "-m", "aioemu", "-M", "q35", "-accel", "qtest", "-display", "none", *options],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
