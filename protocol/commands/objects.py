"""Objects behind devices: iothreads, memory back ends, secrets, entropy."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine, Objects
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record

_IDENTIFIER = re.compile(r"[A-Za-z][-A-Za-z0-9._]*")


class ObjectAdd(Record):
    """An object's type and id; its type says which further members it takes."""

    takes_any: ClassVar = True
    hidden: ClassVar = ("extra",)

    qom_type: str
    id: str
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class ObjectId(Record):
    """Which object."""

    id: str


class ObjectsMachine(Machine):
    """A machine that takes objects."""

    objects: Objects


@command("object-add", needs=("objects",))
async def object_add(machine: ObjectsMachine, args: ObjectAdd) -> None:
    """Make an object."""
    if args.qom_type not in machine.objects.types():
        raise MonitorError(f"Parameter 'qom-type' does not accept value '{args.qom_type}'")
    if not _IDENTIFIER.fullmatch(args.id):
        raise MonitorError("Parameter 'id' expects an identifier")
    if args.id in machine.objects.names():
        raise MonitorError(f"attempt to add duplicate property '{args.id}' to object (type 'container')")
    await machine.objects.add(args.qom_type, args.id, args.extra)


@command("object-del", needs=("objects",))
async def object_del(machine: ObjectsMachine, args: ObjectId) -> None:
    """End an object that nothing uses."""
    await machine.objects.remove(args.id)


COMMANDS = (object_add, object_del)
