"""The reference page of the protocol, written from the declarations that serve it.

python -m aioemu.protocol.reference > docs/qmp-reference.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.events import EVENTS
from aioemu.protocol.registry import Command, EventClass
from aioemu.protocol.schema import (
    Alternate,
    Array,
    Builtin,
    Enumeration,
    Integer,
    Member,
    Object,
    Shape,
    Type,
    object_of,
    shown,
)

INTRODUCTION = """# QMP reference

Written by `python -m aioemu.protocol.reference`; a test keeps it current. Names and types are those of QEMU 10.0's
QAPI, narrowed to what aioemu serves. A command that needs something of the machine (named below) is listed by
`query-commands` only on machines that have it.
"""


def write(commands: Iterable[Command] = COMMANDS, events: Iterable[EventClass] = EVENTS) -> str:
    """The whole page."""
    page = _Page()
    lines = [INTRODUCTION, "## Commands", ""]
    for command in sorted(commands, key=lambda each: each.name):
        lines += page.command(command)
    lines += ["## Events", ""]
    for event in sorted(events, key=lambda each: each.name):
        lines += page.event(event)
    lines += ["## Types", "", *page.types()]
    return "\n".join(lines).rstrip() + "\n"


class _Page:
    """Writes entries and remembers which types they speak of."""

    def __init__(self) -> None:
        self._types: dict[str, Object | Shape | Enumeration] = {}

    def command(self, command: Command) -> Iterator[str]:
        yield from (f"### {command.name}", "", command.doc, "")
        if command.oob:
            yield from ("May run out of band.", "")
        if command.needs:
            yield from (f"Needs of the machine: {', '.join(command.needs)}.", "")
        yield from self._members(command.arguments, "Arguments")
        returns = command.returns
        if not isinstance(returns, Object) or returns.members:
            yield from (f"Returns: {self._name(returns)}", "")

    def event(self, event: EventClass) -> Iterator[str]:
        yield from (f"### {event.name}", "", event.record.__doc__ or "", "")
        if event.limited:
            each = f" for each {event.key}" if event.key else ""
            yield from (f"At most one a second{each}; the last one is not lost.", "")
        yield from self._members(object_of(event.record), "Data")

    def types(self) -> Iterator[str]:
        """The types spoken of, and those that they speak of in turn."""
        done: set[str] = set()
        while left := sorted(set(self._types) - done):
            for name in left:
                done.add(name)
                list(self._type(self._types[name]))  # names what it speaks of
        for name in sorted(done):
            yield from (f"### {name}", "")
            yield from self._type(self._types[name])

    def _known(self, kind: Object | Shape) -> tuple[str, str]:
        """An object's name, and what it says of itself."""
        return (kind.name, kind.about) if isinstance(kind, Shape) else (kind.record.__name__, kind.record.__doc__ or "")

    def _type(self, kind: Object | Shape | Enumeration) -> Iterator[str]:
        if isinstance(kind, Enumeration):
            yield from (kind.python.__doc__ or "", "", ", ".join(f"`{value}`" for value in kind.values), "")
            return
        yield from (self._known(kind)[1], "")
        yield from self._members(kind, "Members")
        for case, each in kind.cases.items():
            yield f"With `{kind.tag}` `{case}` also {self._inline(each)}."
        if kind.cases:
            yield ""

    def _members(self, given: Object | Shape, title: str) -> Iterator[str]:
        kind = shown(given)
        if not kind.members:
            return
        if kind.cases and title == "Arguments":
            self._types[self._known(kind)[0]] = kind
        yield from (f"{title}:", "")
        yield from (self._member(each) for each in kind.members)
        if isinstance(kind, Object) and kind.record.takes_any:
            yield "- any further member"
        yield ""

    def _member(self, member: Member) -> str:
        return f"- `{member.name}`: {self._name(member.type)}{' (optional)' if member.optional else ''}"

    def _inline(self, kind: Object | Shape) -> str:
        if not kind.members:
            return "nothing"
        return ", ".join(self._member(each).removeprefix("- ") for each in kind.members)

    def _name(self, kind: Type) -> str:
        if isinstance(kind, Builtin):
            return kind.name
        if isinstance(kind, Integer):
            return kind.range.name.removesuffix("_t")
        if isinstance(kind, Array):
            return f"list of {self._name(kind.element)}"
        if isinstance(kind, Alternate):
            return " or ".join(self._name(each) for each in kind.choices)
        assert isinstance(kind, Object | Shape | Enumeration)
        kind = kind if isinstance(kind, Enumeration) else shown(kind)
        name = kind.python.__name__ if isinstance(kind, Enumeration) else self._known(kind)[0]
        self._types[name] = kind
        return f"[{name}](#{name.lower()})"


if __name__ == "__main__":
    sys.stdout.write(write())
