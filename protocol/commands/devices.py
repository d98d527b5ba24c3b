"""Devices that come and go while the guest runs (QAPI qdev.json)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Devices, Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record

PERIPHERAL = "/machine/peripheral/"
_IDENTIFIER = re.compile(r"[A-Za-z][-A-Za-z0-9._]*")


class DeviceAdd(Record):
    """A device's model, where it goes, what it is called; its model says which further members it takes."""

    takes_any: ClassVar = True
    hidden: ClassVar = ("extra",)

    driver: str
    bus: str | None = None
    id: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    @staticmethod
    def further(given: dict[str, Any]) -> Iterable[str]:
        """The properties of the model that is named, if there is one."""
        from aioemu.protocol.qom_types import all_types  # these tables cost, and clients do not need them

        model = all_types().get(given.get("driver", ""))
        return () if model is None else (each.name for each in model.properties)


class DeviceId(Record):
    """Which device: its id, or its path in the object tree."""

    id: str


class DevicesMachine(Machine):
    """A machine with slots for devices."""

    devices: Devices


@command("device_add", needs=("devices",), features=("json-cli", "json-cli-hotplug"))
def device_add(machine: DevicesMachine, args: DeviceAdd) -> None:
    """Plug in a device; the guest is told."""
    if args.id is not None and not _IDENTIFIER.fullmatch(args.id):
        raise MonitorError("Parameter 'id' expects an identifier")
    if args.id is not None and args.id in machine.devices.names():
        raise MonitorError(f"Duplicate device ID '{args.id}'")
    machine.devices.add(args.driver, args.id, args.bus, args.extra)


@command("device_del", needs=("devices",))
def device_del(machine: DevicesMachine, args: DeviceId) -> None:
    """Ask the guest to let a device go; DEVICE_DELETED comes when it did."""
    devices = machine.devices
    paths = {devices.path(name): name for name in devices.names()}
    name = paths.get(args.id if args.id.startswith("/") else f"{PERIPHERAL}{args.id}")
    if name is None:
        raise MonitorError(f"Device '{args.id}' not found", "DeviceNotFound")
    devices.remove(name)


COMMANDS = (device_add, device_del)
