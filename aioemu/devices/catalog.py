"""The devices that `-device` and `device_add` know, one row each: name, bus, properties, how to make it.

A row makes the chip on a site: the seam to the board that places and wires it. A new device is one file, one test and
one row. Which chips a board has anyway is the board's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from aioemu.bus.wires import PIO, ByteSink, IrqLine, Placeable, Timers
from aioemu.config.grammar import did_you_mean
from aioemu.devices.debugcon import READBACK, DebugCon
from aioemu.devices.isa_debug_exit import IsaDebugExit
from aioemu.devices.pci.bridge import RootPort
from aioemu.devices.pci.bus import PciBus
from aioemu.devices.pci.function import PciFunction
from aioemu.devices.pci.place import PciPlace
from aioemu.devices.properties import describe_properties, prop
from aioemu.devices.pvpanic import DEFAULT_PORT, EVENTS, PanicWires, Pvpanic, PvpanicPci
from aioemu.devices.virtio.rows import VIRTIO_ROWS, VirtioSite
from aioemu.errors import ConfigError


class Site(VirtioSite, Protocol):
    """What a board offers to the devices that are added to it."""

    @property
    def timers(self) -> Timers: ...
    @property
    def panic(self) -> PanicWires: ...

    def leave(self, status: int) -> None:
        """End the emulator with this exit status."""

    def irq(self, gsi: int) -> IrqLine:
        """A new source of an interrupt line."""

    def place(self, name: str, chip: Placeable, *places: tuple[int, int]) -> Any:
        """Own a chip and put it at each (space, base)."""

    def sink(self, chardev: str | None) -> ByteSink:
        """Where a device's bytes go; None: nowhere."""

    def add_serial(self, name: str, chardev: str | None, index: int | None, iobase: int | None, irq: int | None) -> Any:
        """A UART at a port and line, by default those of COM `index`, by default the next."""

    def plug(self, name: str, function: PciFunction) -> Any:
        """Put a PCI function where the options say (bus=, addr=); ConfigError on a board without PCI."""

    def add_bus(self, name: str, bridge: RootPort) -> PciBus:
        """The bus behind a bridge, to be found by this name."""


@dataclass(frozen=True, slots=True)
class DeviceType:
    """One device model."""

    name: str
    bus: str
    category: str
    about: str
    properties: type[Any]
    make: Callable[[Site, str, Any], Any]  # (site, name, properties) -> the chip


@dataclass(frozen=True, slots=True)
class SerialProperties:
    """`-device isa-serial`."""

    chardev: str | None = prop(None, "str", "ID of a chardev to use as a backend")
    index: int | None = prop(None, "uint32", "number of the port, 0 is COM1", most=3)
    iobase: int | None = prop(None, "uint32", "first port", least=1, most=0xFFF8)
    irq: int | None = prop(None, "uint32", "interrupt line", most=15)


def make_serial(site: Site, name: str, given: SerialProperties) -> Any:
    """A 16550A."""
    return site.add_serial(name, given.chardev, given.index, given.iobase, given.irq)


@dataclass(frozen=True, slots=True)
class DebugConProperties:
    """`-device isa-debugcon`."""

    chardev: str | None = prop(None, "str", "ID of a chardev to use as a backend")
    iobase: int = prop(0xE9, "uint32", "port", most=0xFFFF)
    readback: int = prop(READBACK, "uint32", "what reading the port gives", most=0xFF)


def make_debugcon(site: Site, name: str, given: DebugConProperties) -> Any:
    """A port whose bytes go to a chardev."""
    return site.place(name, DebugCon(site.sink(given.chardev), given.readback), (PIO, given.iobase))


@dataclass(frozen=True, slots=True)
class DebugExitProperties:
    """`-device isa-debug-exit`."""

    iobase: int = prop(0x501, "uint32", "first port", most=0xFFFF)
    iosize: int = prop(2, "uint32", "number of ports", least=1, most=256)


def make_debug_exit(site: Site, name: str, given: DebugExitProperties) -> Any:
    """A port that ends the emulator."""
    return site.place(name, IsaDebugExit(site.leave, given.iosize), (PIO, given.iobase))


@dataclass(frozen=True, slots=True)
class PvpanicProperties:
    """`-device pvpanic`."""

    ioport: int = prop(DEFAULT_PORT, "uint16", "port")
    events: int = prop(EVENTS, "uint8", "events that the guest may send", most=EVENTS)


def make_pvpanic(site: Site, name: str, given: PvpanicProperties) -> Any:
    """A port for crash reports."""
    return site.place(name, Pvpanic(site.panic, given.events), (PIO, given.ioport))


@dataclass(frozen=True, slots=True)
class PvpanicPciProperties:
    """`-device pvpanic-pci`."""

    events: int = prop(EVENTS, "uint8", "events that the guest may send", most=EVENTS)


def make_pvpanic_pci(site: Site, name: str, given: PvpanicPciProperties) -> Any:
    """The same as a PCI function."""
    return site.plug(name, PvpanicPci(site.panic, given.events))


@dataclass(frozen=True, slots=True)
class RootPortProperties:
    """`-device pcie-root-port`."""

    port: int = prop(0, "uint8", "port number of the link")
    chassis: int = prop(0, "uint8", "chassis number; kept for launchers that set it")
    slot: int = prop(0, "uint16", "slot number that the guest sees", most=0x1FFF)


def make_root_port(site: Site, name: str, given: RootPortProperties) -> Any:
    """A bus of its own for one device; the bus is called as the port."""
    root_port = RootPort(given.slot, port=given.port)
    site.plug(name, root_port)
    site.add_bus(name, root_port)
    return root_port


BRIDGES, INPUT, MISC = "Controller/Bridge/Hub devices", "Input devices", "Misc devices"

DEVICES: tuple[DeviceType, ...] = (
    DeviceType("pcie-root-port", "PCI", BRIDGES, "PCI Express Root Port", RootPortProperties, make_root_port),
    DeviceType("isa-serial", "ISA", INPUT, "16550A serial port", SerialProperties, make_serial),
    DeviceType("isa-debug-exit", "ISA", MISC, "ends the emulator", DebugExitProperties, make_debug_exit),
    DeviceType("isa-debugcon", "ISA", MISC, "debug console port", DebugConProperties, make_debugcon),
    DeviceType("pvpanic", "ISA", MISC, "guest crash reports", PvpanicProperties, make_pvpanic),
    DeviceType("pvpanic-pci", "PCI", MISC, "guest crash reports", PvpanicPciProperties, make_pvpanic_pci),
    *(DeviceType(r.name, r.bus, r.category, r.about, r.properties, r.make) for r in VIRTIO_ROWS),
)


def find_device(name: str, devices: Iterable[DeviceType] = DEVICES) -> DeviceType:
    """The device model called `name`. ConfigError names the nearest known one."""
    table = {device.name: device for device in devices}
    if name not in table:
        raise ConfigError(f"'{name}' is not a valid device model name{did_you_mean(name, table)}", option="-device")
    return table[name]


def devices_help(devices: Iterable[DeviceType] = DEVICES) -> str:
    """What `-device help` prints."""
    groups: dict[str, list[str]] = {}
    for device in devices:
        line = f'name "{device.name}", bus {device.bus}, desc "{device.about}"'
        groups.setdefault(device.category, []).append(line)
    return "\n\n".join("\n".join((f"{category}:", *sorted(lines))) for category, lines in sorted(groups.items()))


def device_help(name: str, devices: Iterable[DeviceType] = DEVICES) -> str:
    """What `-device NAME,help` prints."""
    device = find_device(name, devices)
    lines = describe_properties(device.properties)
    if "PCI" in device.bus:
        lines = sorted([*lines, *describe_properties(PciPlace)])
    return "\n".join((f"{name} options:", *lines))
