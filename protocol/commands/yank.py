"""Breaking connections that hang: what can be broken, from outside the queue of commands.

Nothing of aioemu waits for a peer without a bound, so there is nothing to break; clients ask all the same, and these
are the commands that may run out of band.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record, Union


class YankInstanceType(StrEnum):
    """Kinds of connections."""

    BLOCK_NODE = "block-node"
    CHARDEV = "chardev"
    MIGRATION = "migration"


class YankInstanceBlockNode(Record):
    """The connection of a block node."""

    node_name: str


class YankInstanceChardev(Record):
    """The connection of a chardev."""

    id: str


class YankInstance(Union, kw_only=True):
    """A connection."""

    tag = "type"
    cases: ClassVar = {
        YankInstanceType.BLOCK_NODE: YankInstanceBlockNode,
        YankInstanceType.CHARDEV: YankInstanceChardev,
    }

    type: YankInstanceType


class Yank(Record):
    """What to break."""

    instances: list[YankInstance]


@command("query-yank", oob=True)
def query_yank(machine: Machine) -> list[YankInstance]:
    """List the connections that can be broken: none."""
    return []


@command("yank", oob=True)
def yank(machine: Machine, args: Yank) -> None:
    """Break connections."""
    if args.instances:
        raise MonitorError("Instance not found", "DeviceNotFound")


COMMANDS = (query_yank, yank)
