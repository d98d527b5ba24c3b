"""A character device joins one front end (serial port, virtio console, monitor) to one place on the host.

Everything is called on the loop's thread. Output is accepted by count and never queued here: what was not accepted
stays with the front end until `writable`. Input is offered only as far as `can_receive` allows. Not here: sharing
(mux, hub), options (aioemu.config), the choice of back end (table).
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from aioemu.config import ChardevOptions
from aioemu.errors import HostError
from aioemu.log import Log

READ_CHUNK_BYTES = 64 << 10  # one read's upper bound: keeps a flood of input from holding the loop
log = Log("chardev")


class Event(Enum):
    """What happens to a chardev besides data."""

    OPENED = "opened"  # the other side is there
    CLOSED = "closed"  # the other side left
    BREAK = "break"  # a line break came in
    MUX_IN = "mux-in"  # this front end has the terminal now
    MUX_OUT = "mux-out"  # this front end lost the terminal


class Frontend(Protocol):
    """The machine's side of a chardev."""

    def receive(self, data: bytes) -> None:
        """Take `data`, at most as long as the last `can_receive` said."""

    def can_receive(self) -> int:
        """How many bytes `receive` may bring now; after 0, call the chardev's `accept_input` when it grows."""

    def event(self, event: Event) -> None:
        """Learn of `event`."""

    def writable(self) -> None:
        """Try again: a `write` that fell short may now go on."""


FrontendFactory = Callable[["Chardev"], Frontend]


class Chardev(ABC):
    """One back end. `open` starts it, `connect` gives it its front end, `close` frees what it holds."""

    multiplexes = False  # several front ends may claim it

    def __init__(self, options: ChardevOptions) -> None:
        self.options = options
        self.id = options.id
        self.frontend: Frontend | None = None
        self.is_open = False  # the other side is there: output goes somewhere
        self._log: OutputLog | None = None

    def log_to(self, log_file: OutputLog | None) -> None:
        """Copy output to a log, which connections may share."""
        self._log = log_file

    @property
    @abstractmethod
    def filename(self) -> str:
        """The back end as `query-chardev` shows it."""

    @property
    def frontend_open(self) -> bool:
        return self.frontend is not None

    async def open(self) -> None:
        """Start the back end; returns when it can be used (a waiting server: when its client came)."""
        self._set_open()

    def close(self) -> None:
        """Free everything; never fails, may be called twice."""
        self._set_closed()
        self.frontend = None
        if self._log is not None:
            self._log.close()

    def connect(self, frontend: Frontend) -> None:
        """Give this chardev its front end, which learns at once whether the other side is there."""
        self.frontend = frontend
        if self.is_open:
            frontend.event(Event.OPENED)
        self.accept_input()

    def disconnect(self) -> None:
        """Take the front end away; input waits on the host's side until there is another one."""
        self.frontend = None

    def serve(self, factory: FrontendFactory) -> None:
        """Give each client its own front end where the back end has clients; else there is one, for good."""
        self.connect(factory(self))

    def write(self, data: bytes) -> int:
        """Send `data`; returns how much was accepted. Less than all: wait for the front end's `writable`.

        Without anybody on the other side, output is accepted and lost, as on a real line.
        """
        accepted = self._send(data) if self.is_open else len(data)
        if self._log is not None and accepted:
            self._log.put(data[:accepted])
        return accepted

    @abstractmethod
    def _send(self, data: bytes) -> int:
        """Send what can be sent now; a short count promises `_writable` later."""

    def accept_input(self) -> None:  # noqa: B027 most back ends give no input
        """Go on reading: the front end has room again."""

    def send_break(self) -> None:  # noqa: B027 most lines have none
        """Send a line break where the line has such a thing."""

    def take_fds(self) -> list[int]:
        """File descriptors that came with the input so far; the caller owns them."""
        return []

    def _room(self) -> int:
        """Bytes of input that may be delivered now."""
        return self.frontend.can_receive() if self.frontend is not None else 0

    def _deliver(self, data: bytes) -> None:
        if self.frontend is not None:
            self.frontend.receive(data)

    def _event(self, event: Event) -> None:
        if self.frontend is not None:
            self.frontend.event(event)

    def _writable(self) -> None:
        if self.frontend is not None:
            self.frontend.writable()

    def _set_open(self) -> None:
        if not self.is_open:
            self.is_open = True
            self._event(Event.OPENED)

    def _set_closed(self) -> None:
        if self.is_open:
            self._event(Event.CLOSED)  # first, so that last words can still be written
            self.is_open = False
            self._writable()  # output that waited is let go


class OutputLog:
    """A copy of the output in a file. A full disk loses the copy, not the guest."""

    def __init__(self, options: ChardevOptions, open_file: Callable[[str, int, int], int] = os.open) -> None:
        self.path = options.logfile or ""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if options.logappend else os.O_TRUNC)
        try:
            self._fd = open_file(self.path, flags, 0o666)
        except OSError as exc:
            raise HostError(f"chardev {options.id}: logfile {self.path}", exc.errno) from exc

    def put(self, data: bytes) -> None:
        """Append `data`."""
        view = memoryview(data)
        try:
            while view and self._fd >= 0:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            log.warning("logfile %s: %s; no longer written", self.path, exc.strerror)
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop that back ends register with."""
    return asyncio.get_running_loop()
