"""Character devices: where serial ports, virtio consoles and monitors meet the host.

`Chardevs` holds a machine's; a front end claims one, connects itself and writes. See `base` for the contract.
"""

from __future__ import annotations

from aioemu.chardev.base import Chardev, Event, Frontend, FrontendFactory
from aioemu.chardev.console import (
    Console,
    ConsoleChardev,
    ConsoleClosedError,
    ConsoleError,
    ConsoleReader,
    ConsoleTimeoutError,
)
from aioemu.chardev.mux import MuxChardev, MuxKeys, MuxPort
from aioemu.chardev.registry import ChardevInfo, Chardevs
from aioemu.chardev.ringbuf import RingbufChardev
from aioemu.chardev.table import CHARDEVS

__all__ = [
    "CHARDEVS",
    "Chardev",
    "ChardevInfo",
    "Chardevs",
    "Console",
    "ConsoleChardev",
    "ConsoleClosedError",
    "ConsoleError",
    "ConsoleReader",
    "ConsoleTimeoutError",
    "Event",
    "Frontend",
    "FrontendFactory",
    "MuxChardev",
    "MuxKeys",
    "MuxPort",
    "RingbufChardev",
]
