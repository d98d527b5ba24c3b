"""The answer of query-qmp-schema: every command, event and type as a flat list of entities that refer by name.

Only commands and events have names that mean something; types are numbered, as clients are used to, and keep their
number as long as they keep their name here. Array types are named after their element, builtins are themselves.
Looking at every option there is takes a twentieth of a second, so the whole schema is kept beside this file, an entity
a line with what it refers to, and a machine's own is cut out of it. A test keeps it current:

python -m aioemu.protocol.introspect > protocol/schema.jsonl
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from aioemu.protocol.framing import encode
from aioemu.protocol.registry import Command, EventClass
from aioemu.protocol.schema import (
    Alternate,
    Array,
    Builtin,
    Enumeration,
    Integer,
    Nothing,
    Object,
    Shape,
    Type,
    object_of,
    shown,
)

Entity = dict[str, Any]

KEPT = Path(__file__).with_name("schema.jsonl")
NUMBERS = 1_000_000_000  # types are numbered below this: so many that hardly two want the same one


class Line(msgspec.Struct, array_like=True):
    """An entity as it is kept."""

    name: str
    is_type: bool
    refers: list[str]
    entity: msgspec.Raw


def describe(commands: Iterable[Command], events: Iterable[EventClass]) -> list[Entity]:
    """The whole schema."""
    return _Describer().describe(commands, events)


def cut(lines: bytes, commands: Iterable[str], events: Iterable[str]) -> bytes | None:
    """The encoded schema of these out of the whole one; None where that does not know one of them."""
    known: dict[str, Line] = {}
    types: dict[str, Line] = {}
    for line in msgspec.json.Decoder(Line).decode_lines(lines):
        (types if line.is_type else known)[line.name] = line
    names = [*commands, *events]
    if not known.keys() >= set(names):
        return None
    top = [known[name] for name in names]
    needed: set[str] = set()
    todo = [each for line in top for each in line.refers]
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo += types[name].refers
    found = [*top, *(line for line in types.values() if line.name in needed)]
    return b"[%b]" % b", ".join(bytes(line.entity) for line in found)


def keep(commands: Iterable[Command], events: Iterable[EventClass]) -> Iterator[bytes]:
    """The lines of the whole schema."""
    for each in describe(commands, events):
        is_type = each["meta-type"] not in ("command", "event")
        yield encode([each["name"], is_type, sorted(set(_refers(each))), each]) + b"\n"


def _refers(entity: Entity) -> Iterator[str]:
    """The types that an entity names."""
    for key in ("arg-type", "ret-type", "element-type"):
        if key in entity:
            yield entity[key]
    if entity["meta-type"] in ("object", "alternate"):
        yield from (each["type"] for key in ("members", "variants") for each in entity.get(key, ()))


class _Describer:
    def __init__(self) -> None:
        self.names: dict[Type, str] = {}
        self.entities: dict[str, Entity] = {}
        self._alternates: dict[tuple[str, ...], Alternate] = {}  # one for those of the same choices

    def describe(self, commands: Iterable[Command], events: Iterable[EventClass]) -> list[Entity]:
        top: list[Entity] = []
        for command in commands:
            entity: Entity = {
                "name": command.name,
                "meta-type": "command",
                "arg-type": self.name(command.arguments),
                "ret-type": self.name(command.returns),
            }
            if command.oob:
                entity["allow-oob"] = True
            if command.features:
                entity["features"] = list(command.features)
            top.append(entity)
        top += [
            {"name": event.name, "meta-type": "event", "arg-type": self.name(object_of(event.record))}
            for event in events
        ]
        return top + list(self.entities.values())

    def name(self, kind: Type) -> str:
        """The name of a type, described on first use."""
        if isinstance(kind, Builtin):
            return self._builtin(kind.name, kind.json_type)
        if isinstance(kind, Integer):
            return self._builtin("int", "int")
        if isinstance(kind, Object | Shape):
            kind = shown(kind)
            kind = kind if kind.members or kind.cases else object_of(Nothing)
        if kind not in self.names:
            if isinstance(kind, Array):
                return self._array(kind)
            if isinstance(kind, Alternate):
                kind = self._alternates.setdefault(tuple(map(self.name, kind.choices)), kind)
                if kind in self.names:
                    return self.names[kind]
            self.names[kind] = self._number(kind)
            self.entities[self.names[kind]] = {}  # in its place before what it refers to
            self.entities[self.names[kind]] |= {"name": self.names[kind], **self._content(kind)}
        return self.names[kind]

    def _number(self, kind: Type) -> str:
        number = zlib.crc32(_identity(kind).encode())
        while str(number % NUMBERS) in self.entities:
            number += 1
        return str(number % NUMBERS)

    def _builtin(self, name: str, json_type: str) -> str:
        self.entities.setdefault(name, {"name": name, "meta-type": "builtin", "json-type": json_type})
        return name

    def _array(self, kind: Array) -> str:
        element = self.name(kind.element)
        name = f"[{element}]"
        self.names[kind] = name
        self.entities[name] = {"name": name, "meta-type": "array", "element-type": element}
        return name

    def _content(self, kind: Type) -> Entity:
        if isinstance(kind, Enumeration):
            members = [{"name": each} for each in kind.values]
            return {"meta-type": "enum", "members": members, "values": kind.values}
        if isinstance(kind, Alternate):
            return {"meta-type": "alternate", "members": [{"type": self.name(each)} for each in kind.choices]}
        assert isinstance(kind, Object | Shape)
        content: Entity = {"meta-type": "object", "members": [self._member(each) for each in kind.members]}
        if kind.tag is not None:
            content["tag"] = kind.tag
            content["variants"] = [
                {"case": case, "type": self.name(kind.cases.get(case, object_of(Nothing)))}
                for case in self._cases(kind)
            ]
        return content

    def _cases(self, kind: Object | Shape) -> list[str]:
        tag = next(member.type for member in kind.members if member.name == kind.tag)
        assert isinstance(tag, Enumeration)
        return tag.values

    def _member(self, member: Any) -> Entity:
        entity: Entity = {"name": member.name, "type": self.name(member.type)}
        if member.optional:
            entity["default"] = None
        return entity


def _identity(kind: Type) -> str:
    """What a type is called in these sources, which its number comes from."""
    if isinstance(kind, Object):
        return f"{kind.record.__module__}.{kind.record.__qualname__}"
    if isinstance(kind, Enumeration):
        return f"{kind.python.__module__}.{kind.python.__qualname__}"
    if isinstance(kind, Alternate):
        return "|".join(map(_identity, kind.choices))
    if isinstance(kind, Array):
        return f"[{_identity(kind.element)}]"
    return kind.name if isinstance(kind, Builtin | Shape) else "int"


if __name__ == "__main__":
    from aioemu.protocol.commands.table import COMMANDS
    from aioemu.protocol.events import EVENTS

    sys.stdout.buffer.writelines(keep(COMMANDS, EVENTS))
