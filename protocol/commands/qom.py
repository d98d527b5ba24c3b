"""The object tree by paths."""

from __future__ import annotations

from typing import Any

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine, QomObject
from aioemu.protocol.qom import resolve, root_of, set_property
from aioemu.protocol.qom_types import QomType, all_types, is_kind_of
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


@command("qom-list-types")
def qom_list_types(machine: Machine, args: QomListTypes) -> list[ObjectTypeInfo]:
    """List the types."""
    types = all_types()
    return [
        ObjectTypeInfo(name=each.name, abstract=each.abstract or None, parent=each.parent)
        for each in types.values()
        if (args.abstract or not each.abstract) and is_kind_of(types, each.name, args.implements or "object")
    ]


@command("qom-list-properties")
def qom_list_properties(machine: Machine, args: TypeName) -> list[ObjectPropertyInfo]:
    """List the properties of a type."""
    found = all_types().get(args.typename)
    if found is None:
        raise MonitorError(f"Class '{args.typename}' not found", "DeviceNotFound")
    return [ObjectPropertyInfo(name="type", type="string"), *_declared(found)]


@command("device-list-properties")
def device_list_properties(machine: Machine, args: TypeName) -> list[ObjectPropertyInfo]:
    """List what -device reads for a device model."""
    found = all_types().get(args.typename)
    if found is None:
        raise MonitorError(f"Device '{args.typename}' not found", "DeviceNotFound")
    if not found.is_device:
        raise MonitorError("Parameter 'typename' expects a non-abstract device type")
    return _declared(found)


def _declared(kind: QomType) -> list[ObjectPropertyInfo]:
    return [
        ObjectPropertyInfo(name=each.name, type=each.type, description=each.description, default_value=each.default)
        for each in kind.properties
    ]


def _list(node: QomObject) -> list[ObjectPropertyInfo]:
    listed = [ObjectPropertyInfo(name="type", type="string")]
    for name, known in node.properties().items():
        listed.append(
            ObjectPropertyInfo(name=name, type=known.type, description=known.description, default_value=known.default)
        )
    listed += [ObjectPropertyInfo(name=name, type=f"child<{each.type}>") for name, each in node.children().items()]
    return listed


COMMANDS = (qom_list, qom_get, qom_set, qom_list_types, qom_list_properties, device_list_properties)
