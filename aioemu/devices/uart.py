"""16550A serial port: the host's side of the chip that `core/uart.c` serves to the guest.

Bytes only: the guest's register accesses never come here, but for a write into a transmitter that is full because the
host is slow; that vCPU waits until there is room, so no byte is lost. Implements a chardev's front end.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from aioemu._core import ffi, lib
from aioemu.bus.deferred import ALL_ONES, Answer, Deferred
from aioemu.bus.registers import access
from aioemu.bus.state import Bytes, State, parse_fields
from aioemu.chardev.base import Event
from aioemu.devices.native import load_chip, save_chip
from aioemu.errors import EmuError

PORTS = 8
TX_RING_BYTES = 64 * 1024  # as in uart_host.c: what the host may be behind
RX_RING_BYTES = 4 * 1024
WAITING_BYTES = 255  # one per vCPU that can wait
BREAK = 0x40  # in `lines`
STATE = {
    "chip": Bytes(256),
    "to_host": Bytes(2 * TX_RING_BYTES),  # the ring, and what was taken from it but not accepted
    "to_guest": Bytes(RX_RING_BYTES),
    "waiting": Bytes(WAITING_BYTES),
}


class Line(Protocol):
    """The other end of the cable; a chardev is one."""

    def write(self, data: bytes) -> int:
        """Send; how many bytes were accepted. After a short count `Uart.writable` is called."""

    def accept_input(self) -> None:
        """There is room for input again."""

    def send_break(self) -> None:
        """The guest signals a break."""


class Nowhere:
    """A port without a cable: output is lost, nothing comes in."""

    def write(self, data: bytes) -> int:
        return len(data)

    def accept_input(self) -> None:
        """Nothing comes."""

    def send_break(self) -> None:
        """Nobody sees it."""


class Uart:
    """One port. The board places it, wires its line with `core_chip_wire` and calls `notified` on its notifications."""

    size = PORTS

    def __init__(self, line: Line | None = None) -> None:
        self.line: Line = line or Nowhere()
        self.chip = ffi.gc(lib.core_uart_new(), lib.core_chip_free)
        if self.chip == ffi.NULL:
            raise EmuError("serial port: out of memory")
        self._unsent = b""
        self._waiting: deque[tuple[int, Deferred]] = deque()
        self._blocked = False  # the line was told that there is no room
        self._lines = self.lines

    # ---- the bus's side ----------------------------------------------------------------------------------------------

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        """A byte for a full transmitter: the guest goes on when there is room for it."""
        if not is_write:
            return ALL_ONES
        later = Deferred()
        self._waiting.append((value & 0xFF, later))
        self._release()
        return later

    def notified(self) -> None:
        """The chip has news: output, room for input, or another state of the lines."""
        self._send()
        lines, self._lines = self._lines, self.lines
        if self._lines & ~lines & BREAK:
            self.line.send_break()
        if self._blocked and lib.core_uart_space(self.chip) > 0:
            self._blocked = False
            self.line.accept_input()

    def read(self, offset: int, size: int = 1) -> int:
        """Read as the guest does."""
        return access(self, offset, size, False)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write as the guest does."""
        access(self, offset, size, True, value)

    # ---- the line's side ---------------------------------------------------------------------------------------------

    def connect(self, line: Line) -> None:
        """Plug in another cable; what waits goes out through it."""
        self.line = line
        self._send()

    def receive(self, data: bytes) -> None:
        """Input for the guest, at most as long as `can_receive` said."""
        self.feed(data)

    def can_receive(self) -> int:
        """Room for input; after 0, the line's `accept_input` is called when there is some."""
        space = int(lib.core_uart_space(self.chip))
        self._blocked = space == 0
        return space

    def writable(self) -> None:
        """The line takes output again."""
        self._send()

    def event(self, event: Event) -> None:
        """A break from the line becomes one in the receiver."""
        if event is Event.BREAK:
            lib.core_uart_break(self.chip)

    def feed(self, data: bytes) -> int:
        """Send bytes to the guest; how many were accepted."""
        return int(lib.core_uart_feed(self.chip, data, len(data)))

    def take(self, most: int = TX_RING_BYTES) -> bytes:
        """Take what the guest sent, oldest first."""
        buffer = ffi.new("uint8_t[]", min(most, int(lib.core_uart_pending(self.chip))) or 1)
        count = lib.core_uart_take(self.chip, buffer, min(most, len(buffer)))
        self._release()
        return bytes(ffi.buffer(buffer, count))

    @property
    def lines(self) -> int:
        """What the guest drives: DTR, RTS, OUT1, OUT2 in bits 0..3, break in bit 6."""
        return int(lib.core_uart_lines(self.chip))

    def set_modem(self, lines: int) -> None:
        """Drive CTS, DSR, RI, DCD: bits 4..7 as in MSR."""
        lib.core_uart_modem(self.chip, lines & 0xF0)

    def _send(self) -> None:
        """Hand output on until the line takes no more; the chip tells when there is more after that."""
        if not self._unsent or self._write(self._unsent):
            self._write(self.take())

    def _write(self, data: bytes) -> bool:
        self._unsent = data[self.line.write(data) :] if data else b""
        return not self._unsent

    def _release(self) -> None:
        """Let the vCPUs go that wait with a byte, in their order, as far as there is room."""
        while self._waiting:
            byte, later = self._waiting[0]
            if lib.core_uart_push(self.chip, byte) < 0:
                return
            self._waiting.popleft()
            if not later.done:
                later.complete(0)

    # ---- state -------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """The chip's reset; what was sent before it still arrives."""
        self._waiting.clear()
        lib.core_chip_reset(self.chip)

    def save(self) -> State:
        """Registers, FIFOs and the bytes on their way in both directions."""
        values = {
            "chip": save_chip(self.chip),
            "to_host": self._unsent + self._peek(False, TX_RING_BYTES),
            "to_guest": self._peek(True, RX_RING_BYTES),
            "waiting": bytes(byte for byte, _ in self._waiting),
        }
        return {name: STATE[name].dump(value) for name, value in values.items()}

    def load(self, state: Any) -> None:
        """Take over a saved state, or StateError and nothing changed."""
        values = parse_fields(STATE, state, "serial port")
        load_chip(self.chip, values["chip"], "serial port")
        output = values["to_host"]
        self._unsent, ring = output[:-TX_RING_BYTES], output[-TX_RING_BYTES:]
        lib.core_uart_restore(self.chip, False, ring, len(ring))
        lib.core_uart_restore(self.chip, True, values["to_guest"], len(values["to_guest"]))
        self._waiting = deque((byte, Deferred()) for byte in values["waiting"])
        self._lines = self.lines

    def _peek(self, received: bool, most: int) -> bytes:
        buffer = ffi.new("uint8_t[]", most)
        return bytes(ffi.buffer(buffer, lib.core_uart_peek(self.chip, received, buffer, most)))
