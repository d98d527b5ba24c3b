"""Socket addresses of the host and listening without a race: a unix socket accepts before its path appears.

It is bound to a temporary name beside the path, listens, and is renamed into place. A stale socket is replaced; a
live one, or a file that is no socket, is left alone and is an error. The path goes away at close if it is still ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from typing import Any

from aioemu.config import TcpAddress, UnixAddress
from aioemu.errors import HostError

BACKLOG = 4096  # clients that may connect while the loop is busy (net.core.somaxconn caps it); beyond: EAGAIN
UNIX_PATH_LIMIT = 107  # bytes of sun_path without its final zero (unix(7))
Resolved = tuple[int, Any]  # family, and the address as Python's sockets take it


class UnixListener:
    """A listening unix socket and the path it answers for."""

    def __init__(self, address: UnixAddress) -> None:
        if address.abstract:
            self.path = None
            self.socket = _listening_unix(abstract_name(address))
        else:
            self.path = os.path.abspath(address.path)
            self.socket = _listen_at(self.path, address.path)
            self._identity = _identity(self.path)

    def close(self) -> None:
        """Stop listening and take the path away."""
        if self.path is not None and self.socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                if _identity(self.path) == self._identity:
                    os.unlink(self.path)
        self.socket.close()


def abstract_name(address: UnixAddress) -> bytes:
    """An abstract address; not `tight`: padded with zeros to the full length, as older programs do."""
    name = b"\0" + os.fsencode(address.path)
    return name if address.tight else name.ljust(UNIX_PATH_LIMIT + 1, b"\0")


def check_unix_path(path: str) -> None:
    """Refuse what the kernel cannot carry."""
    if len(os.fsencode(path)) > UNIX_PATH_LIMIT:
        raise HostError(f"UNIX socket path '{path}' is too long: at most {UNIX_PATH_LIMIT} bytes", errno.ENAMETOOLONG)


def _listen_at(path: str, given: str) -> socket.socket:
    """Listen at `path` by way of a temporary name."""
    check_unix_path(given)
    _refuse_taken(path)
    folder = os.path.dirname(path)
    name = f".aioemu-{secrets.token_hex(6)}"
    try:
        with _short(folder, name) as temporary:
            listening = _listening_unix(temporary)
            try:
                os.rename(temporary, path)
            except OSError:
                listening.close()
                os.unlink(temporary)
                raise
    except OSError as exc:
        raise HostError(f"listen at {path}", exc.errno) from exc
    return listening


@contextlib.contextmanager
def _short(folder: str, name: str) -> Iterator[str]:
    """A path for `name` in `folder` that fits a socket address."""
    plain = os.path.join(folder, name)
    if len(os.fsencode(plain)) <= UNIX_PATH_LIMIT:
        yield plain
        return
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def _listening_unix(name: str | bytes) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.bind(name)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _refuse_taken(path: str) -> None:
    """Raise unless `path` is free or a socket that nobody answers."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise HostError(f"listen at {path}", exc.errno) from exc
    if not stat.S_ISSOCK(mode):
        raise HostError(f"listen at {path}: there is something that is not a socket", errno.EEXIST)
    if answers(path):
        raise HostError(f"listen at {path}: another process listens there", errno.EADDRINUSE)


def answers(path: str) -> bool:
    """Whether a process listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # its backlog is full
        except OSError:
            return False
    return True


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


async def resolve(address: TcpAddress, kind: int = socket.SOCK_STREAM, *, passive: bool = False) -> list[Resolved]:
    """The (family, socket address) pairs of a host and port, numeric ones without a thread."""
    family = socket.AF_UNSPEC
    if address.ipv4 is not None or address.ipv6 is not None:
        v4, v6 = address.ipv4, address.ipv6
        if v6 is False or (v4 and not v6):
            family = socket.AF_INET
        elif v4 is False or (v6 and not v4):
            family = socket.AF_INET6
    flags = socket.AI_PASSIVE if passive else 0
    host = address.host or ("0.0.0.0" if passive else "localhost")  # noqa: S104 the user gave no host
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(host, address.port, family, kind, 0, flags | numeric)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, address.port, family=family, type=kind, flags=flags)
        except socket.gaierror as exc:
            raise HostError(f"address resolution failed for {host}:{address.port}: {exc.strerror}") from exc
    except ValueError as exc:  # UnicodeError and embedded zeros: what cannot be a host's name
        raise HostError(f"address resolution failed for {host}:{address.port}: {exc}") from exc
    return [(int(entry[0]), entry[4]) for entry in found]


async def listen_tcp(address: TcpAddress) -> socket.socket:
    """Listen on the first address that can be had; `to` allows later ports."""
    error: OSError | None = None
    for family, name in await resolve(address, passive=True):
        for port in range(name[1], (address.to or name[1]) + 1):
            listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((name[0], port))
                listening.listen(BACKLOG)
            except OSError as exc:
                listening.close()
                error = exc
            else:
                return listening
    raise HostError(f"listen at {address.host}:{address.port}", error.errno if error else None) from error
