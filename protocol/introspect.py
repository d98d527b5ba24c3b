"""The answer of query-qmp-schema: every command, event and type as a flat list of entities that refer by name.

Only commands and events have names that mean something; types are numbered, as clients are used to. Array types are
named after their element, builtins are themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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


def describe(commands: Iterable[Command], events: Iterable[EventClass]) -> list[Entity]:
    """The whole schema."""
    return _Describer().describe(commands, events)


class _Describer:
    def __init__(self) -> None:
        self.names: dict[Type, str] = {}
        self.entities: dict[str, Entity] = {}

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
            self.names[kind] = str(len(self.names))
            self.entities[self.names[kind]] = {}  # in its place before what it refers to
            self.entities[self.names[kind]] |= {"name": self.names[kind], **self._content(kind)}
        return self.names[kind]

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
