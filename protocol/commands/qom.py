"""The object tree by paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine, QomObject
from aioemu.protocol.qom import resolve, root_of, set_property
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class QomPath(Record):
    """A path, absolute or a unique end of one."""

    path: str


class QomGet(Record):
    """Which property of which object."""

    path: str
    property: str


class QomSet(Record):
    """A property's new value."""

    path: str
    property: str
    value: Any


class ObjectPropertyInfo(Record):
    """A property; a child is one of type child<...>."""

    name: str
    type: str
    description: str | None = None
    default_value: Any = None


class TypeName(Record):
    """Which type."""

    typename: str


class QomListTypes(Record):
    """Only types that are (implements), abstract ones too."""

    implements: str | None = None
    abstract: bool | None = None


class ObjectTypeInfo(Record):
    """A type and what it is a kind of."""

    name: str
    abstract: bool | None = None
    parent: str | None = None


class QomType(msgspec.Struct):
    """What a machine says of a type (attribute `qom_types`: a sequence of these)."""

    name: str
    parent: str | None
    abstract: bool
    is_device: bool
    properties: Sequence[ObjectPropertyInfo]


class TypesMachine(Machine):
    """A machine that knows which types there are."""

    qom_types: Sequence[QomType]


@command("qom-list")
def qom_list(machine: Machine, args: QomPath) -> list[ObjectPropertyInfo]:
    """List an object's properties and children."""
    return _list(resolve(root_of(machine), args.path)[1])


@command("qom-get")
def qom_get(machine: Machine, args: QomGet) -> Any:
    """Read a property; a child's value is its path."""
    path, node = resolve(root_of(machine), args.path)
    if args.property == "type":
        return node.type
    if args.property in node.children():
        return f"{path.rstrip('/')}/{args.property}"
    known = node.properties().get(args.property)
    if known is None:
        raise MonitorError(f"Property '{node.type}.{args.property}' not found")
    return known.read()


@command("qom-set")
def qom_set(machine: Machine, args: QomSet) -> None:
    """Set a property that can be set."""
    set_property(resolve(root_of(machine), args.path)[1], args.property, args.value)


@command("qom-list-types", needs=("qom_types",))
def qom_list_types(machine: TypesMachine, args: QomListTypes) -> list[ObjectTypeInfo]:
    """List the types."""
    by_name = {each.name: each for each in machine.qom_types}
    return [
        ObjectTypeInfo(name=each.name, abstract=each.abstract or None, parent=each.parent)
        for each in machine.qom_types
        if (args.abstract or not each.abstract) and _is_a(by_name, each.name, args.implements)
    ]


@command("qom-list-properties", needs=("qom_types",))
def qom_list_properties(machine: TypesMachine, args: TypeName) -> list[ObjectPropertyInfo]:
    """List the properties of a type."""
    for each in machine.qom_types:
        if each.name == args.typename:
            return list(each.properties)
    raise MonitorError(f"Class '{args.typename}' not found", "DeviceNotFound")


@command("device-list-properties", needs=("qom_types",))
def device_list_properties(machine: TypesMachine, args: TypeName) -> list[ObjectPropertyInfo]:
    """List the properties of a device model."""
    for each in machine.qom_types:
        if each.name == args.typename:
            if not each.is_device or each.abstract:
                raise MonitorError("Parameter 'typename' expects a non-abstract device type")
            return list(each.properties)
    raise MonitorError(f"Device '{args.typename}' not found", "DeviceNotFound")


def _list(node: QomObject) -> list[ObjectPropertyInfo]:
    listed = [ObjectPropertyInfo(name="type", type="string")]
    for name, known in node.properties().items():
        listed.append(
            ObjectPropertyInfo(name=name, type=known.type, description=known.description, default_value=known.default)
        )
    listed += [ObjectPropertyInfo(name=name, type=f"child<{each.type}>") for name, each in node.children().items()]
    return listed


def _is_a(by_name: dict[str, QomType], name: str | None, wanted: str | None) -> bool:
    if wanted is None:
        return True
    while name is not None:
        if name == wanted:
            return True
        name = by_name[name].parent if name in by_name else None
    return False


COMMANDS = (qom_list, qom_get, qom_set, qom_list_types, qom_list_properties, device_list_properties)
