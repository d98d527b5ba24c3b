"""The types of the object tree: device models with the properties of -device, boards, and what they are kinds of.

Only what this version can make is listed, from the very declarations that make it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

ABSTRACT = {
    "object": None,
    "device": "object",
    "machine": "object",
    "bus": "object",
    "chardev": "object",
    "cpu": "device",
    "sys-bus-device": "device",
    "isa-device": "device",
    "pci-device": "device",
    "virtio-device": "device",
    "event-loop-base": "object",
    "memory-backend": "object",
    "netfilter": "object",
    "rng-backend": "object",
}
OBJECT_BASES = {
    "iothread": "event-loop-base",
    "memory-backend-": "memory-backend",
    "filter-": "netfilter",
    "rng-": "rng-backend",
}
USER_CREATABLE = "user-creatable"  # what -object makes
ON_BOARD = {  # what the tree shows that nobody can make
    "container": "object",
    "PCI": "bus",
    "PCIE": "PCI",
    "ISA": "bus",
    "q35-pcihost": "sys-bus-device",
    "ioapic": "sys-bus-device",
    "mch": "pci-device",
    "ICH9-LPC": "pci-device",
    "mc146818rtc": "isa-device",
    "isa-i8259": "isa-device",
    "isa-pit": "isa-device",
    "i8042": "isa-device",
    "port92": "isa-device",
    "serial": "device",
    "ps2-kbd": "sys-bus-device",
    "chardev-socket": "chardev",
    "chardev-file": "chardev",
    "chardev-null": "chardev",
    "chardev-pty": "chardev",
    "chardev-pipe": "chardev",
    "chardev-stdio": "chardev",
    "chardev-ringbuf": "chardev",
    "chardev-serial": "chardev",
    "chardev-hub": "chardev",
    "chardev-mux": "chardev",
    "chardev-console": "chardev",
}
_BUS_KINDS = {"ISA": "isa-device", "PCI": "pci-device", "virtio-bus": "virtio-device"}


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
    interfaces: tuple[str, ...] = ()
    properties: tuple[TypeProperty, ...] = ()


def all_types() -> dict[str, QomType]:
    """Every type by name."""
    return {each.name: each for each in _types()}


def is_kind_of(types: dict[str, QomType], name: str | None, wanted: str) -> bool:
    """Whether (name) is (wanted) or a kind of it."""
    while name is not None:
        if name == wanted or (name in types and wanted in types[name].interfaces):
            return True
        name = types[name].parent if name in types else None
    return False


def _types() -> Iterator[QomType]:
    from aioemu.accel.cpuid import MODELS
    from aioemu.devices.catalog import DEVICES  # these cost more than everything else here, and few ask
    from aioemu.devices.pci.place import PciPlace
    from aioemu.machine.boards import BOARDS
    from aioemu.machine.object_types import OBJECT_TYPES

    for name, parent in ABSTRACT.items():
        yield QomType(name, parent, abstract=True)
    for board in BOARDS:
        yield QomType(f"{board.name}-machine", "machine")
    for model in MODELS.values():
        yield QomType(f"{model.name}-x86_64-cpu", "cpu")
    for device in DEVICES:
        parent = _BUS_KINDS.get(device.bus, "device")
        properties = _properties(device.properties)
        if "PCI" in device.bus:
            properties += _properties(PciPlace)
        yield QomType(device.name, parent, is_device=True, properties=properties)
    for kind in OBJECT_TYPES:
        parent = next((base for start, base in OBJECT_BASES.items() if kind.name.startswith(start)), "object")
        yield QomType(kind.name, parent, interfaces=(USER_CREATABLE,), properties=_properties(kind.properties))
    for name, parent in ON_BOARD.items():
        yield QomType(name, parent)


def _properties(schema: type[Any]) -> tuple[TypeProperty, ...]:
    from aioemu.devices.properties import default_of, property_name

    return tuple(
        TypeProperty(
            property_name(each),
            each.metadata["kind"],
            each.metadata["about"] or None,
            default_of(each),
        )
        for each in dataclasses.fields(schema)
    )
