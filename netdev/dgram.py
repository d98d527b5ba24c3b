"""Frames over datagrams: unix, UDP, multicast, or a socket that was passed in (`-netdev dgram`)."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

from aioemu.config import FdAddress, TcpAddress, UnixAddress
from aioemu.errors import ConfigError, HostError
from aioemu.listening import Resolved
from aioemu.netdev.addresses import Address, describe, packed, parse_address, resolve
from aioemu.netdev.registry import NetContext
from aioemu.netdev.socketport import SocketPort
from aioemu.netdev.stream import adopt


@dataclass(frozen=True, slots=True)
class Options:
    """`-netdev dgram`: see docs/user-networking.md."""

    local: dict[str, Any] | None = None
    remote: dict[str, Any] | None = None


class DgramNetdev:
    """A socket for as long as the back end lives. Reactor thread only."""

    def __init__(
        self, context: NetContext, sock: socket.socket, to: bytes, summary: str, path: str | None = None
    ) -> None:
        self.summary = summary
        self._path = path
        self.port = SocketPort(context.io())
        try:
            self.port.attach(sock, to)
        except BaseException:
            self.port.close()
            raise

    def close(self) -> None:
        """Close the socket and take its path away."""
        self.port.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def refuse(message: str) -> NoReturn:
    """Options that do not go together."""
    raise ConfigError(message, "-netdev dgram")


async def open_netdev(options: Options, context: NetContext) -> DgramNetdev:
    """Bind; nothing is sent before the guest does."""
    local = parse_address("local", options.local) if options.local is not None else None
    remote = parse_address("remote", options.remote) if options.remote is not None else None
    if isinstance(remote, TcpAddress):
        group = await first(remote)
        if group[0] == socket.AF_INET and socket.inet_aton(group[1][0])[0] & 0xF0 == 0xE0:
            return await open_multicast(context, group, local)
    if local is None:
        refuse("dgram requires local= parameter")
    if isinstance(local, FdAddress):
        if remote is not None:
            refuse("remote= does not go with a local fd")
        return DgramNetdev(context, adopt_datagrams(local, context), b"", f"fd={local.fd}")
    if remote is None:
        refuse("type=inet and type=unix require remote= parameter")
    if isinstance(local, TcpAddress) and isinstance(remote, TcpAddress):
        return await open_udp(context, local, remote)
    if isinstance(local, UnixAddress) and isinstance(remote, UnixAddress):
        return open_unix(context, local, remote)
    refuse("local and remote have to be of one type")


async def first(address: TcpAddress, family: int | None = None) -> Resolved:
    """Where (address) is, of that family."""
    found = await resolve(address, socket.SOCK_DGRAM)
    return next((each for each in found if family in (None, each[0])), found[0])


def adopt_datagrams(address: FdAddress, context: NetContext) -> socket.socket:
    """A connected datagram socket that the user passed."""
    sock = adopt(address, context)
    if sock.type != socket.SOCK_DGRAM:
        sock.close()
        refuse(f"fd {address.fd} is no datagram socket")
    return sock


async def open_udp(context: NetContext, local: TcpAddress, remote: TcpAddress) -> DgramNetdev:
    """UDP from one address to another; anybody may send to it."""
    to = await first(remote)
    at = await first(local, to[0])
    if at[0] != to[0]:
        refuse("local and remote have to be of one family")
    sock = socket.socket(to[0], socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(at[1])
    except OSError as exc:
        sock.close()
        raise HostError(f"bind {local.host}:{local.port}", exc.errno) from exc
    host, port = sock.getsockname()[:2]
    return DgramNetdev(context, sock, packed(to), f"udp={host}:{port}/{to[1][0]}:{to[1][1]}")


def open_unix(context: NetContext, local: UnixAddress, remote: UnixAddress) -> DgramNetdev:
    """Unix datagrams between two paths; an old socket at ours is replaced, the other may appear later."""
    if local.abstract or remote.abstract:
        refuse("abstract names are not available for datagrams")
    path = os.path.abspath(local.path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            refuse(f"{local.path}: there is something that is not a socket")
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(local.path)
    except OSError as exc:
        sock.close()
        raise HostError(f"bind {local.path}", exc.errno) from exc
    to = packed((socket.AF_UNIX, remote.path))
    return DgramNetdev(context, sock, to, f"udp={local.path}:{remote.path}", path)


async def open_multicast(context: NetContext, group: Resolved, local: Address | None) -> DgramNetdev:
    """Every member of the group hears every other, those of this host included."""
    if isinstance(local, UnixAddress):
        refuse("local of a multicast group is an address or an fd")
    host, port = group[1][:2]
    if isinstance(local, FdAddress):
        return DgramNetdev(
            context, adopt_datagrams(local, context), packed(group), f"fd={local.fd} (mcast={host}:{port})"
        )
    interface = socket.inet_aton((await first(local))[1][0]) if local is not None else bytes(4)
    sock = join_group(host, port, interface, chosen=local is not None)
    return DgramNetdev(context, sock, packed(group), f"mcast={host}:{port}")


def join_group(host: str, port: int, interface: bytes, *, chosen: bool) -> socket.socket:
    """A socket that hears the group, and sends from (interface) if that was chosen."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        membership = struct.pack("=4s4s", socket.inet_aton(host), interface)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        if chosen:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
    except OSError as exc:
        sock.close()
        raise HostError(f"join multicast group {describe(TcpAddress(host, str(port)))[4:]}", exc.errno) from exc
    return sock
