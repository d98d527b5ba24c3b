"""Commands and their arguments by Python's names: `node_name` is `node-name`, `logical_block_size` is itself.

A name is looked for among the members that the command has; `_` stands for `-` in what nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aioemu.protocol.registry import Command
from aioemu.protocol.schema import Object, Shape, plain, shown


def method_name(command: str) -> str:
    """What a command is called in Python."""
    return command.replace("-", "_")


def wire_arguments(command: Command, keywords: dict[str, Any]) -> dict[str, Any]:
    """A command's arguments as a client sends them, out of keywords; records in them as objects."""
    given: dict[str, Any] = {name: plain(value) for name, value in keywords.items()}
    names = {method_name(name): name for name in _member_names(command.arguments, set())}
    names |= {member.attribute: member.name for member in command.arguments.members}
    names |= {method_name(name): name for name in command.arguments.record.further(given)}
    return {names.get(name, name.replace("_", "-")): value for name, value in given.items()}


def _member_names(kind: Object | Shape, seen: set[int]) -> Iterator[str]:
    """The members of an object in all its cases."""
    if id(kind) in seen:
        return
    seen.add(id(kind))
    yield from (member.name for member in kind.members)
    for case in kind.cases.values():
        yield from _member_names(case, seen)
    described = shown(kind)
    if described is not kind:
        yield from _member_names(described, seen)


def is_open(kind: Object) -> bool:
    """Whether further members come along, by the case or by what is named."""
    return kind.record.takes_any or kind.tag is not None
