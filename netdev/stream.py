"""Frames over one stream connection, made or accepted, again and again (`-netdev stream`).

A server has one connection at a time; who comes meanwhile waits. A client that is refused tries again with
`reconnect-ms`, else stays unconnected. The guest's carrier follows the connection, and so do NETDEV_STREAM_CONNECTED
and NETDEV_STREAM_DISCONNECTED.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from aioemu.config import FdAddress, UnixAddress
from aioemu.errors import ConfigError, HostError
from aioemu.listening import UnixListener, listen_tcp
from aioemu.netdev.addresses import Address, as_member, describe, from_socket, parse_address, resolve
from aioemu.netdev.registry import NetContext
from aioemu.netdev.socketport import SocketPort

ACCEPT_PAUSE_S = 0.1  # after running out of descriptors


@dataclass(frozen=True, slots=True)
class Options:
    """`-netdev stream`: see docs/user-networking.md."""

    addr: dict[str, Any]
    server: bool = False
    reconnect: int | None = None
    reconnect_ms: int | None = None


class StreamNetdev:
    """One connection at a time. Reactor thread only."""

    def __init__(self, context: NetContext, address: Address, reconnect_ms: int = 0, *, tells: bool = True) -> None:
        self.port = SocketPort(context.io())
        self.port.on_end = self._ended
        self.summary = "connecting"
        self._address = address
        self._reconnect_ms = reconnect_ms
        self._tells = tells  # clients of the monitor, of connections
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._listener: UnixListener | socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ---- three ways to begin -----------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Wait for others to connect; returns when they can."""
        if isinstance(self._address, FdAddress):
            self._listener = adopt(self._address, self._context)
            self._listener.setblocking(False)
        elif isinstance(self._address, UnixAddress):
            self._listener = UnixListener(self._address)
        else:
            self._listener = await listen_tcp(self._address)
        self._accept_again()

    def connect(self) -> None:
        """Connect in the background."""
        self._timer = None
        if isinstance(self._address, FdAddress):
            self.take(adopt(self._address, self._context), self._address)
        else:
            self._task = self._loop.create_task(self._connect(self._address))

    def take(self, sock: socket.socket, peer: Address) -> None:
        """A connection is there."""
        self.port.attach(sock)
        self.summary = describe(peer)
        self._tell("CONNECTED", addr=as_member(peer))

    def close(self) -> None:
        """End the connection, and stop to listen and to connect."""
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        listener, self._listener = self._listener, None
        if listener is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(_socket_of(listener))
            listener.close()
        self.port.close()

    # ---- what follows ------------------------------------------------------------------------------------------------

    async def _connect(self, address: Any) -> None:
        error: OSError | HostError | None = None
        try:
            for family, name in await resolve(address, socket.SOCK_STREAM):
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                try:
                    await self._loop.sock_connect(sock, name)
                    self.take(sock, address if isinstance(address, UnixAddress) else from_socket(sock.getpeername()))
                    return
                except OSError as exc:
                    sock.close()
                    error = exc
                except BaseException:
                    sock.close()
                    raise
        except HostError as exc:
            error = exc
        if self._reconnect_ms == 0:
            self._context.log.warning("netdev %s: %s: %s", self._context.id, describe(address), error)
        self.summary = f"error: {error}"
        self._again()

    def _again(self) -> None:
        if self._reconnect_ms:
            self.summary = "connecting"
            self._timer = self._loop.call_later(self._reconnect_ms / 1000, self.connect)

    def _ended(self, why: OSError | None) -> None:
        self._tell("DISCONNECTED")
        self._context.log.info("netdev %s: disconnected: %s", self._context.id, why or "by the other side")
        self.summary = "disconnected"
        if self._listener is not None:
            self._accept_again()
        else:
            self._again()

    def _tell(self, what: str, **data: object) -> None:
        if self._tells:
            self._context.log.event(f"NETDEV_STREAM_{what}", netdev_id=self._context.id, **data)

    def _accept_again(self) -> None:
        if self._listener is not None:
            self.summary = "listening"
            self._loop.add_reader(_socket_of(self._listener), self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, name = _socket_of(self._listener).accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            self._context.log.warning("netdev %s: accept: %s", self._context.id, exc.strerror)
            self._loop.remove_reader(_socket_of(self._listener))
            self._loop.call_later(ACCEPT_PAUSE_S, self._accept_again)
            return
        self._loop.remove_reader(_socket_of(self._listener))
        try:
            self.take(sock, self._address if sock.family == socket.AF_UNIX else from_socket(name))
        except OSError:
            sock.close()
            self._accept_again()


def _socket_of(listener: UnixListener | socket.socket) -> socket.socket:
    return listener.socket if isinstance(listener, UnixListener) else listener


def adopt(address: FdAddress, context: NetContext) -> socket.socket:
    """The socket that the user passed; its descriptor is the back end's from now on.

    What is no socket stays whoever's it is, unless it was handed over by name (getfd): then nobody else has it.
    """
    fd = context.find_fd(address.fd)
    try:
        return socket.socket(fileno=fd)
    except OSError as exc:
        context.leave_fd(address.fd, fd)
        raise ConfigError(f"fd {address.fd} is no socket: {exc.strerror}", "-netdev") from exc


async def open_netdev(options: Options, context: NetContext) -> StreamNetdev:
    """Listen, or begin to connect."""
    if options.reconnect is not None and options.reconnect_ms is not None:
        raise ConfigError("'reconnect' and 'reconnect-ms' exclude each other", "-netdev stream")
    reconnect_ms = options.reconnect_ms or (options.reconnect or 0) * 1000
    if options.server and (options.reconnect is not None or options.reconnect_ms is not None):
        raise ConfigError(
            "a server does not reconnect: 'reconnect' and 'reconnect-ms' are a client's", "-netdev stream"
        )
    netdev = StreamNetdev(context, parse_address("addr", options.addr), reconnect_ms)
    try:
        if options.server:
            await netdev.listen()
        else:
            netdev.connect()
    except BaseException:
        netdev.close()
        raise
    return netdev
