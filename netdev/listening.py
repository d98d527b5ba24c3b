"""Listening stream sockets of back ends: a unix socket accepts before its path appears, and takes it away again."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat

from aioemu.config import TcpAddress, UnixAddress
from aioemu.errors import HostError
from aioemu.netdev.addresses import check_path, describe, resolve

BACKLOG = 128  # who waits for the one connection that there is at a time


class Listener:
    """A listening socket; `path` is what it takes away at its end, if it is still its own."""

    def __init__(self, listening: socket.socket, path: str | None = None) -> None:
        self.socket = listening
        self._path = path
        self._identity = _identity(path) if path is not None else None

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if _identity(self._path) == self._identity:
                    os.unlink(self._path)


async def listen(address: UnixAddress | TcpAddress) -> Listener:
    """Listen there; `to` allows later TCP ports. HostError says why not."""
    if isinstance(address, UnixAddress) and not address.abstract:
        return _listen_at(address.path)
    error: OSError | None = None
    for family, name in await resolve(address, socket.SOCK_STREAM, passive=True):
        ports = range(name[1], (address.to or name[1]) + 1) if isinstance(address, TcpAddress) else range(1)
        for port in ports:
            try:
                return Listener(_listening(family, (name[0], port) if isinstance(address, TcpAddress) else name))
            except OSError as exc:
                error = exc
    raise HostError(f"listen at {describe(address)}", error.errno if error else None) from error


def _listening(family: int, name: object) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family != socket.AF_UNIX:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(name)  # type: ignore[arg-type]
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _listen_at(given: str) -> Listener:
    """Listen under a name beside the path, then move it there: nobody is refused in between."""
    path = os.path.abspath(given)
    _refuse_taken(path)
    temporary = check_path(os.path.join(os.path.dirname(path), f".aioemu-{secrets.token_hex(4)}"))
    try:
        listening = _listening(socket.AF_UNIX, temporary)
        try:
            os.rename(temporary, path)
        except OSError:
            listening.close()
            os.unlink(temporary)
            raise
    except OSError as exc:
        raise HostError(f"listen at {given}", exc.errno) from exc
    return Listener(listening, path)


def _refuse_taken(path: str) -> None:
    """Raise unless (path) is free or a socket that nobody answers."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise HostError(f"listen at {path}", exc.errno) from exc
    if not stat.S_ISSOCK(mode):
        raise HostError(f"listen at {path}: there is something that is not a socket", errno.EEXIST)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            pass  # its backlog is full: somebody is there
        except OSError:
            return
    raise HostError(f"listen at {path}: another process listens there", errno.EADDRINUSE)


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
