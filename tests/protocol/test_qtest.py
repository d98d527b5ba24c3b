"""qtest: the protocol by itself, and a real machine driven over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.config import AccelOptions, MachineConfig, MachineOptions, SocketOptions, UnixAddress
from aioemu.errors import EmuError
from aioemu.machine.machine import Machine
from aioemu.protocol.qtest import QtestSession
from aioemu.protocol.qtest_server import serve
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
