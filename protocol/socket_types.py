"""Addresses of sockets as QAPI's sockets.json has them."""

from __future__ import annotations

from typing import ClassVar

from aioemu.protocol.commands.chardev_types import (
    FdSocketAddress,
    InetSocketAddress,
    SocketAddressType,
    UnixSocketAddress,
)
from aioemu.protocol.schema import Union


class SocketAddress(Union, kw_only=True):
    """The address of a socket."""

    tag = "type"
    cases: ClassVar = {
        SocketAddressType.INET: InetSocketAddress,
        SocketAddressType.UNIX: UnixSocketAddress,
        SocketAddressType.FD: FdSocketAddress,
    }

    type: SocketAddressType
