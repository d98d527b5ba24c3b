"""virtio-console: every byte arrives once and in order, whoever is slow, and a port is what it says it is."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from aioemu.chardev.base import Event
from aioemu.devices.virtio.console import (
    CONSOLE_PORT,
    CONTROL,
    DEVICE_READY,
    MAX_PORTS,
    PENDING_MESSAGES,
    PORT_ADD,
    PORT_NAME,
    PORT_OPEN,
    PORT_READY,
    Port,
    VirtioConsole,
)
from aioemu.errors import ConfigError
from tests.devices.virtio.driver import BUFFERS_AT, NEEDS_RESET, STATUS, Board, Ring, negotiate, set_up_queue

F_MULTIPORT = 1 << 1


class Line:
    """A chardev that takes `limit` bytes and then no more."""

    def __init__(self) -> None:
        self.is_open = True
        self.taken = bytearray()
        self.limit = 1 << 30
        self.accepting = 0

    def write(self, data: bytes) -> int:
        count = min(len(data), self.limit - len(self.taken))
        self.taken += data[:count]
        return count

    def accept_input(self) -> None:
        self.accepting += 1


class Guest:
    """A driver of a device with a console and a port."""

    def __init__(self) -> None:
        self.lines = Line(), Line()
        self.device = VirtioConsole(4)
        self.console = self.device.add(Port(self.lines[0], console=True))
        self.port = self.device.add(Port(self.lines[1], label="org.x"))
        self.board = Board(self.device)
        assert negotiate(self.board, 1 << 32 | F_MULTIPORT)
        self.rings = [set_up_queue(self.board, n, 8, at=0x10000 + n * 0x4000) for n in range(6)]
        self.board.write(STATUS, 0xF)

    def control(self, port: int, event: int, value: int) -> None:
        self.board.memory.write(BUFFERS_AT, CONTROL.pack(port, event, value))
        self.rings[3].add([(BUFFERS_AT, CONTROL.size, False)])
        self.rings[3].kick()
        assert len(self.rings[3].used()) == 1

    def offer(self, ring: Ring, count: int, size: int = 64) -> None:
        for n in range(count):
            ring.add([(BUFFERS_AT + 0x1000 + n * size, size, True)])
        ring.kick()

    def answers(self) -> list[tuple[int, int, int, bytes]]:
        """Control messages that came, in order."""
        found = []
        for number, size in self.rings[2].used():
            place = BUFFERS_AT + 0x1000 + (7 - number) * 64
            data = self.board.memory.read(place, size)
            found.append((*CONTROL.unpack(data[: CONTROL.size]), data[CONTROL.size :]))
        return found

    def send(self, ring: Ring, data: bytes) -> None:
        self.board.memory.write(BUFFERS_AT + 0x8000, data)
        ring.add([(BUFFERS_AT + 0x8000, len(data), False)])
        ring.kick()


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.board.close()


def test_ports_introduce_themselves(guest: Guest) -> None:
    """A driver that is ready hears of each port, and of its name, kind and state when that port is."""
    guest.offer(guest.rings[2], 8)
    guest.control(0xFFFFFFFF, DEVICE_READY, 1)
    guest.control(0, PORT_READY, 1)
    guest.control(1, PORT_READY, 1)
    assert guest.answers() == [
        (0, PORT_ADD, 1, b""),
        (1, PORT_ADD, 1, b""),
        (0, CONSOLE_PORT, 1, b""),
        (0, PORT_OPEN, 1, b""),
        (1, PORT_NAME, 1, b"org.x\0"),
        (1, PORT_OPEN, 1, b""),
    ]


def test_slow_chardev_keeps_the_drivers_buffer(guest: Guest) -> None:
    """Output that is not taken stays with the driver and goes on where it stopped."""
    line = guest.lines[1]
    line.limit = 10
    guest.send(guest.rings[5], b"0123456789abcdef")
    assert guest.rings[5].used() == []
    line.limit = 1 << 30
    guest.port.writable()
    assert bytes(line.taken) == b"0123456789abcdef"
    assert len(guest.rings[5].used()) == 1


def test_input_only_as_far_as_there_is_room(guest: Guest) -> None:
    """Nothing is taken from the chardev while the port is closed or the driver gave no buffer; then it is asked on."""
    assert guest.port.can_receive() == 0
    guest.control(1, PORT_OPEN, 1)
    assert guest.port.can_receive() == 0
    before = guest.lines[1].accepting
    guest.offer(guest.rings[4], 1, 16)
    assert guest.lines[1].accepting > before
    assert guest.port.can_receive() == 16
    guest.port.receive(b"hello")
    assert guest.rings[4].used() == [(7, 5)]
    assert guest.board.memory.read(BUFFERS_AT + 0x1000, 5) == b"hello"
    assert guest.port.can_receive() == 0


def test_host_side_opening_is_told(guest: Guest) -> None:
    """A named port tells its guest when the other side comes and goes; opening in the guest is an event."""
    opened: list[bool] = []
    guest.port.on_open = opened.append
    guest.offer(guest.rings[2], 8)
    guest.control(0, DEVICE_READY, 1)
    guest.answers()
    guest.port.event(Event.CLOSED)
    guest.port.event(Event.OPENED)
    guest.console.event(Event.CLOSED)  # a console is always there
    assert [m[:3] for m in guest.answers()] == [(1, PORT_OPEN, 0), (1, PORT_OPEN, 1)]
    guest.control(1, PORT_OPEN, 1)
    guest.control(1, PORT_OPEN, 1)
    guest.board.write(STATUS, 0)
    assert opened == [True]


def test_a_driver_that_does_not_listen(guest: Guest) -> None:
    """Asking again and again without room for the answers breaks the device, which keeps no more than a bound."""
    guest.control(0, DEVICE_READY, 1)
    asked = 0
    while not guest.board.read(STATUS) & NEEDS_RESET:
        guest.send(guest.rings[3], CONTROL.pack(1, PORT_READY, 1))
        guest.rings[3].used()
        asked += 1
    assert 400 < asked < PENDING_MESSAGES
    assert len(guest.device.pending_bytes) <= PENDING_MESSAGES * 32


@pytest.mark.parametrize("message", [b"", b"\0" * 7, struct.pack("<IHH", 77, 6, 1), struct.pack("<IHH", 1, 99, 99)])
def test_control_messages_that_mean_nothing(guest: Guest, message: bytes) -> None:
    """Short, unknown and misdirected messages are answered by nothing."""
    guest.send(guest.rings[3], message or b"x")
    assert len(guest.rings[3].used()) == 1
    assert not guest.board.read(STATUS) & NEEDS_RESET


def test_port_numbers() -> None:
    """Port 0 is a console's, numbers are given once, and there are at most as many as the device says."""
    device = VirtioConsole(3)
    assert device.add(Port(None)).number == 1
    assert device.add(Port(None, console=True)).number == 0
    for number in (0, 1, 3, 99):
        with pytest.raises(ConfigError):
            device.add(Port(None), number)
    device.add(Port(None, console=True), 2)
    with pytest.raises(ConfigError, match="Out-of-range port id"):
        device.add(Port(None))
    assert VirtioConsole(MAX_PORTS).queues[-1].index == 2 * MAX_PORTS + 1


def test_early_output_without_a_driver(guest: Guest) -> None:
    """A byte written to emerg_wr is printed at once."""
    guest.board.write(0x108, ord("!"))
    assert bytes(guest.lines[0].taken) == b"!"
