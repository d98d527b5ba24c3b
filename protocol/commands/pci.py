"""PCI as the guest has set it up (QAPI pci.json)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from aioemu.protocol.machine import Machine, PciPlace
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class PciDeviceClass(Record):
    """What kind of device it is."""

    class_: int = msgspec.field(name="class")
    desc: str | None = None


class PciDeviceId(Record):
    """Who made it."""

    device: int
    vendor: int
    subsystem: int | None = None
    subsystem_vendor: int | None = None


class PciMemoryRegion(Record, rename=None):
    """One BAR; its address is -1 where the guest has given none."""

    bar: int
    type: str
    address: int
    size: int
    prefetch: bool | None = None
    mem_type_64: bool | None = None


class PciMemoryRange(Record):
    """What a bridge passes on."""

    base: int
    limit: int


class PciBusInfo(Record, rename=None):
    """The buses at a bridge and what it passes on."""

    number: int
    secondary: int
    subordinate: int
    io_range: PciMemoryRange
    memory_range: PciMemoryRange
    prefetchable_range: PciMemoryRange


class PciBridgeInfo(Record):
    """The bus behind a bridge."""

    bus: PciBusInfo
    devices: list[PciDeviceInfo] | None = None


class PciDeviceInfo(Record, rename=None):
    """One function."""

    bus: int
    slot: int
    function: int
    class_info: PciDeviceClass
    id: PciDeviceId
    irq_pin: int
    qdev_id: str
    regions: list[PciMemoryRegion]
    irq: int | None = None
    pci_bridge: PciBridgeInfo | None = None


class PciInfo(Record):
    """A bus without a bridge above it, and everything behind it."""

    bus: int
    devices: list[PciDeviceInfo]


class PciMachine(Machine):
    """A machine that shows its PCI functions."""

    pci_places: Callable[[], Sequence[PciPlace]]


@command("query-pci", needs=("pci_places",))
def query_pci(machine: PciMachine) -> list[PciInfo]:
    """List the PCI functions, by bus."""
    places = machine.pci_places()
    return [PciInfo(bus=0, devices=_on(places, 0))] if places else []


def _on(places: Sequence[PciPlace], bus: int) -> list[PciDeviceInfo]:
    """The functions on a bus; one that no bridge has numbered yet is as bus 0, and hidden."""
    root = {id(each) for each in places if each.bus == bus and (bus or not _hidden(places, each))}
    return [_info(places, each) for each in places if id(each) in root]


def _hidden(places: Sequence[PciPlace], each: PciPlace) -> bool:
    """Whether it is behind a bridge that the guest has not given a number."""
    bridge = getattr(getattr(each.device.slot, "bus", None), "bridge", None)
    return bridge is not None


def _info(places: Sequence[PciPlace], each: PciPlace) -> PciDeviceInfo:
    who = each.device.identity
    return PciDeviceInfo(
        bus=each.bus,
        slot=each.slot,
        function=each.function,
        class_info=PciDeviceClass(class_=who.class_code >> 8, desc=each.description),
        id=PciDeviceId(
            device=who.device,
            vendor=who.vendor,
            subsystem=who.subsystem or None,
            subsystem_vendor=who.subsystem_vendor or None,
        ),
        irq=each.irq if each.device.pin else None,
        irq_pin=each.device.pin,
        qdev_id=each.name,
        regions=[_region(*region) for region in each.regions],
        pci_bridge=_bridge(places, each) if each.behind is not None else None,
    )


def _region(bar: int, kind: str, address: int, size: int, prefetch: bool) -> PciMemoryRegion:
    if kind == "io":
        return PciMemoryRegion(bar=bar, type="io", address=address, size=size)
    wide = kind == "mem64"
    return PciMemoryRegion(bar=bar, type="memory", address=address, size=size, prefetch=prefetch, mem_type_64=wide)


def _bridge(places: Sequence[PciPlace], each: PciPlace) -> PciBridgeInfo:
    port, nothing = each.device, PciMemoryRange(base=0, limit=0)
    behind = each.behind or 0
    bus = PciBusInfo(
        number=each.bus,
        secondary=behind,
        subordinate=port.subordinate_bus,
        io_range=nothing,
        memory_range=nothing,
        prefetchable_range=nothing,
    )
    return PciBridgeInfo(bus=bus, devices=_on(places, behind) if behind else None)


COMMANDS = (query_pci,)
