"""Which back ends there are: one line each. The names are those of `-chardev` and of `chardev-add`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from aioemu.chardev.base import Chardev
from aioemu.chardev.console import ConsoleChardev
from aioemu.chardev.files import FileChardev, NullChardev, PipeChardev, SerialChardev
from aioemu.chardev.hub import HubChardev
from aioemu.chardev.pty import PtyChardev
from aioemu.chardev.ringbuf import RingbufChardev
from aioemu.chardev.sockets import SocketChardev
from aioemu.chardev.stdio import StdioChardev
from aioemu.config import (
    ChardevOptions,
    ConsoleOptions,
    FileOptions,
    HubOptions,
    NullOptions,
    PipeOptions,
    PtyOptions,
    RingbufOptions,
    SerialOptions,
    SocketOptions,
    StdioOptions,
)


class Kind(NamedTuple):
    """A back end: its options, and what makes it from them."""

    options: type[ChardevOptions]
    factory: Callable[..., Chardev]


CHARDEVS: dict[str, Kind] = {
    "console": Kind(ConsoleOptions, ConsoleChardev),
    "file": Kind(FileOptions, FileChardev),
    "hub": Kind(HubOptions, HubChardev),
    "null": Kind(NullOptions, NullChardev),
    "pipe": Kind(PipeOptions, PipeChardev),
    "pty": Kind(PtyOptions, PtyChardev),
    "ringbuf": Kind(RingbufOptions, RingbufChardev),
    "serial": Kind(SerialOptions, SerialChardev),
    "socket": Kind(SocketOptions, SocketChardev),
    "stdio": Kind(StdioOptions, StdioChardev),
}


def create(options: ChardevOptions, *context: Any) -> Chardev:
    """The back end for `options`; `context` is what a kind needs besides (a hub its members)."""
    for kind in CHARDEVS.values():
        if type(options) is kind.options:
            return kind.factory(options, *context)
    raise TypeError(f"no chardev for {type(options).__name__}")
