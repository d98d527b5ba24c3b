"""Several front ends on one back end: all may write, one at a time is typed to, Ctrl-A commands switch.

Each front end gets a port. The port that has the focus receives input; output of all ports goes out as it comes.
Input for a port that has no room is held up to a bound, so that Ctrl-A still works in front of a guest that hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from aioemu.chardev.base import Chardev, Event, Frontend
from aioemu.errors import ConfigError

ESCAPE = 0x01  # Ctrl-A, changed by -echr
PORT_LIMIT = 4  # front ends of one mux, as QEMU's
HELD_INPUT_BYTES = 4096  # typed ahead of a guest that does not read: a screen of paste
_NS_PER_MS = 1_000_000


@dataclass(slots=True)
class MuxKeys:
    """What the keys after Ctrl-A do beyond the mux itself."""

    quit: Callable[[], None] = lambda: None  # x: leave the program
    commit: Callable[[], None] = lambda: None  # s: write disk changes back
    escape: int = ESCAPE


class MuxChardev(Chardev):
    """The mux over `back`, which it opens, closes and reads."""

    multiplexes = True

    def __init__(self, back: Chardev, keys: MuxKeys | None = None) -> None:
        super().__init__(back.options)
        self._log = None  # the back end writes it
        self.back = back
        self.keys = keys if keys is not None else MuxKeys()
        self.ports: list[MuxPort] = []
        self._focus: MuxPort | None = None
        self._escaped = False
        self._started_ns: int | None = None  # with time stamps on: when they began
        self._line_start = True

    @property
    def filename(self) -> str:
        return "mux"

    async def open(self) -> None:
        self.back.connect(_MuxArm(self))
        await self.back.open()

    def close(self) -> None:
        super().close()
        for port in list(self.ports):
            port.close()
        self.back.close()

    def port(self, focus: bool = True) -> MuxPort:
        """A place for one more front end; the first that asks for the focus starts with it."""
        if len(self.ports) >= PORT_LIMIT:
            raise ConfigError(f"chardev {self.id}: too many front ends, at most {PORT_LIMIT}")
        port = MuxPort(self, focus)
        self.ports.append(port)
        if self._focus is None or (focus and not self._focus.wants_focus):
            self.focus(port)
        return port

    def drop(self, port: MuxPort) -> None:
        """A front end leaves. Another has the focus from the next key on: a monitor would greet the machine's end."""
        if port in self.ports:
            self.ports.remove(port)
        if self._focus is port:
            self._focus = None

    def focus(self, port: MuxPort) -> None:
        """Let `port` have the input."""
        before, self._focus = self._focus, port
        if before is not None and before is not port:
            before.pass_on(Event.MUX_OUT)
        port.pass_on(Event.MUX_IN)
        port.accept_input()

    def has_focus(self, port: MuxPort) -> bool:
        """Whether `port` is typed to."""
        return self._focus is port

    def _send(self, data: bytes) -> int:
        return self.back.write(data)

    def send(self, data: bytes) -> int:
        """Output of a port."""
        return self.back.write(data) if self._started_ns is None else self._send_stamped(data)

    def _send_stamped(self, data: bytes) -> int:
        """Lines with the time since stamping began; a stamp and its line's piece go out together or not yet."""
        accepted = 0
        for line in data.splitlines(keepends=True):
            stamp = self._stamp() if self._line_start else b""
            done = self.back.write(stamp) if stamp else 0
            if done < len(stamp):
                break  # a torn stamp on a terminal that is full: the line follows with the next one
            self._line_start = False
            done = self.back.write(line)
            accepted += done
            if done < len(line):
                break
            self._line_start = line.endswith(b"\n")
        return accepted

    def _stamp(self) -> bytes:
        elapsed_ms = (time.monotonic_ns() - (self._started_ns or 0)) // _NS_PER_MS
        seconds, ms = divmod(elapsed_ms, 1000)
        return f"[{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}] ".encode()

    # the back end's side

    def input(self, data: bytes) -> None:
        """Typed input: commands are done here, the rest goes to the port in focus."""
        if self._focus is None and self.ports:
            self.focus(self.ports[0])
        for byte in data:
            if self._escaped:
                self._escaped = False
                self._command(byte)
            elif byte == self.keys.escape:
                self._escaped = True
            elif self._focus is not None:
                self._focus.hold(byte)
        for port in list(self.ports):  # the focus may have moved in the middle
            port.pump()

    def room(self) -> int:
        """Bytes that may be typed now."""
        held = len(self._focus.held) if self._focus is not None else 0
        return max(0, HELD_INPUT_BYTES - held) if self.ports else 0

    def pass_on(self, event: Event) -> None:
        """The back end came, went, or had a break."""
        self.is_open = event is not Event.CLOSED
        for port in list(self.ports):
            if event is not Event.BREAK or port is self._focus:
                port.pass_on(event)

    def room_again(self) -> None:
        """The back end takes output again."""
        for port in list(self.ports):
            port.pass_writable()

    def _command(self, byte: int) -> None:
        key = chr(byte).lower()
        if byte == self.keys.escape:
            if self._focus is not None:
                self._focus.hold(byte)
        elif key == "x":
            self.back.write(b"QEMU: Terminated\n\r")
            self.keys.quit()
        elif key == "c":
            self._rotate()
        elif key == "b":
            if self._focus is not None:
                self._focus.pass_on(Event.BREAK)
        elif key == "s":
            self.keys.commit()
        elif key == "t":
            self._started_ns = None if self._started_ns is not None else time.monotonic_ns()
            self._line_start = False
        elif key in "h?":
            self.back.write(self._help())

    def _rotate(self) -> None:
        if self.ports:
            at = self.ports.index(self._focus) if self._focus in self.ports else -1
            self.focus(self.ports[(at + 1) % len(self.ports)])

    def _help(self) -> bytes:
        name = f"C-{chr(self.keys.escape + 0x60)}" if 0 < self.keys.escape < 27 else f"{self.keys.escape:#x}"
        rows = (
            ("h", "print this help"),
            ("x", "exit emulator"),
            ("s", "save disk data back to file (if -snapshot)"),
            ("t", "toggle console timestamps"),
            ("b", "send break (magic sysrq)"),
            ("c", "switch between console and monitor"),
            (name, f"sends {name}"),
        )
        return b"\n\r" + b"".join(f"{name} {key:<4} {text}\n\r".encode() for key, text in rows)


class MuxPort(Chardev):
    """One front end's view of the mux."""

    def __init__(self, mux: MuxChardev, wants_focus: bool) -> None:
        super().__init__(mux.options)
        self._log = None
        self._mux = mux
        self.wants_focus = wants_focus
        self.held = bytearray()
        self.is_open = mux.is_open

    @property
    def filename(self) -> str:
        return self._mux.filename

    def close(self) -> None:
        self._mux.drop(self)
        super().close()

    def send_break(self) -> None:
        self._mux.back.send_break()

    def accept_input(self) -> None:
        self.pump()
        self._mux.back.accept_input()

    def hold(self, byte: int) -> None:
        """Keep one typed byte for the front end; the mux has seen to the bound."""
        self.held.append(byte)

    def pump(self) -> None:
        """Give the front end what it has room for."""
        while self.held and (room := self._room()) > 0:
            data = bytes(self.held[:room])
            del self.held[:room]  # before the call, which may come back here
            self._deliver(data)

    def connect(self, frontend: Frontend) -> None:
        focused = self._mux.has_focus(self)
        if not focused:
            frontend.event(Event.MUX_OUT)  # first: it greets nobody yet
        super().connect(frontend)
        if focused:
            self._event(Event.MUX_IN)

    def write(self, data: bytes) -> int:
        return self._mux.send(data)

    def pass_on(self, event: Event) -> None:
        """The back end's events, and those of the mux for this front end alone."""
        if event is Event.OPENED:
            self._set_open()
            return
        if event is Event.CLOSED:
            self.is_open = False  # of input; output is the back end's to accept or lose
        self._event(event)

    def pass_writable(self) -> None:
        """Output may go on."""
        self._writable()

    def _send(self, data: bytes) -> int:
        return self._mux.send(data)


class _MuxArm:
    """The mux as the back end's front end."""

    def __init__(self, mux: MuxChardev) -> None:
        self._mux = mux

    def receive(self, data: bytes) -> None:
        self._mux.input(data)

    def can_receive(self) -> int:
        return self._mux.room()

    def event(self, event: Event) -> None:
        self._mux.pass_on(event)

    def writable(self) -> None:
        self._mux.room_again()
