"""The object tree of a machine that has none of its own: board, processors, devices, objects, chardevs.

What a node shows comes from the declarations that also read the command line. Built anew for each command that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from aioemu.protocol.machine import Devices, LiveProperty, Machine, Objects, OnBoard, QomObject, QomProperty
from aioemu.protocol.qom import Node, Property

# what belongs to the PCI function around a virtio device, and not to the device
TRANSPORT = frozenset(("vectors", "disable-legacy", "disable-modern", "addr", "multifunction", "romfile", "rombar"))


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
            "backend": Node("container"),
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
    board.own["smp"] = Property("SMPConfiguration", lambda: _smp(config.smp))
    board.own["memory"] = Property("MemorySizeConfiguration", lambda: _sizes(memory))
    board.inner = {
        "peripheral": _peripherals(machine, "/machine/peripheral/"),
        "peripheral-anon": _peripherals(machine, "/machine/peripheral-anon/"),
        "unattached": Node("container", inner=dict(_processors(machine))),
    }
    _add_parts(machine, board)
    return board


def _sizes(memory: Any) -> dict[str, int]:
    most = memory.max_bytes or memory.size_bytes
    return {"size": memory.size_bytes, "slots": memory.slots, "max-size": most}


def _smp(smp: Any) -> dict[str, int]:
    return {name: getattr(smp, name) for name in ("cpus", "sockets", "dies", "cores", "threads", "maxcpus")}


def _add_parts(machine: Machine, board: Node) -> None:
    """What the board has anyway, each inside what its path says."""
    list_parts: Callable[[], Sequence[OnBoard]] | None = getattr(machine, "onboard", None)
    for part in list_parts() if list_parts is not None else ():
        *above, name = part.path.removeprefix("/machine/").split("/")
        node = board
        for each in above:
            node = cast("Node", node.inner[each])
        node.inner[name] = Node(part.type, _properties(part.properties))
        if "date" in part.properties:  # of the machine as a whole
            board.own["rtc-time"] = _properties(part.properties)["date"]


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
            if model.startswith("virtio-") and not model.endswith("-device"):  # a transport, and what it carries
                kind = model.removesuffix("-non-transitional").removesuffix("-pci")
                carried = {each: value for each, value in node.own.items() if each not in TRANSPORT}
                node.inner["virtio-backend"] = Node(f"{kind}-device", carried)
            if model == "pcie-root-port":
                node.inner[name] = Node("PCIE", {"realized": _fixed("bool", True)})
            inner[path.removeprefix(under)] = node
    return Node("container", inner=inner)


def _objects(objects: Objects) -> dict[str, QomObject]:
    return {name: Node(kind, _properties(objects.find(name).live())) for name, kind in objects.names().items()}


def _properties(live: Mapping[str, LiveProperty]) -> dict[str, Any]:
    return {name: _property(each) for name, each in live.items()}


def _property(live: LiveProperty) -> Property:
    if live.kind.startswith("link<"):  # of an object, by its id
        return Property(
            live.kind, lambda: f"/objects/{name}" if (name := live.read()) else "", None, live.about or None
        )
    return Property("string" if live.kind == "str" else live.kind, live.read, live.write, live.about or None)


def _chardev(info: Any) -> Node:
    kind = info.filename.partition(":")[0]
    own: dict[str, QomProperty] = {"connected": _fixed("bool", not info.filename.startswith("disconnected:"))}
    name = "socket" if kind in ("unix", "tcp", "telnet", "disconnected") else kind
    return Node(f"chardev-{name}", own if name == "socket" else {})


def _fixed(kind: str, value: Any) -> Property:
    return Property(kind, lambda: ("" if value is None else str(value)) if kind == "string" else value)
