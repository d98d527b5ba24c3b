"""The port of a back end that carries frames over a socket (`core/netsock.c`): which socket, from when to when.

Frames pass natively, with QEMU's framing: on a stream each behind its length in four bytes, most significant first;
else one a datagram. The port is down while there is no socket: the guest has no carrier. Not trusted: the other side.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from aioemu._core import ffi, lib
from aioemu.errors import HostError
from aioemu.netdev.port import Port


class SocketPort(Port):
    """Owns the socket that it is given by `attach`; `on_end` learns why a connection has ended (None: closed)."""

    def __init__(self, io: Any) -> None:
        super().__init__(lib.core_netsock_new(io))
        self.socket: socket.socket | None = None
        self.on_end: Callable[[OSError | None], None] = _ignore
        self._loop = asyncio.get_running_loop()
        self._news = int(lib.core_netsock_news_fd(self.ptr))
        self._loop.add_reader(self._news, self._ended)
        self.set_up(False)

    def attach(self, sock: socket.socket, to: bytes = b"") -> None:
        """Carry frames over (sock) from now on; (to) is where datagrams go if it is not connected."""
        sock.setblocking(False)
        stream = sock.type == socket.SOCK_STREAM
        if stream and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rc = lib.core_netsock_attach(self.ptr, sock.fileno(), stream, to, len(to))
        if rc < 0:
            raise HostError("carry frames over a socket", -rc)
        self.socket = sock
        self.set_up(True)

    def detach(self) -> OSError | None:
        """Let the socket go and close it: why its connection had ended."""
        if self.socket is None:
            return None
        error = -int(lib.core_netsock_detach(self.ptr))
        self.set_up(False)
        self.socket.close()
        self.socket = None
        return OSError(error, os.strerror(error)) if error else None

    def close(self) -> None:
        """Part, free, close the socket; may be called twice."""
        if self.ptr != ffi.NULL:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._news)
            self.part()
            self.detach()
        super().close()

    def _ended(self) -> None:
        if lib.core_netsock_ended(self.ptr):
            self.on_end(self.detach())


def _ignore(why: OSError | None) -> None:
    """Nobody asked."""
