"""Objects behind devices: iothreads, memory back ends, secrets, entropy."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from aioemu.devices.properties import WORDS
from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine, Objects
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record, Size, UInt8, UInt16, UInt32, UInt64, Union

_IDENTIFIER = re.compile(r"[A-Za-z][-A-Za-z0-9._]*")


class ObjectType(StrEnum):
    """The types of objects; a test holds this list to `machine/object_types.py`."""

    FILTER_DUMP = "filter-dump"
    IOTHREAD = "iothread"
    MEMORY_BACKEND_FILE = "memory-backend-file"
    MEMORY_BACKEND_MEMFD = "memory-backend-memfd"
    MEMORY_BACKEND_RAM = "memory-backend-ram"
    RNG_BUILTIN = "rng-builtin"
    RNG_RANDOM = "rng-random"
    SECRET = "secret"  # noqa: S105 a type, no secret
    THROTTLE_GROUP = "throttle-group"


class ThrottleLimits(Record):
    """Limits of a group of disks, for bytes and for operations; 0 is none."""

    bps_total: int | None = None
    bps_total_max: int | None = None
    bps_total_max_length: int | None = None
    bps_read: int | None = None
    bps_read_max: int | None = None
    bps_read_max_length: int | None = None
    bps_write: int | None = None
    bps_write_max: int | None = None
    bps_write_max_length: int | None = None
    iops_total: int | None = None
    iops_total_max: int | None = None
    iops_total_max_length: int | None = None
    iops_read: int | None = None
    iops_read_max: int | None = None
    iops_read_max_length: int | None = None
    iops_write: int | None = None
    iops_write_max: int | None = None
    iops_write_max_length: int | None = None
    iops_size: int | None = None


KINDS: Mapping[str, Any] = {
    "bool": bool,
    "size": Size,
    "uint8": UInt8,
    "uint16": UInt16,
    "uint32": UInt32,
    "uint64": UInt64,
    "ThrottleLimits": ThrottleLimits,
}


def _cases() -> dict[str, type[Record]]:
    """Each type's members, from the declarations that make it."""
    from aioemu.machine.object_types import OBJECT_TYPES  # few clients make objects

    return {each.name: _record(each.name, each.properties) for each in OBJECT_TYPES}


def _record(name: str, properties: type[Any]) -> type[Record]:
    """A record of a type's properties."""
    fields: list[Any] = []
    for field in dataclasses.fields(properties):
        of = _annotation(field.metadata["kind"])
        fields.append((field.name, of) if field.metadata["needed"] else (field.name, of | None, None))
    made = msgspec.defstruct(f"{name.title().replace('-', '')}Properties", fields, bases=(Record,), kw_only=True)
    assert issubclass(made, Record)
    made.__doc__ = (properties.__doc__ or "").strip().rstrip(".") + "."
    return made


def _annotation(kind: str) -> Any:
    """The annotation of a property of this kind."""
    if kind not in WORDS:
        return KINDS.get(kind, str)
    made = StrEnum(kind, {word.upper(): word for word in WORDS[kind]})  # type: ignore[misc]
    made.__doc__ = "One of these words."
    return made


class ObjectAdd(Union, kw_only=True):
    """An object's type and id; its type says which further members there are."""

    tag = "qom-type"
    cases = _cases

    qom_type: ObjectType
    id: str


class ObjectId(Record):
    """Which object."""

    id: str


class ObjectsMachine(Machine):
    """A machine that takes objects."""

    objects: Objects


@command("object-add", needs=("objects",))
async def object_add(machine: ObjectsMachine, args: ObjectAdd) -> None:
    """Make an object."""
    if not _IDENTIFIER.fullmatch(args.id):
        raise MonitorError("Parameter 'id' expects an identifier")
    if args.id in machine.objects.names():
        raise MonitorError(f"attempt to add duplicate property '{args.id}' to object (type 'container')")
    values = msgspec.to_builtins(args.branch) if args.branch is not None else {}
    await machine.objects.add(args.qom_type.value, args.id, values)


@command("object-del", needs=("objects",))
async def object_del(machine: ObjectsMachine, args: ObjectId) -> None:
    """End an object that nothing uses."""
    await machine.objects.remove(args.id)


COMMANDS = (object_add, object_del)
