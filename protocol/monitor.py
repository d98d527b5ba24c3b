"""A QMP client on a chardev: reads, runs its commands one after the other, writes answers and events.

What the client does not read waits in a bounded buffer: beyond the first bound its commands wait, beyond the second it
is cut off. A short request is answered at once; long ones and many together wait for their turn among the clients that
sent such. A command that is running when its client leaves runs to its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from aioemu.chardev import Chardev, Event
from aioemu.errors import MonitorError
from aioemu.protocol.session import Call, Capability, Session

if TYPE_CHECKING:
    from aioemu.protocol.hub import MonitorHub

READ_BYTES = 4 << 10  # what one read may bring: some dozens of requests ...
PART_BYTES = 64 << 10  # ... or a part of one that is long
WRITE_BYTES = 256 << 10  # what one write may take
PROMPT_BYTES = 512  # input up to this size is looked at when it comes ...
PROMPT = 8  # ... and so many requests in it are answered before others get their turn
TURN = 64  # requests answered in a turn
BUSY_BYTES = 64 << 10  # of unread output: no further command of this client runs
CUT_BYTES = 16 << 20  # of unread output: the client gets no further event, it is given up
CUT_TOTAL_BYTES = 64 << 20  # ... and earlier than that, where many clients do not read
CUT_LEAST_BYTES = 256 << 10  # but not below what an answer may have
FDS_HELD = 64  # descriptors that no command has asked for


class Caller(Protocol):
    """Who calls a command, for the few commands that care."""

    hub: MonitorHub

    def take_fd(self) -> int:
        """The oldest descriptor sent along, now the caller's. MonitorError if there is none."""

    def negotiate(self, enable: list[Capability]) -> None:
        """End the negotiation."""


class QmpMonitor:
    """A front end of a chardev that speaks QMP."""

    def __init__(self, hub: MonitorHub, chardev: Chardev, pretty: bool = False) -> None:
        self.hub = hub
        self.chardev = chardev
        self._pretty = pretty
        self._session: Session | None = None
        self._output = bytearray()
        self._fds: list[int] = []
        self._busy = False  # a command of the queue is running
        self._pumping = False
        self._unseen = b""  # input that waits for its turn
        self._deaf = False  # told the chardev to read no more
        self._blocked = False  # the chardev took less than it was given

    # ---- Caller ----------------------------------------------------------------------------------------------------

    def take_fd(self) -> int:
        self._collect_fds()
        if not self._fds:
            raise MonitorError("No file descriptor supplied via SCM_RIGHTS")
        return self._fds.pop(0)

    def negotiate(self, enable: list[Capability]) -> None:
        assert self._session is not None  # it is the session's own request
        self._session.negotiate(enable)

    # ---- the chardev's side ----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take input; do what it asks for if that is little, else when it is this client's turn."""
        if self._session is None:
            return
        if len(data) <= PROMPT_BYTES and not self._unseen:
            self._session.feed(data)
            self._pump(PROMPT)
        else:
            self._unseen += data
            self.hub.turns.take(self)

    def can_receive(self) -> int:
        """Nothing while enough waits in either direction.

        Without out-of-band commands one request that waits is enough: what is not read stays with the client's kernel,
        and so does its end, so that everything a client says before it leaves is done and answered.
        """
        session = self._session
        if session is None or self._unseen or len(self._output) > BUSY_BYTES:
            self._deaf = True
        else:
            self._deaf = session.full if session.oob else self._busy or session.queued > 0
        if self._deaf:
            return 0
        return PART_BYTES if session is not None and session.in_value else READ_BYTES

    def event(self, event: Event) -> None:
        """Greet whoever connects; forget whoever leaves."""
        if event is Event.OPENED:
            self._session = Session(self.hub.registry, self.hub.package, self._pretty)
            self.hub.sessions.add(self)
            self._write(self._session.greeting())
        elif event is Event.CLOSED:
            self._flush()
            self._forget()

    def writable(self) -> None:
        """Go on writing, then with what waited for that."""
        self._blocked = False
        self._flush()
        self._pump(PROMPT)

    # ---- the machine's side ----------------------------------------------------------------------------------------

    def tell(self, fields: dict[str, Any]) -> None:
        """Send an event, if the client has negotiated."""
        if self._session is None:
            return
        if len(self._output) > CUT_LEAST_BYTES and len(self._output) > self._most_unread():
            self.hub.log.warning("monitor %s: the client does not read its events; cut off", self.chardev.id)
            self._forget()
            self.hub.loop.call_soon(self.chardev.close)
            return
        self._write(self._session.event(fields))

    def _most_unread(self) -> int:
        return min(CUT_BYTES, CUT_TOTAL_BYTES // len(self.hub.sessions))

    # ---- turns -----------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Go on with what waited for this client's turn."""
        data, self._unseen = self._unseen, b""
        if self._session is not None and data:
            self._session.feed(data)
        self._pump(TURN)

    def _pump(self, left: int) -> None:
        """Do what can be done now, at most (left) requests of it."""
        session = self._session
        if session is None or self._pumping:
            return
        self._pumping = True
        try:
            while left and self._session is session and len(self._output) <= BUSY_BYTES:
                todo = session.next(self._busy)
                if todo is None:
                    break
                left -= 1
                if isinstance(todo, bytes):
                    self._output += todo
                else:
                    self._start(session, todo)
        finally:
            self._pumping = False
        self._flush()
        if session.queued and not (self._busy and left) and len(self._output) <= BUSY_BYTES:
            self.hub.turns.take(self)
        elif self._deaf and self.can_receive():
            self.chardev.accept_input()

    def _start(self, session: Session, call: Call) -> None:
        """Answer a call at once, or begin it."""
        try:
            work = call.command.bind(self.hub.machine, self, call.arguments)
            reply = b"" if call.command.is_async else session.answer(call, work())
        except Exception as exc:
            self._output += session.refusal(call, self.hub.explain(exc, call.command.name))
            return
        if call.command.is_async:
            self._busy = self._busy or not call.oob
            self.hub.spawn(self._finish(session, call, work))
        else:
            self._output += reply

    async def _finish(self, session: Session, call: Call, work: Callable[[], Any]) -> None:
        """Wait for a command's end, answer it if its client is still there, go on with the queue."""
        try:
            reply = session.answer(call, await work())
        except Exception as exc:
            reply = session.refusal(call, self.hub.explain(exc, call.command.name))
        finally:
            if not call.oob:
                self._busy = False
        if self._session is session:
            self._write(reply)
        self._pump(PROMPT)

    # ---- output and descriptors ------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        self._output += data
        if not self._pumping:
            self._flush()

    def _flush(self) -> None:
        output = self._output
        while output and not self._blocked:
            part = bytes(memoryview(output)[:WRITE_BYTES])
            sent = self.chardev.write(part)
            self._blocked = sent < len(part)
            del output[:sent]

    def _collect_fds(self) -> None:
        self._fds += self.chardev.take_fds()
        while len(self._fds) > FDS_HELD:
            os.close(self._fds.pop())

    def _forget(self) -> None:
        self._session = None
        self._unseen = b""
        self._output.clear()
        self._blocked = False
        self.hub.sessions.discard(self)
        self._collect_fds()
        while self._fds:
            os.close(self._fds.pop())
