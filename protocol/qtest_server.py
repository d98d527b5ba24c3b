"""qtest on a chardev, driving a machine that has no processor of its own (accel qtest).

Memory is RAM where there is some and registers elsewhere. The client owns the machine's clock from its first byte on.
Not here: which interrupt lines can be watched, which is the machine's to say (attribute `qtest_lines`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aioemu.bus.wires import MMIO, PIO
from aioemu.chardev import Chardev, Event
from aioemu.errors import EmuError, GuestError
from aioemu.protocol.qtest import QtestSession

if TYPE_CHECKING:
    from aioemu.machine.machine import Machine

READ_BYTES = 64 << 10
OUTPUT_LIMIT = 32 << 20  # of unread replies: no more commands are read
ACCESS_BYTES = 8  # widest register access


class MachineTarget:
    """A machine as a test drives it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.clock.own()

    def read_port(self, port: int, size: int) -> int:
        return self.machine.native.router.read(PIO, port, size)

    def write_port(self, port: int, size: int, value: int) -> None:
        self.machine.native.router.write(PIO, port, size, value)

    def read_memory(self, address: int, size: int) -> bytes:
        try:
            return self.machine.memory.read(address, size)
        except GuestError:
            parts = (
                self.machine.native.router.read(MMIO, at, width).to_bytes(width, "little")
                for at, width in _accesses(address, size)
            )
            return b"".join(parts)

    def write_memory(self, address: int, data: bytes) -> None:
        try:
            self.machine.memory.write(address, data)
        except GuestError:
            for at, width in _accesses(address, len(data)):
                value = int.from_bytes(data[at - address : at - address + width], "little")
                self.machine.native.router.write(MMIO, at, width, value)

    def now_ns(self) -> int:
        return self.machine.clock.now_ns()

    def next_deadline_ns(self) -> int | None:
        return self.machine.clock.next_deadline_ns()

    def advance(self, to_ns: int) -> int:
        return self.machine.clock.advance(to_ns)

    def lines(self, path: str, outputs: bool) -> Callable[[], Sequence[bool]] | None:
        watch = getattr(self.machine, "qtest_lines", None)
        return watch(path, outputs) if watch is not None else None

    def set_line(self, path: str, name: str, number: int, level: int) -> None:
        raise EmuError(f"set_irq_in: device {path} has no inputs that can be driven")


class QtestFrontend:
    """A front end of a chardev that speaks qtest."""

    def __init__(self, chardev: Chardev, machine: Machine) -> None:
        self.chardev = chardev
        self._session = QtestSession(MachineTarget(machine))
        self._output = bytearray()
        self._blocked = False

    def receive(self, data: bytes) -> None:
        """Carry out the lines of (data)."""
        self._output += self._session.feed(data)
        self._flush()

    def can_receive(self) -> int:
        """Nothing while the client does not read."""
        return READ_BYTES if len(self._output) <= OUTPUT_LIMIT else 0

    def event(self, event: Event) -> None:
        """Forget what a client that left did not read."""
        if event is Event.CLOSED:
            self._output.clear()
            self._blocked = False

    def writable(self) -> None:
        """Go on writing, then reading."""
        self._blocked = False
        self._flush()
        self.chardev.accept_input()

    def _flush(self) -> None:
        while self._output and not self._blocked:
            part = bytes(self._output[:65536])
            sent = self.chardev.write(part)
            self._blocked = sent < len(part)
            del self._output[:sent]


def serve(chardev: Chardev, machine: Machine) -> None:
    """Speak qtest on (chardev): one client after the other, one state."""
    chardev.connect(QtestFrontend(chardev, machine))


def _accesses(address: int, size: int) -> list[tuple[int, int]]:
    """How a block of registers is touched: naturally aligned, at most ACCESS_BYTES wide."""
    accesses = []
    while size:
        width = min(ACCESS_BYTES, address & -address if address else ACCESS_BYTES)
        while width > size:
            width >>= 1
        accesses.append((address, width))
        address += width
        size -= width
    return accesses
