"""The block drivers by name: one file and one line each, loaded when an image first needs it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.blockdev.node import Node

DRIVERS = {
    "blkdebug": "aioemu.blockdev.blkdebug:BlkdebugNode",
    "copy-on-read": "aioemu.blockdev.copy_on_read:CopyOnReadNode",
    "file": "aioemu.blockdev.file:FileNode",
    "host_device": "aioemu.blockdev.host_device:HostDeviceNode",
    "null-aio": "aioemu.blockdev.null:NullAioNode",
    "null-co": "aioemu.blockdev.null:NullNode",
    "qcow2": "aioemu.blockdev.qcow2.node:Qcow2Node",
    "raw": "aioemu.blockdev.raw:RawNode",
    "throttle": "aioemu.blockdev.throttle:ThrottleNode",
}


def find_driver(name: str) -> type[Node[Any]]:
    """The class of a driver. ConfigError names the nearest known one."""
    if name not in DRIVERS:
        raise ConfigError(f"Unknown driver '{name}'{did_you_mean(name, DRIVERS)}", "driver")
    module, _, attribute = DRIVERS[name].partition(":")
    found: type[Node[Any]] = getattr(import_module(module), attribute)
    return found
