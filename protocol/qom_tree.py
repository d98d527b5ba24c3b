"""The object tree of a machine that has none of its own: board, processors, devices, objects, chardevs.

What a node shows comes from the declarations that also read the command line. Built anew for each command that asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aioemu.protocol.machine import Devices, LiveProperty, Machine, Objects, QomObject, QomProperty
from aioemu.protocol.qom import Node, Property


def tree_of(machine: Machine) -> Node:
    """The root."""
    objects = getattr(machine, "objects", None)
    chardevs = {each.label: _chardev(each) for each in machine.chardevs.query()}
    return Node(
        "container",
        inner={
            "machine": _board(machine),
            "objects": Node("container", inner=_objects(objects) if objects is not None else {}),
            "chardevs": Node("container", inner=dict(chardevs)),
        },
    )


def _board(machine: Machine) -> Node:
    config = machine.config
    board = Node(f"{config.machine.type or 'none'}-machine")
    boot = {name: getattr(config.boot, name) for name in ("kernel", "initrd", "append", "dtb")}
    memory = config.memory
    shown = {**boot, "memory-backend": memory.backend, "usb": False, "graphics": False, "dump-guest-core": True}
    for name, value in shown.items():
        board.own[name] = _fixed("bool" if isinstance(value, bool) else "string", value)
    board.inner = {
        "peripheral": _peripherals(machine, "/machine/peripheral/"),
        "peripheral-anon": _peripherals(machine, "/machine/peripheral-anon/"),
        "unattached": Node("container", inner=dict(_processors(machine))),
    }
    return board


def _processors(machine: Machine) -> dict[str, Node]:
    model = machine.config.cpu.name if machine.config.cpu is not None else "max"
    found = {}
    for vcpu in getattr(machine, "vcpus", None) or ():
        own = {"thread-id": _fixed("int", vcpu.thread_id), "realized": _fixed("bool", True)}
        own |= {name: _fixed("int32", value) for name, value in vcpu.topology.items() if name != "thread-id"}
        found[f"device[{vcpu.index}]"] = Node(f"{model}-x86_64-cpu", dict(own))
    return found


def _peripherals(machine: Machine, under: str) -> Node:
    """The devices whose path begins with (under)."""
    devices: Devices | None = getattr(machine, "devices", None)
    inner: dict[str, QomObject] = {}
    for name, model in devices.names().items() if devices is not None else ():
        assert devices is not None
        path = devices.path(name)
        if path.startswith(under):
            node = Node(model, _properties(devices.describe(name)))
            if model.startswith("virtio-"):  # a transport, and what it carries
                kind = model.removesuffix("-non-transitional").removesuffix("-pci").removesuffix("-device")
                node.inner["virtio-backend"] = Node(f"{kind}-device", node.own)
            inner[path.removeprefix(under)] = node
    return Node("container", inner=inner)


def _objects(objects: Objects) -> dict[str, QomObject]:
    return {name: Node(kind, _properties(objects.find(name).live())) for name, kind in objects.names().items()}


def _properties(live: Mapping[str, LiveProperty]) -> dict[str, Any]:
    return {
        name: Property("string" if each.kind == "str" else each.kind, each.read, each.write, each.about or None)
        for name, each in live.items()
    }


def _chardev(info: Any) -> Node:
    kind = info.filename.partition(":")[0]
    own: dict[str, QomProperty] = {"connected": _fixed("bool", not info.filename.startswith("disconnected:"))}
    name = "socket" if kind in ("unix", "tcp", "telnet", "disconnected") else kind
    return Node(f"chardev-{name}", own if name == "socket" else {})


def _fixed(kind: str, value: Any) -> Property:
    return Property(kind, lambda: ("" if value is None else str(value)) if kind == "string" else value)
