"""Joins a TCP port inside user networking to a chardev: what the guest's connections send goes to the chardev, what the
chardev receives goes to the newest connection.

The library connects to a unix socket in a private folder for each connection of the guest; this is its other end. Both
ways wait for each other: nothing is queued here beyond one read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from aioemu.errors import ConfigError
from aioemu.netdev.registry import NetContext

READ_BYTES = 64 << 10
BACKLOG = 1024  # more than the connections that a guest may have: a connect never waits for this very loop


class ChardevBridge:
    """The front end of one chardev, for any number of connections in turn."""

    def __init__(self, chardev: Any, release: Callable[[], None]) -> None:
        self._chardev = chardev
        self._release = release
        self._folder = tempfile.mkdtemp(prefix="aioemu-guestfwd-")
        self.path = os.path.join(self._folder, "port")
        self._loop = asyncio.get_running_loop()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(self.path)
        self._listener.listen(BACKLOG)
        self._connections: list[socket.socket] = []
        self._unsent = b""  # from the chardev, for the newest connection
        self._waiting: dict[socket.socket, bytes] = {}  # for the chardev, by whom it came from
        self._loop.add_reader(self._listener, self._accept)
        chardev.connect(self)

    @classmethod
    async def open(cls, spec: str, name: str, context: NetContext) -> ChardevBridge:
        """A bridge to the chardev that (spec) describes."""
        if context.chardev is None:
            raise ConfigError(f"guestfwd to '{spec}': there are no chardevs here", "-netdev user")
        chardev, release = await context.chardev(spec, name)
        try:
            return cls(chardev, release)
        except BaseException:
            release()
            raise

    def close(self) -> None:
        """End the connections and give the chardev back."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for each in tuple(self._connections):
            self._end(each)
        self._chardev.disconnect()
        self._release()
        with contextlib.suppress(OSError):
            os.unlink(self.path)
            os.rmdir(self._folder)

    # the guest's side

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        if self._connections:
            self._loop.remove_writer(self._connections[-1])
        self._unsent = b""
        self._connections.append(connection)
        self._loop.add_reader(connection, self._read, connection)
        self._chardev.accept_input()

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(connection)
            return
        self._give(connection, data)

    def _give(self, connection: socket.socket, data: bytes) -> None:
        """Offer the chardev what a connection sent; what it does not take keeps that connection waiting."""
        left = data[self._chardev.write(data) :]
        if left:
            self._waiting[connection] = left
            self._loop.remove_reader(connection)
        elif self._waiting.pop(connection, None) is not None:
            self._loop.add_reader(connection, self._read, connection)

    def _end(self, connection: socket.socket) -> None:
        newest = self._connections[-1] is connection
        self._connections.remove(connection)
        self._waiting.pop(connection, None)
        self._loop.remove_reader(connection)
        self._loop.remove_writer(connection)
        connection.close()
        if newest:
            self._unsent = b""

    # the chardev's side: a front end

    def can_receive(self) -> int:
        """Nothing while there is no connection, or what came before is not sent."""
        return READ_BYTES if self._connections and not self._unsent else 0

    def receive(self, data: bytes) -> None:
        """Send it to the newest connection."""
        self._unsent = data
        self._send()

    def _send(self) -> None:
        connection = self._connections[-1]
        try:
            self._unsent = self._unsent[connection.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._end(connection)
            return
        if self._unsent:
            self._loop.add_writer(connection, self._send)
        else:
            self._loop.remove_writer(connection)
            self._chardev.accept_input()

    def event(self, event: object) -> None:
        """The other side of the chardev came or left: the connections stay, as a terminal line's would."""

    def writable(self) -> None:
        """The chardev takes more."""
        for connection, data in tuple(self._waiting.items()):
            self._give(connection, data)
