"""One connected stream socket as a chardev: bytes, telnet, file descriptors that come along (SCM_RIGHTS).

Made by a socket chardev, which owns it and learns when it ends. The peer is not trusted: what it sends is read only as
far as the front end has room, and descriptors beyond a bound are closed.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Callable

from aioemu.chardev.base import READ_CHUNK_BYTES, Chardev, Event, log, running_loop
from aioemu.chardev.telnet import GREETING, TelnetDecoder, encode
from aioemu.config import SocketOptions

FDS_PER_MESSAGE = 16  # what one message may carry here
FDS_HELD = 64  # descriptors not collected yet: one command takes one, so this is a client that only sends
DRAIN_BYTES = 1 << 20  # unread input thrown away at close, so that the kernel does not reset what was sent
_FD_SIZE = array.array("i").itemsize


class SocketChannel(Chardev):
    """A connection. `ended` is called once, after the front end's CLOSED."""

    def __init__(self, options: SocketOptions, sock: socket.socket, ended: Callable[[SocketChannel], None]) -> None:
        super().__init__(options)
        sock.setblocking(False)
        self.socket = sock
        self._loop = running_loop()
        self._ended = ended
        self._reading = self._waiting = False
        self._carries_fds = sock.family == socket.AF_UNIX
        self._fds: list[int] = []
        self._telnet = TelnetDecoder() if options.telnet else None
        self._owed = b""  # the second half of a doubled 255
        self._closing = False
        if sock.family in (socket.AF_INET, socket.AF_INET6) and options.nodelay:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._telnet is not None:
            with contextlib.suppress(OSError):
                sock.send(GREETING)

    @property
    def filename(self) -> str:
        return self.id

    def close(self) -> None:
        """Hang up: front end first, then the socket."""
        if self._closing:
            return
        self._closing = True
        self._set_closed()
        self._stop()
        _hang_up(self.socket)
        for fd in self.take_fds():
            os.close(fd)
        self._log = None  # the socket chardev's
        super().close()
        self._ended(self)

    def opened(self) -> None:
        """Begin: the front end is there."""
        self._set_open()
        self.accept_input()

    def take_fds(self) -> list[int]:
        fds, self._fds = self._fds, []
        return fds

    def accept_input(self) -> None:
        if not self._reading and not self._closing and self._room() > 0:
            self._reading = True
            self._loop.add_reader(self.socket.fileno(), self._readable)

    def _stop(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self.socket.fileno())
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self.socket.fileno())

    def _readable(self) -> None:
        room = min(self._room(), READ_CHUNK_BYTES)
        if room <= 0:
            self._reading = False
            self._loop.remove_reader(self.socket.fileno())
            return
        try:
            data = self._receive(room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            log.debug("chardev %s: %s", self.id, exc)
            data = b""
        if not data:
            self.close()
            return
        if self._telnet is not None:
            data = self._telnet.decode(data)
            for _ in range(self._telnet.breaks):
                self._event(Event.BREAK)
            self._telnet.breaks = 0
        if data:
            self._deliver(data)

    def _receive(self, room: int) -> bytes:
        if not self._carries_fds:
            return self.socket.recv(room)
        space = socket.CMSG_SPACE(FDS_PER_MESSAGE * _FD_SIZE)
        data, ancillary, _, _ = self.socket.recvmsg(room, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._keep_fds(payload)
        return data

    def _keep_fds(self, payload: bytes) -> None:
        fds = array.array("i", payload[: len(payload) - len(payload) % _FD_SIZE])
        for fd in fds:
            if len(self._fds) < FDS_HELD:
                self._fds.append(fd)
            else:
                os.close(fd)

    def _send(self, data: bytes) -> int:
        try:
            accepted = self._send_telnet(data) if self._telnet is not None else self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            accepted = 0
        except OSError as exc:
            log.debug("chardev %s: %s", self.id, exc)
            self._loop.call_soon(self.close)  # not now: the front end is in the middle of writing
            return len(data)
        if accepted < len(data) and not self._waiting:
            self._waiting = True
            self._loop.add_writer(self.socket.fileno(), self._sendable)
        return accepted

    def _send_telnet(self, data: bytes) -> int:
        """Send with 255 doubled; the count is of data bytes, half of a pair is owed and goes first next time."""
        if self._owed:
            self._owed = self._owed[self.socket.send(self._owed) :]
        wire = encode(data)
        sent = self.socket.send(wire)
        if sent == len(wire):
            return len(data)
        done = wire[:sent]
        trailing = len(done) - len(done.rstrip(b"\xff"))
        if trailing % 2:
            self._owed = b"\xff"
            done += b"\xff"
        return len(done.replace(b"\xff\xff", b"\xff"))

    def _sendable(self) -> None:
        self._waiting = False
        self._loop.remove_writer(self.socket.fileno())
        self._writable()


def _hang_up(sock: socket.socket) -> None:
    """Close so that the peer reads to the end: unread input would turn the end into a reset."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
        left = DRAIN_BYTES
        while left > 0 and (chunk := sock.recv(min(left, 1 << 16))):
            left -= len(chunk)
    sock.close()
