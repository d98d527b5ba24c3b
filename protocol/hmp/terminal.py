"""The text monitor at a prompt: each client of a chardev has its own line, history and chosen processor."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from aioemu.chardev import Chardev, Event
from aioemu.errors import MonitorError
from aioemu.protocol.hmp.interpreter import Interpreter
from aioemu.protocol.hmp.readline import LineEditor
from aioemu.protocol.session import QMP_VERSION, Capability

if TYPE_CHECKING:
    from aioemu.protocol.hub import MonitorHub

PROMPT = "(qemu) "
READ_BYTES = 4096
OUTPUT_LIMIT = 1 << 20  # of unread output: no further command runs


class HmpMonitor:
    """A front end of a chardev that speaks to people."""

    def __init__(self, hub: MonitorHub, chardev: Chardev) -> None:
        self.hub = hub
        self.chardev = chardev
        self._interpreter: Interpreter | None = None
        self._editor = LineEditor(PROMPT, self._complete)
        self._lines: deque[tuple[str, str | None]] = deque()
        self._output = bytearray()
        self._busy = self._blocked = self._deaf = False
        self._muted = False  # another front end of a mux has the terminal
        self._greeting = ""  # not shown yet: the terminal was another's

    # ---- Caller ----------------------------------------------------------------------------------------------------

    def take_fd(self) -> int:
        fds = self.chardev.take_fds()
        if not fds:
            raise MonitorError("No file descriptor supplied via SCM_RIGHTS")
        for fd in fds[1:]:
            os.close(fd)
        return fds[0]

    def negotiate(self, enable: list[Capability]) -> None:
        raise MonitorError("The command qmp_capabilities is for programs")

    # ---- the chardev's side ----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take typed bytes."""
        self._lines += self._editor.feed(data)
        self._pump()

    def can_receive(self) -> int:
        """Nothing while a command runs or its output is not read: the end of input comes after what was before it."""
        waiting = self._busy or self._lines or len(self._output) > OUTPUT_LIMIT
        self._deaf = self._interpreter is None or bool(waiting)
        return 0 if self._deaf else READ_BYTES

    def event(self, event: Event) -> None:
        """Greet whoever comes, forget whoever leaves, ask again when the terminal is back."""
        if event is Event.OPENED:
            self._interpreter = Interpreter(self)
            self._editor = LineEditor(PROMPT, self._complete)
            version = ".".join(str(part) for part in QMP_VERSION)
            self._greeting = f"QEMU {version} monitor - type 'help' for more information\r\n"
            if not self._muted:
                self._greet()
        elif event is Event.CLOSED:
            self._flush()
            self._interpreter = None
            self._lines.clear()
            self._output.clear()
            self._blocked = False
        elif event is Event.MUX_OUT:
            self._muted = True
        elif event is Event.MUX_IN and self._muted:
            self._muted = False
            if self._greeting:
                self._greet()
            else:
                self._write(self._editor.show())

    def _greet(self) -> None:
        self._write(self._greeting + PROMPT)
        self._greeting = ""

    def writable(self) -> None:
        """Go on writing, then with what waited for that."""
        self._blocked = False
        self._flush()
        self._pump()

    # ---- turns -----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._lines and not self._busy and len(self._output) <= OUTPUT_LIMIT:
            printed, line = self._lines.popleft()
            self._write(printed)
            if line is None:
                continue
            if not line.strip():
                self._write(PROMPT)
                continue
            self._busy = True
            self.hub.spawn(self._run(line))
        if self._deaf and self.can_receive():
            self.chardev.accept_input()

    async def _run(self, line: str) -> None:
        interpreter = self._interpreter
        try:
            if interpreter is None:
                return
            interpreter.history = self._editor.history
            text = await interpreter.run(line)
        except Exception as exc:
            text = f"Error: {self.hub.explain(exc, line.split()[0])}\n"
        finally:
            self._busy = False
        if self._interpreter is interpreter:
            self._write(text.replace("\n", "\r\n") + PROMPT)
        self._pump()

    def _complete(self, line: str) -> list[str]:
        return self._interpreter.complete(line) if self._interpreter is not None else []

    # ---- output ----------------------------------------------------------------------------------------------------

    def _write(self, text: str) -> None:
        self._output += text.encode(errors="replace")
        self._flush()

    def _flush(self) -> None:
        while self._output and not self._blocked:
            part = bytes(self._output[:65536])
            sent = self.chardev.write(part)
            self._blocked = sent < len(part)
            del self._output[:sent]
