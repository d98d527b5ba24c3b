"""Socket addresses of back ends: read from options, shown to people and clients, turned into what socket calls take.

The types are those of chardevs (aioemu.config). Names are resolved in an executor; numbers at once.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import Any, NoReturn

from msgspec.structs import replace

from aioemu import listening
from aioemu.config import FdAddress, TcpAddress, UnixAddress
from aioemu.config.grammar import parse_bool, parse_number
from aioemu.errors import ConfigError
from aioemu.listening import UNIX_PATH_LIMIT, Resolved, abstract_name

Address = UnixAddress | TcpAddress | FdAddress

_KEYS = {
    "inet": ("host", "port", "to", "ipv4", "ipv6", "numeric", "keep-alive"),
    "unix": ("path", "abstract", "tight"),
    "fd": ("str",),
}


def parse_address(key: str, values: Mapping[str, Any]) -> Address:
    """An address out of `key.type=inet,key.host=...`, as nested by the option reader or given as JSON."""

    def fail(message: str) -> NoReturn:
        raise ConfigError(message, "-netdev")

    def text(name: str) -> str:
        value = values.get(name)
        if not isinstance(value, str):
            fail(f"Parameter '{key}.{name}' is missing" if value is None else f"'{key}.{name}' expects a string")
        return value

    def flag(name: str) -> bool | None:
        value = values.get(name)
        found = value if isinstance(value, bool | None) else parse_bool(str(value))
        if found is None and value is not None:
            fail(f"Parameter '{key}.{name}' expects 'on' or 'off'")
        return found

    kind = text("type")
    if kind not in _KEYS:
        fail(f"Parameter '{key}.type' does not accept value '{kind}' (known: {', '.join(_KEYS)})")
    for name in values:
        if name != "type" and name not in _KEYS[kind]:
            fail(f"Parameter '{key}.{name}' is unexpected")
    if kind == "fd":
        return FdAddress(text("str"))
    if kind == "unix":
        return UnixAddress(check_path(text("path")), bool(flag("abstract")), flag("tight") is not False)
    to = values.get("to")
    last = parse_number(to) if isinstance(to, str) else to
    if last is not None and not (isinstance(last, int) and 0 < last < 65536):
        fail(f"Parameter '{key}.to' expects a port")
    return TcpAddress(text("host"), text("port"), last, flag("ipv4"), flag("ipv6"))


def check_path(path: str) -> str:
    """Refuse what the kernel cannot carry."""
    if not path or len(os.fsencode(path)) > UNIX_PATH_LIMIT:
        raise ConfigError(f"UNIX socket path '{path}' has to have 1 to {UNIX_PATH_LIMIT} bytes", "-netdev")
    return path


def parse_host_port(key: str, text: str, default_host: str = "") -> TcpAddress:
    """`[host]:port`, the old way of writing an address; an IPv6 one in brackets."""
    host, colon, port = text.rpartition(":")
    number = parse_number(port)
    if not colon or number is None or not 0 <= number <= 65535:
        raise ConfigError(f"{key}: '{text}' is not host:port", "-netdev socket")
    return TcpAddress(host.removeprefix("[").removesuffix("]") or default_host, str(number))


def describe(address: Address) -> str:
    """The address as a URI, as `info network` shows it."""
    if isinstance(address, UnixAddress):
        return f"unix:{'@' if address.abstract else ''}{address.path}"
    if isinstance(address, TcpAddress):
        return f"tcp:{f'[{address.host}]' if ':' in address.host else address.host}:{address.port}"
    return f"fd:{address.fd}"


def as_member(address: Address) -> dict[str, Any]:
    """The address as a SocketAddress of the protocol."""
    if isinstance(address, UnixAddress):
        return {"type": "unix", "path": address.path}
    if isinstance(address, TcpAddress):
        return {"type": "inet", "host": address.host, "port": address.port}
    return {"type": "fd", "str": address.fd}


def from_socket(name: Any) -> Address:
    """What getsockname and getpeername say, as an address."""
    if isinstance(name, tuple):
        return TcpAddress(str(name[0]), str(name[1]))
    path = os.fsdecode(name or b"")
    return UnixAddress(path.removeprefix("\0"), path.startswith("\0"))


def sockaddr(host: bytes, port: int) -> bytes:
    """A struct sockaddr_in or sockaddr_in6."""
    if len(host) == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", port, host)
    return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI16sI", port, 0, host, 0)


def sockaddr_un(path: str) -> bytes:
    """A struct sockaddr_un."""
    return struct.pack("=H108s", socket.AF_UNIX, os.fsencode(path))


def packed(resolved: Resolved) -> bytes:
    """A resolved address as the kernel takes it."""
    family, name = resolved
    if family == socket.AF_UNIX:
        return sockaddr_un(name)
    return sockaddr(socket.inet_pton(family, name[0].partition("%")[0]), name[1])


async def resolve(address: UnixAddress | TcpAddress, kind: int) -> list[Resolved]:
    """What to connect or send to, best first. HostError when there is no such host."""
    if isinstance(address, UnixAddress):
        name = abstract_name(address) if address.abstract else os.fsencode(address.path)
        return [(socket.AF_UNIX, name)]
    return await listening.resolve(replace(address, host=address.host or "127.0.0.1"), kind)
