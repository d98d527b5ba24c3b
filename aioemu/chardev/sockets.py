"""Stream sockets as a chardev: listening or connecting, unix, TCP or inherited, with one client or many.

With `connect` there is one front end and one client at a time; the next ones wait in the kernel's queue. With `serve`
every client of a listening socket gets a front end of its own, at once. A client that leaves is no error.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from msgspec.structs import replace

from aioemu.chardev.base import Chardev, Event, Frontend, FrontendFactory, log, running_loop
from aioemu.chardev.channel import SocketChannel
from aioemu.config import FdAddress, SocketOptions, TcpAddress, UnixAddress
from aioemu.errors import ConfigError, HostError
from aioemu.listening import UnixListener, abstract_name, check_unix_path, listen_tcp, resolve

ACCEPT_PAUSE_S = 0.1  # after running out of descriptors: only a client that leaves frees one
BUSY_RETRY_S = 0.01  # a unix listener whose queue is full gives no event when there is room again
BUSY_LIMIT_S = 10.0  # and one that never accepts is given up

FdFinder = Callable[[str], int]  # turns an fd= that is no number (a monitor's getfd name) into a descriptor


def _number(name: str) -> int:
    """fd= on the command line is a number."""
    if not name.isdecimal():
        raise ConfigError(f"Unable to parse FD number '{name}'")
    return int(name)


class SocketChardev(Chardev):
    """A socket back end; see the module."""

    def __init__(self, options: SocketOptions, find_fd: FdFinder = _number) -> None:
        super().__init__(options)
        self._socket = options
        self._channel_options = replace(options, logfile=None)
        self._find_fd = find_fd
        self._factory: FrontendFactory | None = None
        self._listener: UnixListener | socket.socket | None = None
        self._accepting = False
        self._exhausted = False  # and has said so
        self._channels: list[SocketChannel] = []
        self._first: asyncio.Future[None] | None = None
        self._retry: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def filename(self) -> str:
        prefix = "" if self.is_open or self._channels else "disconnected:"
        return f"{prefix}{self._describe()}"

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._channels)

    @property
    def port(self) -> int | None:
        """The TCP port that a listener got."""
        if isinstance(self._listener, socket.socket) and self._listener.family in (socket.AF_INET, socket.AF_INET6):
            return int(self._listener.getsockname()[1])
        return None

    async def open(self) -> None:
        address = self._socket.address
        if isinstance(address, FdAddress):
            self._adopt(address)
        elif self._socket.server:
            await self._listen(address)
        elif self._socket.listen_if_free:
            if not (isinstance(address, UnixAddress) and await self._join(address)):
                await self._listen(address)
        elif self._socket.reconnect_ms:
            self._connect_again(0)
        else:
            self._take(await self._connect(address))
        if self._listener is not None and self._socket.wait and not self._channels:
            log.warning("waiting for connection on: %s", self.filename)
            self._first = running_loop().create_future()
            await self._first

    def close(self) -> None:
        self._closing = True
        self._pause_accepting()
        if isinstance(self._listener, UnixListener | socket.socket):
            self._listener.close()
        self._listener = None
        if self._retry is not None:
            self._retry.cancel()
        if self._first is not None and not self._first.done():
            self._first.cancel()
        for channel in list(self._channels):
            channel.close()
        super().close()

    def connect(self, frontend: Frontend) -> None:
        super().connect(frontend)
        for channel in self._channels:
            channel.accept_input()

    def serve(self, factory: FrontendFactory) -> None:
        self._factory = factory
        self.is_open = False  # of the single front end, which there is none of now
        for channel in list(self._channels):
            channel.connect(factory(channel))
        self._resume_accepting()

    def accept_input(self) -> None:
        if self._factory is None:
            for channel in self._channels:
                channel.accept_input()

    def take_fds(self) -> list[int]:
        return [fd for channel in self._channels for fd in channel.take_fds()]

    def _send(self, data: bytes) -> int:
        return self._channels[0].write(data) if self._channels else len(data)

    # connections

    def _take(self, sock: socket.socket) -> None:
        """A new connection."""
        channel = SocketChannel(self._channel_options, sock, self._ended)
        self._channels.append(channel)
        if self._factory is not None:
            channel.log_to(self._log)
            channel.connect(self._factory(channel))
        else:
            self._pause_accepting()
            channel.connect(_Relay(self))
        channel.opened()
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def _ended(self, channel: SocketChannel) -> None:
        """A connection is over: let the next one in, or go and connect again."""
        self._channels.remove(channel)
        if self._closing:
            return
        if self._listener is not None:
            self._resume_accepting()
        elif self._socket.reconnect_ms:
            self._connect_again(self._socket.reconnect_ms)

    # listening

    async def _join(self, address: UnixAddress) -> bool:
        """Connect where somebody listens. To look first would be a connection too, the only one that some accept."""
        try:
            self._take(await self._connect(address))
        except HostError as exc:
            if exc.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return False
            raise
        return True

    async def _listen(self, address: UnixAddress | TcpAddress) -> None:
        try:
            self._listener = UnixListener(address) if isinstance(address, UnixAddress) else await listen_tcp(address)
        except OSError as exc:
            raise HostError(f"chardev {self.id}: listen on {self._describe()}", exc.errno) from exc
        self._resume_accepting()

    def _listening(self) -> socket.socket | None:
        return self._listener.socket if isinstance(self._listener, UnixListener) else self._listener

    def _resume_accepting(self) -> None:
        listening = self._listening()
        full = bool(self._channels) and self._factory is None
        if listening is not None and not self._accepting and not full:
            self._accepting = True
            running_loop().add_reader(listening.fileno(), self._acceptable)

    def _pause_accepting(self) -> None:
        listening = self._listening()
        if listening is not None and self._accepting:
            self._accepting = False
            running_loop().remove_reader(listening.fileno())

    def _acceptable(self) -> None:
        listening = self._listening()
        if listening is None:
            return
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as exc:
            if not self._exhausted:
                log.warning("chardev %s: accept: %s; clients wait", self.id, exc.strerror)
            self._exhausted = True
            self._pause_accepting()
            running_loop().call_later(ACCEPT_PAUSE_S, self._resume_accepting)
            return
        self._exhausted = False
        self._take(sock)

    def _adopt(self, address: FdAddress) -> None:
        """Take over an inherited socket, listening or connected."""
        fd = self._find_fd(address.fd)
        try:
            sock = socket.socket(fileno=fd)
            os.set_inheritable(fd, False)
            listening = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        except OSError as exc:
            raise HostError(f"chardev {self.id}: file descriptor {address.fd}", exc.errno) from exc
        if listening:
            sock.setblocking(False)
            self._listener = sock
            self._resume_accepting()
        else:
            self._take(sock)

    # connecting

    def _connect_again(self, delay_ms: int) -> None:
        self._retry = running_loop().create_task(self._keep_trying(delay_ms), name=f"chardev {self.id} reconnect")

    async def _keep_trying(self, delay_ms: int) -> None:
        address = self._socket.address
        while not isinstance(address, FdAddress):
            await asyncio.sleep(delay_ms / 1000)
            try:
                self._take(await self._connect(address))
            except HostError as exc:
                log.debug("chardev %s: %s", self.id, exc)
                delay_ms = self._socket.reconnect_ms
            else:
                return

    async def _connect(self, address: UnixAddress | TcpAddress) -> socket.socket:
        try:
            return await (_connect_unix(address) if isinstance(address, UnixAddress) else _connect_tcp(address))
        except OSError as exc:
            raise HostError(f"chardev {self.id}: connect to {self._describe()}", exc.errno) from exc

    def _describe(self) -> str:
        address, server = self._socket.address, ",server=on" if self._listener is not None else ""
        if isinstance(address, UnixAddress):
            return f"unix:{address.path}{server}"
        if isinstance(address, FdAddress):
            return f"fd:{address.fd}{server}"
        protocol = "telnet" if self._socket.telnet else "tcp"
        return f"{protocol}:{address.host}:{self.port or address.port}{server}"


class _Relay:
    """The single front end's stand-in on the connection of the moment."""

    def __init__(self, chardev: SocketChardev) -> None:
        self._chardev = chardev

    def receive(self, data: bytes) -> None:
        self._chardev._deliver(data)

    def can_receive(self) -> int:
        return self._chardev._room()

    def writable(self) -> None:
        self._chardev._writable()

    def event(self, event: Event) -> None:
        if event is Event.OPENED:
            self._chardev._set_open()
        elif event is Event.CLOSED:
            self._chardev._set_closed()
        else:
            self._chardev._event(event)


async def _connect_unix(address: UnixAddress) -> socket.socket:
    """Connect; where the listener's queue is full the kernel says so at once, and there is nothing to wait on."""
    if not address.abstract:
        check_unix_path(address.path)
    target = abstract_name(address) if address.abstract else address.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    deadline = running_loop().time() + BUSY_LIMIT_S
    try:
        while True:
            error = sock.connect_ex(target)
            if error == 0:
                return sock
            if error != errno.EAGAIN or running_loop().time() > deadline:
                raise OSError(error, os.strerror(error))
            await asyncio.sleep(BUSY_RETRY_S)
    except BaseException:
        sock.close()
        raise


async def _connect_tcp(address: TcpAddress) -> socket.socket:
    """Connect to the first address that answers."""
    error = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, target in await resolve(address):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await running_loop().sock_connect(sock, target)
        except OSError as exc:
            sock.close()
            error = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise error
