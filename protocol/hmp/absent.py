"""Commands that tools send and that cannot be done here: each says so in clear words, and nothing is half done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.errors import MonitorError
from aioemu.protocol.hmp.table import HmpCommand, Run, parameters

if TYPE_CHECKING:
    from aioemu.protocol.hmp.interpreter import Interpreter

Values = dict[str, Any]
_NO_STATE = "the state of a machine cannot be saved or loaded in this version"


def _absent(text: str) -> Run:
    """A command that tools know, with a clear word about why it cannot be done."""

    async def run(interpreter: Interpreter, values: Values) -> str:
        raise MonitorError(text)

    return run


async def _not_removable(interpreter: Interpreter, values: Values) -> str:
    """eject and change: no disk here has a tray."""
    name = values["device"]
    known = await interpreter.qmp("query-block")
    if any(name in (each.device, each.qdev) for each in known):
        raise MonitorError(f"Device '{name}' is not removable")
    raise MonitorError(f"Device '{name}' not found")


COMMANDS: tuple[HmpCommand, ...] = (
    HmpCommand(
        "savevm",
        "tag",
        "save a VM snapshot. If no tag is provided, a new one is created",
        _absent(_NO_STATE),
        parameters("name?"),
    ),
    HmpCommand("loadvm", "tag", "restore a VM snapshot from its tag", _absent(_NO_STATE), parameters("name")),
    HmpCommand("delvm", "tag", "delete a VM snapshot from its tag", _absent(_NO_STATE), parameters("name")),
    HmpCommand(
        "eject",
        "[-f] device",
        "eject a removable medium (use -f to force it)",
        _not_removable,
        parameters("f:flag", "device:block device name"),
        ("query-block",),
    ),
    HmpCommand(
        "change",
        "device [-f] filename [format [read-only-mode]]",
        "change a removable medium, optional format",
        _not_removable,
        parameters("device:block device name", "f:flag", "target:filename", "arg?", "mode?"),
        ("query-block",),
    ),
)
