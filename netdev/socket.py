"""Frames over a socket, written the old way (`-netdev socket`): listen=, connect=, mcast=, udp= or fd=.

The wire is that of `stream` and `dgram`, which can do more: reconnect, unix sockets, events.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import NoReturn

from aioemu.config import FdAddress, TcpAddress
from aioemu.errors import ConfigError
from aioemu.netdev.addresses import parse_host_port
from aioemu.netdev.dgram import DgramNetdev, first, open_multicast, open_udp
from aioemu.netdev.registry import NetContext
from aioemu.netdev.stream import StreamNetdev, adopt


@dataclass(frozen=True, slots=True)
class Options:
    """`-netdev socket`: see docs/user-networking.md."""

    fd: str | None = None
    listen: str | None = None
    connect: str | None = None
    mcast: str | None = None
    localaddr: str | None = None
    udp: str | None = None


def refuse(message: str) -> NoReturn:
    """Options that do not go together."""
    raise ConfigError(message, "-netdev socket")


async def open_netdev(options: Options, context: NetContext) -> StreamNetdev | DgramNetdev:
    """The back end that the one given of the five keys means."""
    given = [key for key in ("fd", "listen", "connect", "mcast", "udp") if getattr(options, key) is not None]
    if len(given) != 1:
        refuse("exactly one of listen=, connect=, mcast=, udp= and fd= is required")
    if options.localaddr is not None and given[0] not in ("mcast", "udp"):
        refuse("localaddr= goes with mcast= and udp= only")
    if options.fd is not None:
        return _open_fd(options.fd, context)
    if options.mcast is not None:
        return await _open_mcast(options.mcast, options.localaddr, context)
    if options.udp is not None:
        if options.localaddr is None:
            refuse("udp= requires localaddr=")
        local = parse_host_port("localaddr", options.localaddr, "0.0.0.0")  # noqa: S104 no host: any
        return await open_udp(context, local, parse_host_port("udp", options.udp, "127.0.0.1"))
    return await _open_stream(options, context)


async def _open_stream(options: Options, context: NetContext) -> StreamNetdev:
    listens = options.listen is not None
    address = parse_host_port("listen" if listens else "connect", options.listen or options.connect or "")
    netdev = StreamNetdev(context, address, tells=False)
    try:
        if listens:
            await netdev.listen()
        else:
            netdev.connect()
    except BaseException:
        netdev.close()
        raise
    return netdev


async def _open_mcast(group: str, localaddr: str | None, context: NetContext) -> DgramNetdev:
    found = await first(parse_host_port("mcast", group))
    if found[0] != socket.AF_INET or socket.inet_aton(found[1][0])[0] & 0xF0 != 0xE0:
        refuse(f"mcast: '{group}' is not a multicast address")
    return await open_multicast(context, found, TcpAddress(localaddr, "0") if localaddr is not None else None)


def _open_fd(fd: str, context: NetContext) -> StreamNetdev | DgramNetdev:
    """A socket that is connected already: its type says which."""
    sock = adopt(FdAddress(fd), context)
    if sock.type == socket.SOCK_DGRAM:
        return DgramNetdev(context, sock, b"", f"fd={fd}")
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        refuse(f"fd={fd} is neither a stream nor a datagram socket")
    netdev = StreamNetdev(context, FdAddress(fd), tells=False)
    try:
        netdev.take(sock, FdAddress(fd))
    except BaseException:
        netdev.close()
        raise
    return netdev
