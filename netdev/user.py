"""User networking: the guest is behind a NAT in this process, without any privilege on the host (`-netdev user`).

libslirp does it, driven natively (`core/slirp*.c`): DHCP, DNS, TFTP, TCP, UDP and ping of IPv4 and IPv6; here are its
options, forwarded ports and connections. The library is optional and looked for when the first back end is opened. The
guest is not trusted, nor is the library trusted with it (`core/slirp_guard.c`). Refused by name: `smb`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any

from aioemu._core import ffi, lib
from aioemu.errors import ConfigError, HostError
from aioemu.netdev.port import Port
from aioemu.netdev.registry import NetContext
from aioemu.netdev.user_options import (
    GuestForward,
    Network,
    Options,
    make_network,
    parse_guestfwd,
    parse_hostfwd,
    parse_hostfwd_source,
)

INFO_BYTES = 1 << 20  # of the list of connections: 512 of them take 50 KB
VERSION_BYTES = 32

__all__ = ["Options", "UserNetdev", "open_netdev"]


def library_version() -> str:
    """The version of libslirp. ConfigError where there is none, or one that is not known to work."""
    text = ffi.new("char[]", VERSION_BYTES)
    rc = lib.core_slirp_check(text, VERSION_BYTES)
    if rc == -errno.ELIBACC:
        raise ConfigError("user networking needs libslirp: apt-get install libslirp0", "-netdev user")
    if rc < 0:
        raise ConfigError("user networking needs libslirp 4.7 or a later 4.x; here is another one", "-netdev user")
    return _text(text)


class UserNetdev:
    """One network behind a NAT. Reactor thread only."""

    def __init__(self, options: Options, context: NetContext) -> None:
        library_version()
        self.network = make_network(options)
        self._restrict = options.restrict
        self._paths: list[str] = []
        self._bridges: list[Any] = []
        self._inside: set[tuple[bytes, int]] = set()  # ports inside that are taken
        error = ffi.new("int *")
        native, keep = _native_options(options, self.network)
        made = lib.core_slirp_new(native, context.io(), error)
        del keep
        if made == ffi.NULL:
            raise HostError(f"netdev {context.id}: start user networking", -error[0])
        self.port = Port(made)

    @property
    def summary(self) -> str:
        net = ".".join(str(byte) for byte in self.network.net)
        return f"net={net},restrict={'on' if self._restrict else 'off'}"

    @property
    def connections(self) -> str:
        """The connections and forwarded ports as a table."""
        self.port.check_open()
        text = ffi.new("char[]", INFO_BYTES)
        lib.core_slirp_info(self.port.ptr, text, INFO_BYTES)
        return _text(text)

    @property
    def sockets(self) -> int:
        """How many of the host's descriptors the guest's connections hold."""
        return 0 if self.port.ptr == ffi.NULL else int(lib.core_slirp_sockets(self.port.ptr))

    def hold(self, on: bool) -> None:
        """The guest's time stands still, or goes on: connections wait meanwhile, and none times out by it."""
        self.port.check_open()
        lib.core_slirp_hold(self.port.ptr, on)

    def add_hostfwd(self, rule: str) -> None:
        """Forward a port of the host's into the guest. ConfigError names what is wrong with the rule."""
        self.port.check_open()
        forward = parse_hostfwd(rule)
        if forward.path is not None:
            _clear(forward.path, rule)
        rc = lib.core_slirp_hostfwd(
            self.port.ptr, forward.udp, forward.host, len(forward.host), forward.guest, len(forward.guest)
        )
        if rc < 0:
            why = os.strerror(-rc)
            raise ConfigError(f"Could not set up host forwarding rule '{rule}': {why}", "-netdev user")
        if forward.path is not None:
            self._paths.append(forward.path)

    def remove_hostfwd(self, source: str) -> bool:
        """End a forwarding, named by its host side; False where there is none."""
        self.port.check_open()
        forward = parse_hostfwd_source(source)
        if lib.core_slirp_hostfwd_remove(self.port.ptr, forward.udp, forward.host, len(forward.host)) < 0:
            return False
        if forward.path in self._paths:
            self._paths.remove(forward.path)
            _unlink(forward.path)
        return True

    async def add_guestfwd(self, rule: str, context: NetContext) -> None:
        """Let a TCP port inside lead to a command or to a chardev."""
        forward = parse_guestfwd(rule)
        if (forward.address, forward.port) in self._inside:
            raise ConfigError(f"Invalid guest forwarding rule '{rule}' (conflicting with another)", "-netdev user")
        if forward.is_command:
            self.connect_inside(forward, 0, forward.target, rule)
            return
        from aioemu.netdev.guestfwd import ChardevBridge

        name = f"{context.id}-guestfwd{len(self._bridges)}"
        bridge = await ChardevBridge.open(forward.target, name, context)
        self._bridges.append(bridge)
        self.connect_inside(forward, 1, bridge.path, rule)

    def connect_inside(self, forward: GuestForward, kind: int, target: str, rule: str) -> None:
        """Register a port inside: (kind) 0 a command, 1 the path of a unix socket."""
        self.port.check_open()
        if lib.core_slirp_guestfwd(self.port.ptr, kind, os.fsencode(target), forward.address, forward.port) < 0:
            why = "conflicting or outside of the network"
            raise ConfigError(f"Invalid guest forwarding rule '{rule}' ({why})", "-netdev user")
        self._inside.add((forward.address, forward.port))

    def close(self) -> None:
        self.port.close()
        for bridge in self._bridges:
            bridge.close()
        while self._paths:
            _unlink(self._paths.pop())


async def open_netdev(options: Options, context: NetContext) -> UserNetdev:
    """Start the network with its forwarded ports; on failure nothing is left."""
    netdev = UserNetdev(options, context)
    try:
        for rule in options.hostfwd:
            netdev.add_hostfwd(rule)
        for rule in options.guestfwd:
            await netdev.add_guestfwd(rule, context)
    except BaseException:
        netdev.close()
        raise
    return netdev


def _native_options(options: Options, network: Network) -> tuple[Any, list[Any]]:
    """The options as the core takes them, and what must live as long."""
    keep: list[Any] = []

    def text(value: str | None) -> Any:
        if value is None:
            return ffi.NULL
        keep.append(ffi.new("char[]", os.fsencode(value)))
        return keep[-1]

    native: Any = ffi.new("core_slirp_options *")
    native.restricted, native.ipv4, native.ipv6 = options.restrict, network.ipv4, network.ipv6
    for name in ("net", "mask", "host", "dhcp", "dns", "prefix6", "host6", "dns6"):
        setattr(native, name, getattr(network, name))
    native.prefix6_len = network.prefix6_length
    for name in ("hostname", "tftp_server_name", "tftp", "bootfile", "domainname"):
        setattr(native, name, text(getattr(options, name)))
    if options.dnssearch:
        searched = ffi.new("const char *[]", [*map(text, options.dnssearch), ffi.NULL])
        keep.append(searched)
        native.dnssearch = searched
    return native, keep


def _clear(path: str, rule: str) -> None:
    """Make way for a unix socket at (path): an old one goes, anything else stays and is in the way."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigError(f"Invalid host forwarding rule '{rule}' (the file is no socket)", "-netdev user")
        os.unlink(path)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _text(string: Any) -> str:
    raw = ffi.string(string)
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
