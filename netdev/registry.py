"""The network back ends by QEMU's names: one file and one line each, imported when one is asked for.

A back end's module has `Options`, a frozen dataclass whose fields are its options, and `open_netdev`, which makes it.
The machine opens back ends before its devices; a NIC's port is joined to `port` when the NIC is made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError
from aioemu.log import Log
from aioemu.netdev.options import read_options
from aioemu.netdev.port import Port

BACK_ENDS: dict[str, str] = {
    "bridge": "aioemu.netdev.bridge",
    "dgram": "aioemu.netdev.dgram",
    "hubport": "aioemu.netdev.hubport",
    "socket": "aioemu.netdev.socket",
    "stream": "aioemu.netdev.stream",
    "tap": "aioemu.netdev.tap",
    "user": "aioemu.netdev.user",
}


class Netdev(Protocol):
    """What every back end is to its machine."""

    @property
    def port(self) -> Port:
        """Where the NIC is joined."""

    @property
    def summary(self) -> str:
        """What `info network` says of it, without its name and type: "ifname=tap0,script=no,downscript=no"."""

    def close(self) -> None:
        """Let go of everything, now."""


@dataclass(frozen=True, slots=True)
class NetContext:
    """What a back end may use of its machine: `io` gives the reactor's io context, `find_fd` what fd=NAME means,
    `chardev` opens one from its short form (`unix:PATH,server=on`) and a name for it, and says how to give it back,
    `find_netdev` finds the port of another back end; `hubs` are the machine's, by number.
    """

    id: str
    log: Log
    io: Callable[[], Any]
    find_fd: Callable[[str], int]
    chardev: Callable[[str, str], Awaitable[tuple[Any, Callable[[], None]]]] | None = None
    find_netdev: Callable[[str], Port | None] | None = None
    hubs: dict[int, Any] = field(default_factory=dict)

    def leave_fd(self, name: str, fd: int) -> None:
        """It cannot be used: it stays whoever's it is, unless it was handed over (getfd): then nobody else has it."""
        if not name.isdigit():
            with contextlib.suppress(OSError):
                os.close(fd)


def find_back_end(kind: str) -> Any:
    """The module of a back end; ConfigError when there is none of that name."""
    if kind not in BACK_ENDS:
        raise ConfigError(f"Parameter 'type' does not accept value '{kind}'{did_you_mean(kind, BACK_ENDS)}", "-netdev")
    return import_module(BACK_ENDS[kind])


async def open_netdev(kind: str, values: Mapping[str, Any], context: NetContext) -> Netdev:
    """Make one back end from its options, whether given as text or as JSON."""
    module = find_back_end(kind)
    netdev: Netdev = await module.open_netdev(read_options(module.Options, kind, values), context)
    return netdev
