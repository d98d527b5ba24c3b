"""PS/2 keyboard: answers the commands by which kernels find and set up one, and sends what is typed (scan code set 2).

Not modelled: typematic repeat, other scan code sets, per-key modes; the commands for them are acknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from aioemu.bus.state import Bytes, Fields, Flag, Int, Optional
from aioemu.bus.wires import Trigger, no_trigger

ACK, PASSED, RESEND, ECHO, OVERRUN = 0xFA, 0xAA, 0xFE, 0xEE, 0x00
IDENT = (0xAB, 0x83)  # an MF2 keyboard
BUFFER_BYTES = 16  # the keyboard's own buffer for keys
ANSWER_BYTES = 16  # answers that wait: a guest that never reads them gets no more
WITH_ARGUMENT = (0xED, 0xF0, 0xF3, 0xFB, 0xFC, 0xFD)  # LEDs, scan code set, rate, key types
PLAIN = (0xF7, 0xF8, 0xF9, 0xFA)  # all keys typematic, make/break, make, all


class Ps2Device(Protocol):
    """What hangs on a port of the controller."""

    changed: Trigger  # the controller: there is something to take

    def command(self, byte: int) -> None:
        """A byte from the host."""

    def take(self) -> int | None:
        """The next byte for the host, if there is one."""

    def reset(self) -> None:
        """Power-on state."""


class Keyboard:
    """One keyboard; `changed` is set by the controller that it is plugged into."""

    state: Fields = {
        "answers": Bytes(ANSWER_BYTES),
        "keys": Bytes(BUFFER_BYTES),
        "argument_of": Optional(Int(0, 255)),
        "last": Int(0, 255),
        "leds": Int(0, 7),
        "scan_set": Int(1, 3),
        "scanning": Flag(),
    }

    def __init__(self) -> None:
        self.changed: Trigger = no_trigger
        self.answers: deque[int] = deque(maxlen=ANSWER_BYTES)
        self.keys: deque[int] = deque()
        self.reset()

    def reset(self) -> None:
        self.answers.clear()
        self.keys.clear()
        self.argument_of: int | None = None
        self.last = 0
        self.leds = 0
        self.scan_set = 2
        self.scanning = True

    def type(self, codes: bytes) -> None:
        """The bytes of one key going down or up; a full buffer loses the key and says so."""
        if not self.scanning:
            return
        if len(self.keys) + len(codes) < BUFFER_BYTES:
            self.keys.extend(codes)
        elif len(self.keys) < BUFFER_BYTES and (not self.keys or self.keys[-1] != OVERRUN):
            self.keys.append(OVERRUN)
        self.changed()

    def take(self) -> int | None:
        """Answers come before keys."""
        queue = self.answers or self.keys
        if not queue:
            return None
        self.last = queue.popleft()
        return self.last

    def command(self, byte: int) -> None:
        """A command, or the argument of the one before."""
        pending, self.argument_of = self.argument_of, None
        if pending is not None and byte < 0xED:
            self._argument(pending, byte)
        else:
            self._command(byte)
        self.changed()

    def _command(self, byte: int) -> None:
        if byte == ECHO:
            self.answers.append(ECHO)
        elif byte == RESEND:
            self.answers.append(self.last)
        elif byte == 0xFF:
            self.reset()
            self.answers.extend((ACK, PASSED))
        elif byte == 0xF2:
            self.answers.extend((ACK, *IDENT))
        elif byte in (0xF4, 0xF5, 0xF6):
            self.keys.clear()
            self.scanning = byte != 0xF5
            self.scan_set = 2 if byte == 0xF6 else self.scan_set
            self.answers.append(ACK)
        elif byte in WITH_ARGUMENT:
            self.argument_of = byte
            self.answers.append(ACK)
        else:
            self.answers.append(ACK if byte in PLAIN else RESEND)

    def _argument(self, command: int, byte: int) -> None:
        if command == 0xED:
            self.leds = byte & 7
        elif command == 0xF0:
            if byte == 0:
                self.answers.extend((ACK, self.scan_set))
                return
            if byte > 3:
                self.answers.append(RESEND)
                return
            self.scan_set = byte
        elif command in (0xFB, 0xFC, 0xFD):
            self.argument_of = command  # a list of keys, until the next command
        self.answers.append(ACK)
