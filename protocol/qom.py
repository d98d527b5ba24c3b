"""The object tree: what a path names, typed properties, and the tree of a machine that has none of its own.

A machine that describes itself (attribute `qom`) is shown as it says; else the tree is `qom_tree.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine, QomObject, QomProperty
from aioemu.protocol.schema import ANY, BOOL, INT, STR, Integer, IntRange, Type

TYPES: Mapping[str, Type] = {
    "ThrottleLimits": ANY,
    "bool": BOOL,
    "int": INT,
    "string": STR,
    "str": STR,
    "size": Integer(IntRange("uint64", 0, (1 << 64) - 1)),
    **{f"uint{bits}": Integer(IntRange(f"uint{bits}_t", 0, (1 << bits) - 1)) for bits in (8, 16, 32, 64)},
    **{f"int{bits}": Integer(IntRange(f"int{bits}_t", -(1 << bits - 1), (1 << bits - 1) - 1)) for bits in (8, 16, 32)},
}


@dataclass
class Property:
    """A property that reads, and perhaps writes, something that is elsewhere."""

    type: str
    read: Callable[[], Any]
    write: Callable[[Any], None] | None = None
    description: str | None = None
    default: Any = None


@dataclass
class Node:
    """An object made of given properties and children; `listing` adds children that come and go."""

    type: str
    own: dict[str, QomProperty] = field(default_factory=dict)
    inner: dict[str, QomObject] = field(default_factory=dict)
    listing: Callable[[], Mapping[str, QomObject]] | None = None

    def properties(self) -> Mapping[str, QomProperty]:
        return self.own

    def children(self) -> Mapping[str, QomObject]:
        return {**self.inner, **self.listing()} if self.listing is not None else self.inner


def resolve(root: QomObject, path: str) -> tuple[str, QomObject]:
    """The object that (path) names, with its absolute path: from the root, or any end of a path that is unique."""
    parts = [part for part in path.split("/") if part]
    if path.startswith("/"):
        found = _descend(root, parts)
        if found is None:
            raise MonitorError(f"Device '{path}' not found", "DeviceNotFound")
        return "/" + "/".join(parts), found
    matches = [(at, found) for at, node in _walk(root, "") if (found := _descend(node, parts)) is not None]
    if not matches:
        raise MonitorError(f"Device '{path}' not found", "DeviceNotFound")
    if len(matches) > 1:
        raise MonitorError(f"Path '{path}' is ambiguous")
    return f"{matches[0][0]}/{'/'.join(parts)}", matches[0][1]


def set_property(node: QomObject, name: str, value: Any) -> None:
    """Set a property to a decoded JSON value of its type."""
    known = node.properties().get(name)
    if known is None and name not in node.children() and name != "type":
        raise MonitorError(f"Property '{node.type}.{name}' not found")
    if known is None or known.write is None:
        raise MonitorError(f"Property '{node.type}.{name}' is not writable")
    known.write(TYPES.get(known.type, STR).load(value, name, name))


def root_of(machine: Machine) -> QomObject:
    """The machine's tree."""
    own: QomObject | None = getattr(machine, "qom", None)
    if own is not None:
        return own
    from aioemu.protocol.qom_tree import tree_of  # few ask

    return tree_of(machine)


def _descend(node: QomObject | None, parts: list[str]) -> QomObject | None:
    for part in parts:
        if node is None:
            return None
        node = node.children().get(part)
    return node


def _walk(node: QomObject, path: str) -> Iterator[tuple[str, QomObject]]:
    yield path, node
    for name, child in node.children().items():
        yield from _walk(child, f"{path}/{name}")
