"""The machine's devices as text, for monitors: by the bus they are on (`info qtree`), and PCI alone (`info pci`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from aioemu.devices.pci.bus import PciBus
    from aioemu.devices.pci.function import PciFunction
    from aioemu.devices.properties import Live
    from aioemu.machine.site import Site

INTERRUPT_LINE = 0x3C  # PCI 3.0, 6.2.4
CLASSES = {  # base class and subclass (PCI Code and ID Assignment 1.11)
    0x0100: "SCSI controller",
    0x0180: "Storage controller",
    0x0200: "Ethernet controller",
    0x0280: "Network controller",
    0x0500: "RAM controller",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0780: "Communication controller",
    0x0880: "System peripheral",
}

SERIAL_BUS = "virtio-serial-bus"
SAID_ELSEWHERE = ("realized", "hotplugged", "hotpluggable", "addr", "multifunction", "guest-stats")
BOARD_NAMES = {"host bridge": "mch", "LPC bridge": "ICH9-LPC"}


def pci_text(site: Site) -> str:
    """Bus, device and function of everything that answers now, its ids, its interrupt, its BARs."""
    lines = []
    for bus, devfn, function in _functions(site):
        number = _number(bus)
        lines.append(f"  Bus {number:2d}, device {devfn >> 3:3d}, function {devfn & 7}:")
        lines += [f"    {line}" for line in _describe(site, function)]
    return "".join(f"{line}\n" for line in lines)


class PciPlace(Struct, frozen=True):
    """One function as the guest sees it now."""

    bus: int
    slot: int
    function: int
    device: PciFunction
    name: str  # what the user called it
    description: str
    irq: int
    regions: tuple[tuple[int, str, int, int, bool], ...]  # BAR, kind, address (-1: none), size, prefetchable
    behind: int | None  # the bus behind a bridge


def pci_places(site: Site) -> list[PciPlace]:
    """Every PCI function, by its bus."""
    return [_place(site, *each) for each in _functions(site)]


def _place(site: Site, bus: PciBus, devfn: int, function: PciFunction) -> PciPlace:
    values = [function.bar[n] for n in range(len(function.bar))]
    regions = []
    for bar in function.bars:
        base = bar.spec.base(values)
        regions.append((bar.spec.index, bar.spec.kind, -1 if base is None else base, bar.spec.size, bar.spec.prefetch))
    behind = getattr(function, "behind", None)
    return PciPlace(
        bus=_number(bus),
        slot=devfn >> 3,
        function=devfn & 7,
        device=function,
        name=_id(site, function),
        description=_class(function),
        irq=function.read(INTERRUPT_LINE, 1),
        regions=tuple(regions),
        behind=_number(behind) if behind is not None else None,
    )


def device_text(site: Site) -> str:
    """The board's chips, then each PCI function with its properties and what is behind it."""
    from aioemu.machine.onboard import list_parts  # few ask

    lines = ["bus: main-system-bus", "  type System"]
    on_bus = ("PCIE", "ISA", "mch", "ICH9-LPC", "pci-device")
    for part in list_parts(site, 0):
        if part.type not in on_bus and part.path.count("/") == 3:
            lines += _device_lines(2, part.type, "", part.properties)
    for name, plugged in site.plugged.items():
        if "PCI" not in plugged.kind.bus and plugged.kind.bus != SERIAL_BUS:
            lines += _device_lines(2, plugged.kind.name, site.id_of(name), _properties(site, name))
    root = next(iter(site.buses.values()), None)
    if root is not None:
        lines.append('  dev: q35-pcihost, id ""')
        lines += _bus_lines(site, root, 4)
    return "".join(f"{line}\n" for line in lines)


def _device_lines(depth: int, kind: str, name: str, properties: Mapping[str, Live]) -> Iterator[str]:
    yield f'{" " * depth}dev: {kind}, id "{name}"'
    for key, live in properties.items():
        if key != "realized":
            yield f"{' ' * depth}  {key} = {_shown(live.read())}"


def _properties(site: Site, name: str) -> dict[str, Live]:
    """A device's properties as they are now, without what is said of it elsewhere."""
    from aioemu.machine.hotplug import HotPlug

    found = HotPlug(site, lambda *told, **about: None).describe(name)
    return {key: live for key, live in found.items() if key not in SAID_ELSEWHERE}


def _shown(value: Any) -> str:
    """A property's value as `info qtree` prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value} ({value & (1 << 64) - 1:#x})" if isinstance(value, int) else json.dumps(value)


def _bus_lines(site: Site, bus: PciBus, depth: int) -> Iterator[str]:
    indent = " " * depth
    yield f"{indent}bus: {bus.name}"
    yield f"{indent}  type PCIE"
    for devfn, function in sorted(bus.functions.items()):
        name, plugged = _id(site, function), site.plugged.get(function.name)
        kind = plugged.kind.name if plugged is not None else BOARD_NAMES.get(function.name, function.name)
        properties = _properties(site, function.name) if plugged is not None else {}
        yield from _device_lines(depth + 2, kind, name, properties)
        yield f"{indent}    addr = {devfn >> 3:02x}.{devfn & 7}"
        where = f"{_number(bus):02x}:{devfn >> 3:02x}.{devfn & 7}"
        yield f"{indent}    class {_class(function)}, addr {where}, {_ids(function)}"
        yield from (f"{indent}    {line}" for line in _bar_lines(function))
        behind = getattr(function, "behind", None)
        if behind is not None:
            yield from _bus_lines(site, behind, depth + 4)
        for port in site.behind(function.name):
            held = site.plugged[port]
            yield from _device_lines(depth + 4, held.kind.name, site.id_of(port), _properties(site, port))


def _bar_lines(function: PciFunction) -> Iterator[str]:
    for bar in sorted(function.bars, key=lambda bar: bar.spec.index):
        base = bar.spec.base([function.bar[n] for n in range(len(function.bar))])
        kind = "i/o" if bar.spec.kind == "io" else "mem"
        first = (1 << 64) - 1 if base is None else base
        last = (first + bar.spec.size - 1) & (1 << 64) - 1
        yield f"bar {bar.spec.index}: {kind} at {first:#x} [{last:#x}]"


def _describe(site: Site, function: PciFunction) -> Iterator[str]:
    who = function.identity
    yield f"{_class(function)}: PCI device {who.vendor:04x}:{who.device:04x}"
    if who.subsystem_vendor or who.subsystem:
        yield f"  PCI subsystem {who.subsystem_vendor:04x}:{who.subsystem:04x}"
    if function.pin:
        yield f"  IRQ {function.read(INTERRUPT_LINE, 1)}, pin {'ABCD'[function.pin - 1]}"
    behind = getattr(function, "behind", None)
    if behind is not None:
        yield f"  BUS {_number(behind)}."
    for bar in sorted(function.bars, key=lambda bar: bar.spec.index):
        kind = {"io": "I/O", "mem32": "32 bit memory", "mem64": "64 bit memory"}[bar.spec.kind]
        base = bar.spec.base([function.bar[n] for n in range(len(function.bar))])
        kind = kind.replace("memory", "prefetchable memory") if bar.spec.prefetch else kind
        place = f"at {base:#06x} [{base + bar.spec.size - 1:#06x}]." if base is not None else "(not mapped)"
        yield f"  BAR{bar.spec.index}: {kind} {place}"
    yield f'  id "{_id(site, function)}"'


def _functions(site: Site) -> Iterator[tuple[PciBus, int, PciFunction]]:
    for bus in site.buses.values():
        for devfn, function in sorted(bus.functions.items()):
            yield bus, devfn, function


def _number(bus: PciBus) -> int:
    """What the guest calls the bus; 0 as long as it has not said."""
    return bus.bridge.secondary_bus if bus.bridge is not None else 0


def _id(site: Site, function: PciFunction) -> str:
    """What the user called the device."""
    return site.id_of(function.name)


def _class(function: PciFunction) -> str:
    return CLASSES.get(function.identity.class_code >> 8, f"Class {function.identity.class_code >> 8:04d}")


def _ids(function: PciFunction) -> str:
    who = function.identity
    return f"pci id {who.vendor:04x}:{who.device:04x} (sub {who.subsystem_vendor:04x}:{who.subsystem:04x})"
