"""What the command line takes, for those who are going to write one (QAPI misc.json)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from aioemu.config.option_groups import GROUPS, parameters
from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record

BOARD_TEXTS = ("accel", "memory-backend", "kernel-irqchip", "confidential-guest-support", "firmware")
BOARD_TYPES = {"bool": "boolean", "int": "number"}


class CommandLineParameterType(StrEnum):
    """What a parameter's value is."""

    STRING = "string"
    BOOLEAN = "boolean"
    NUMBER = "number"
    SIZE = "size"


class CommandLineParameterInfo(Record):
    """One parameter of an option."""

    name: str
    type: CommandLineParameterType
    help: str | None = None
    default: str | None = None


class CommandLineOptionInfo(Record):
    """One option; one without parameters takes those of what it names."""

    option: str
    parameters: list[CommandLineParameterInfo]


class QueryCommandLineOptions(Record):
    """Only this option."""

    option: str | None = None


@command("query-command-line-options")
def query_command_line_options(machine: Machine, args: QueryCommandLineOptions) -> list[CommandLineOptionInfo]:
    """List the options of the command line that have parameters."""
    names = sorted((*GROUPS, "machine"))
    if args.option is not None:
        if args.option not in names:
            raise MonitorError(f"invalid option name: {args.option}")
        names = [args.option]
    return [CommandLineOptionInfo(option=name, parameters=_parameters(name)) for name in names]


def _parameters(group: str) -> list[CommandLineParameterInfo]:
    found = _board_parameters() if group == "machine" else parameters(group)
    return [CommandLineParameterInfo(name=name, type=CommandLineParameterType(kind)) for name, kind in found]


def _board_parameters() -> list[tuple[str, str]]:
    """The options of all boards, from their declarations."""
    from aioemu.machine.board import COMMON_OPTIONS  # few ask
    from aioemu.machine.boards import BOARDS

    found: dict[str, Any] = {"type": "string"}
    found |= {name: "string" if name in BOARD_TEXTS else "boolean" for name in sorted(COMMON_OPTIONS)}
    for board in BOARDS:
        for name, field in board.options.__dataclass_fields__.items():
            found.setdefault(name.replace("_", "-"), BOARD_TYPES.get(field.type, "string"))
    return list(found.items())


COMMANDS = (query_command_line_options,)
