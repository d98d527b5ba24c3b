"""What blockdev-add, blockdev-reopen and blockdev-create take, described from the declarations that read it.

The block layer checks the options itself (`blockdev/options.py`); nothing here is looked at before a client asks for
the description or the reference is written.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from functools import cache
from typing import Any

from aioemu.blockdev.options import NodeOptions, option_names
from aioemu.blockdev.registry import DRIVERS, find_driver
from aioemu.protocol.schema import (
    BOOL,
    INT,
    NULL,
    STR,
    Alternate,
    Array,
    Enumeration,
    Member,
    Shape,
    Type,
    UInt64,
    type_of,
)

BlockdevDriver = StrEnum("BlockdevDriver", {name.upper().replace("-", "_"): name for name in DRIVERS})  # type: ignore[misc]
BlockdevDriver.__doc__ = "The drivers of block nodes."
SIZE = type_of(UInt64)


@cache
def blockdev_options() -> Shape:
    """A block node: what each has, and what its driver takes on top."""
    whole = Shape("BlockdevOptions", "A node: its driver and name, and what its driver takes.", tag="driver")
    common = option_names(NodeOptions)
    reader = _Reader(whole)
    whole.members = [Member("driver", "driver", type_of(BlockdevDriver), False), *reader.members(NodeOptions)]
    for name in DRIVERS:
        kind = find_driver(name)
        case = Shape(f"BlockdevOptions{_title(name)}", (kind.options_type.__doc__ or "").strip())
        case.members = reader.members(kind.options_type, without=set(common))
        whole.cases[name] = case
    return whole


@cache
def blockdev_create_options() -> Shape:
    """A new image: its driver, and what this one takes."""
    whole = Shape("BlockdevCreateOptions", "An image to be made: its driver, and what this one takes.", tag="driver")
    whole.members = [Member("driver", "driver", type_of(BlockdevDriver), False)]
    reader = _Reader(blockdev_options())
    for name in DRIVERS:
        kind = find_driver(name).create_type
        if kind is not None:
            case = Shape(f"BlockdevCreateOptions{_title(name)}", f"A new `{name}` image.")
            case.members = reader.members(kind)
            whole.cases[name] = case
    return whole


def _title(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace("_", "-").split("-"))


@cache
def _words(words: tuple[str, ...]) -> Enumeration:
    """An enumeration without a name of its own, called after its words."""
    made = StrEnum("".join(map(_title, words)), {word.upper().replace("-", "_"): word for word in words})  # type: ignore[misc]
    made.__doc__ = "One of these words."
    return Enumeration(made)


class _Reader:
    """Makes types of the options' declarations; a child is a node's name or the options of a new one."""

    def __init__(self, node: Shape) -> None:
        self._child = Alternate([node, STR])
        self._optional_child = Alternate([node, STR, NULL])
        self._groups: dict[type[Any], Shape] = {}

    def members(self, schema: type[Any], without: set[str] | None = None) -> list[Member]:
        """The options that `schema` declares."""
        found = []
        for name, field in option_names(schema).items():
            kind = self._type(field.metadata)
            if kind is not None and name not in (without or ()):
                needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
                found.append(Member(name, field.name, kind, not needed))
        return found

    def _type(self, metadata: Any) -> Type | None:
        kind = metadata["kind"]
        if kind == "any":
            shapes = [self._shape(each) for each in metadata["shape"]]
            return Alternate(shapes) if len(shapes) > 1 else shapes[0] if shapes else None
        if kind == "child":
            return self._optional_child if metadata["optional"] else self._child
        if kind == "choice":
            return _words(metadata["words"])
        if kind == "nested":
            return self._group(metadata["schema"])
        scalars: dict[str, Type] = {"text": STR, "flag": BOOL, "size": SIZE, "number": INT}
        return scalars[kind]

    def _shape(self, shape: Any) -> Type:
        if isinstance(shape, tuple):
            return _words(shape)
        return Array(self._shape(shape[0])) if isinstance(shape, list) else self._group(shape)

    def _group(self, schema: type[Any]) -> Shape:
        if schema not in self._groups:
            about = (schema.__doc__ or "").strip()
            self._groups[schema] = Shape(schema.__name__, about, self.members(schema))
        return self._groups[schema]
