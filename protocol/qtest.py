"""The qtest protocol: a client plays the processor and owns the clock; lines in, lines out, no I/O here.

Replies are `OK`, `OK value` or `FAIL why`; `IRQ raise N` and `IRQ lower N` of an intercepted interrupt controller come
before the reply of the command that caused them. Numbers are C's (0x, 0, decimal). What the client may ask for is
bounded: it is a test, but a test can be wrong.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from aioemu.errors import EmuError

LINE_LIMIT = 64 << 20  # bytes: the longest `write` with its data
TRANSFER_LIMIT = 16 << 20  # bytes of memory in one command
MASK = (1 << 64) - 1
_NUMBER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_PORT_SIZES = {"b": 1, "w": 2, "l": 4}
_MEMORY_SIZES = {"b": 1, "w": 2, "l": 4, "q": 8}


class QtestTarget(Protocol):
    """The machine as a test drives it. Failures are EmuErrors."""

    def read_port(self, port: int, size: int) -> int: ...

    def write_port(self, port: int, size: int, value: int) -> None: ...

    def read_memory(self, address: int, size: int) -> bytes:
        """RAM or device registers; nothing there reads as the bus does."""

    def write_memory(self, address: int, data: bytes) -> None: ...

    def now_ns(self) -> int: ...

    def next_deadline_ns(self) -> int | None:
        """When the next timer is due; None when none is armed."""

    def advance(self, to_ns: int) -> int:
        """Move the clock, firing what falls due on the way; the time now."""

    def lines(self, path: str, outputs: bool) -> Callable[[], Sequence[bool]] | None:
        """What reads the levels of a controller's lines; None for a device that has none to watch."""

    def set_line(self, path: str, name: str, number: int, level: int) -> None:
        """Drive a device's input."""


class QtestError(Exception):
    """A command that cannot be carried out, in the words of its reply."""


class QtestSession:
    """One client's lines against one machine."""

    def __init__(self, target: QtestTarget, tell: Callable[[str, str], None] | None = None) -> None:
        self.target = target
        self._tell = tell
        self._input = bytearray()
        self._levels: Callable[[], Sequence[bool]] | None = None
        self._watched = ("", False)
        self._last: list[bool] = []

    def feed(self, data: bytes) -> bytes:
        """Take input; the replies to the lines that it completes."""
        self._input += data
        end = self._input.rfind(b"\n") + 1
        if not end:
            if len(self._input) > LINE_LIMIT:
                self._input.clear()
                return b"FAIL line too long\n"
            return b""
        lines = bytes(self._input[:end]).decode("latin-1").splitlines()
        del self._input[:end]
        return "".join(self._reply(line) for line in lines if line.strip()).encode("latin-1", "replace")

    def _reply(self, line: str) -> str:
        words = line.split()
        try:
            reply = self._run(words[0], words[1:])
        except (QtestError, EmuError) as exc:
            reply = f"FAIL {exc}"
        whole = f"{self._news()}{reply}\n"
        if self._tell is not None:
            self._tell(line, whole)
        return whole

    def _run(self, name: str, words: list[str]) -> str:
        if name in _COMMANDS:
            low, high, run = _COMMANDS[name]
            if not low <= len(words) <= high:
                raise QtestError(f"{name}: {low} to {high} arguments, not {len(words)}")
            return run(self, words)
        kind, size = name[:-1], name[-1:]
        if kind in ("in", "out") and size in _PORT_SIZES:
            return self._port(kind, _PORT_SIZES[size], words)
        if kind in ("read", "write") and size in _MEMORY_SIZES:
            return self._memory(kind, _MEMORY_SIZES[size], words)
        raise QtestError(f"Unknown command '{name}'")

    def _port(self, kind: str, size: int, words: list[str]) -> str:
        numbers = _numbers(words, 1 if kind == "in" else 2)
        port = numbers[0] & 0xFFFF
        if kind == "in":
            return f"OK 0x{self.target.read_port(port, size):04x}"
        self.target.write_port(port, size, numbers[1] & (1 << size * 8) - 1)
        return "OK"

    def _memory(self, kind: str, size: int, words: list[str]) -> str:
        numbers = _numbers(words, 1 if kind == "read" else 2)
        if kind == "read":
            return f"OK 0x{int.from_bytes(self.target.read_memory(numbers[0], size), 'little'):016x}"
        self.target.write_memory(numbers[0], (numbers[1] & (1 << size * 8) - 1).to_bytes(size, "little"))
        return "OK"

    # ---- blocks of memory ------------------------------------------------------------------------------------------

    def _read(self, words: list[str]) -> str:
        return f"OK 0x{self.target.read_memory(*_range(words)).hex()}"

    def _write(self, words: list[str]) -> str:
        address, size = _range(words)
        digits = words[2].removeprefix("0x")
        try:
            data = bytes.fromhex(digits)[:size]
        except ValueError as exc:
            raise QtestError("write: the data are not hexadecimal") from exc
        self.target.write_memory(address, data.ljust(size, b"\0"))
        return "OK"

    def _b64read(self, words: list[str]) -> str:
        return f"OK {base64.b64encode(self.target.read_memory(*_range(words))).decode()}"

    def _b64write(self, words: list[str]) -> str:
        address, size = _range(words)
        try:
            data = base64.b64decode(words[2], validate=True)[:size]
        except (binascii.Error, ValueError) as exc:
            raise QtestError("b64write: the data are not base64") from exc
        self.target.write_memory(address, data.ljust(size, b"\0"))
        return "OK"

    def _memset(self, words: list[str]) -> str:
        address, size = _range(words)
        self.target.write_memory(address, bytes([_numbers(words[2:], 1)[0] & 0xFF]) * size)
        return "OK"

    # ---- time ------------------------------------------------------------------------------------------------------

    def _clock_step(self, words: list[str]) -> str:
        now = self.target.now_ns()
        if words:
            return f"OK {self.target.advance(now + max(0, _signed(words[0])))}"
        due = self.target.next_deadline_ns()
        return f"OK {self.target.advance(max(now, due)) if due is not None else now}"

    def _clock_set(self, words: list[str]) -> str:
        return f"OK {self.target.advance(max(self.target.now_ns(), _signed(words[0])))}"

    # ---- interrupts ------------------------------------------------------------------------------------------------

    def _intercept_in(self, words: list[str]) -> str:
        return self._intercept(words[0], False)

    def _intercept_out(self, words: list[str]) -> str:
        return self._intercept(words[0], True)

    def _intercept(self, path: str, outputs: bool) -> str:
        if self._levels is not None:
            if self._watched == (path, outputs):
                return "OK"
            raise QtestError("IRQ intercept already enabled")
        self._levels = self.target.lines(path, outputs)
        if self._levels is None:
            raise QtestError("Unknown device")
        self._watched = (path, outputs)
        self._last = list(self._levels())
        return "OK"

    def _set_irq_in(self, words: list[str]) -> str:
        number, level = _numbers(words[2:], 2)
        self.target.set_line(words[0], "" if words[1] == "unnamed-gpio-in" else words[1], number, level)
        return "OK"

    def _news(self) -> str:
        """The lines that changed since the last reply."""
        if self._levels is None:
            return ""
        before, self._last = self._last, list(self._levels())
        changed = [number for number, level in enumerate(self._last) if level != before[number]]
        return "".join(f"IRQ {'raise' if self._last[number] else 'lower'} {number}\n" for number in changed)

    def _endianness(self, words: list[str]) -> str:
        return "OK little"

    def _module_load(self, words: list[str]) -> str:
        return "OK"  # nothing here is in a module of its own


_COMMANDS: dict[str, tuple[int, int, Callable[[QtestSession, list[str]], str]]] = {
    "endianness": (0, 0, QtestSession._endianness),
    "read": (2, 2, QtestSession._read),
    "write": (3, 3, QtestSession._write),
    "b64read": (2, 2, QtestSession._b64read),
    "b64write": (3, 3, QtestSession._b64write),
    "memset": (3, 3, QtestSession._memset),
    "clock_step": (0, 1, QtestSession._clock_step),
    "clock_set": (1, 1, QtestSession._clock_set),
    "irq_intercept_in": (1, 1, QtestSession._intercept_in),
    "irq_intercept_out": (1, 1, QtestSession._intercept_out),
    "set_irq_in": (4, 4, QtestSession._set_irq_in),
    "module_load": (2, 2, QtestSession._module_load),
}


def _numbers(words: list[str], count: int) -> list[int]:
    if len(words) != count:
        raise QtestError(f"{count} numbers expected, not {len(words)}")
    return [_signed(word) & MASK for word in words]


def _signed(word: str) -> int:
    match = _NUMBER.fullmatch(word)
    if match is None or len(word) > 24:
        raise QtestError(f"{word[:24]!r} is no number")
    sign, digits = match.groups()
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xX"
    value = int(digits, 8 if octal else 0)
    return -value if sign == "-" else value


def _range(words: list[str]) -> tuple[int, int]:
    address, size = _numbers(words[:2], 2)
    if not 0 < size <= TRANSFER_LIMIT or address + size > MASK + 1:
        raise QtestError(f"size {size}: not in 1 to {TRANSFER_LIMIT}, or beyond the address space")
    return address, size
