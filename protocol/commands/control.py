"""The protocol about itself: negotiation, version, what there is."""

from __future__ import annotations

from typing import cast

from aioemu.protocol.commands.schema_types import SchemaInfo
from aioemu.protocol.machine import Machine
from aioemu.protocol.monitor import Caller
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record
from aioemu.protocol.session import HANDSHAKE, QMP_VERSION, Capability


class QmpCapabilities(Record):
    """What the client wants of what was offered."""

    enable: list[Capability] | None = None


class VersionTriple(Record):
    """A version in three numbers."""

    major: int
    minor: int
    micro: int


class VersionInfo(Record):
    """The version of QEMU whose protocol this is, and the program that speaks it."""

    qemu: VersionTriple
    package: str


class CommandInfo(Record):
    """A command's name."""

    name: str


@command(HANDSHAKE)
def qmp_capabilities(machine: Machine, args: QmpCapabilities, monitor: Caller) -> None:
    """End the negotiation: from here on the client may give commands and gets events."""
    monitor.negotiate(args.enable or [])


@command("query-version")
def query_version(machine: Machine, monitor: Caller) -> VersionInfo:
    """Say which version of the protocol is spoken, and by what."""
    major, minor, micro = QMP_VERSION
    return VersionInfo(qemu=VersionTriple(major=major, minor=minor, micro=micro), package=monitor.hub.package)


@command("query-commands")
def query_commands(machine: Machine, monitor: Caller) -> list[CommandInfo]:
    """List the commands."""
    return [CommandInfo(name=name) for name in monitor.hub.registry.commands]


@command("query-qmp-schema")
def query_qmp_schema(machine: Machine, monitor: Caller) -> list[SchemaInfo]:
    """Describe every command, event and type."""
    return cast("list[SchemaInfo]", monitor.hub.registry.schema)  # encoded once; this is what the client sees


COMMANDS = (qmp_capabilities, query_version, query_commands, query_qmp_schema)
