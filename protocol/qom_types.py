"""The types of the object tree: device models with the properties of -device, boards, and what they are kinds of.

Only what this version can make is listed, from the very declarations that make it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

ABSTRACT = {"object": None, "device": "object", "machine": "object", "isa-device": "device", "pci-device": "device"}
_BUS_KINDS = {"ISA": "isa-device", "PCI": "pci-device"}


@dataclasses.dataclass(frozen=True)
class TypeProperty:
    """A property as a type declares it."""

    name: str
    type: str
    description: str | None
    default: Any


@dataclasses.dataclass(frozen=True)
class QomType:
    """A type, what it is a kind of, and its own properties."""

    name: str
    parent: str | None
    abstract: bool = False
    is_device: bool = False
    properties: tuple[TypeProperty, ...] = ()


def all_types() -> dict[str, QomType]:
    """Every type by name."""
    return {each.name: each for each in _types()}


def is_kind_of(types: dict[str, QomType], name: str | None, wanted: str) -> bool:
    """Whether (name) is (wanted) or a kind of it."""
    while name is not None:
        if name == wanted:
            return True
        name = types[name].parent if name in types else None
    return False


def _types() -> Iterator[QomType]:
    from aioemu.devices.catalog import DEVICES  # these cost more than everything else here, and few ask
    from aioemu.machine.boards import BOARDS

    for name, parent in ABSTRACT.items():
        yield QomType(name, parent, abstract=True)
    for board in BOARDS:
        yield QomType(f"{board.name}-machine", "machine")
    for device in DEVICES:
        parent = _BUS_KINDS.get(device.bus, "device")
        yield QomType(device.name, parent, is_device=True, properties=_properties(device.properties))


def _properties(schema: type[Any]) -> tuple[TypeProperty, ...]:
    from aioemu.devices.properties import property_name

    return tuple(
        TypeProperty(
            property_name(each),
            each.metadata["kind"],
            each.metadata["about"] or None,
            None if each.default is dataclasses.MISSING else each.default,
        )
        for each in dataclasses.fields(schema)
    )
