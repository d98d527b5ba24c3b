"""The virtio devices of the catalogue: their properties, and one row for each transport's name.

`X-pci` and `X-device` say where a device goes, plain `X` takes what the board has. Only modern virtio is made: what
asks for the transitional kind is refused by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from aioemu.bus.wires import Timers
from aioemu.chardev.base import Chardev
from aioemu.devices.properties import prop
from aioemu.devices.virtio.balloon import VirtioBalloon
from aioemu.devices.virtio.blk_properties import BlkProperties, DiskSite, make_blk
from aioemu.devices.virtio.console import MAX_PORTS, Port, VirtioConsole
from aioemu.devices.virtio.device import RingProperties, VirtioDevice
from aioemu.devices.virtio.net_properties import NetProperties, NetSite, make_net
from aioemu.devices.virtio.rng import VirtioRng, make_entropy
from aioemu.errors import ConfigError

INPUT, MISC = "Input devices", "Misc devices"
NETWORK, STORAGE = "Network devices", "Storage devices"
ENTROPY = ("rng-builtin", "rng-random")  # the objects that a virtio-rng takes
SERIAL_BUS = "virtio-serial-bus"


class VirtioSite(DiskSite, NetSite, Protocol):
    """What virtio devices ask of their site."""

    @property
    def timers(self) -> Timers: ...

    def add_virtio(self, name: str, device: VirtioDevice, transport: Any = None, vectors: int | None = None) -> Any:
        """Plug a device into a PCI bus or a slot."""

    def object(self, name: str, kinds: tuple[str, ...]) -> Any:
        """An object of one of these types, which stays as long as the device; ConfigError when there is none."""

    @property
    def memory_bytes(self) -> int:
        """How much memory the machine has."""

    def watch_balloon(self, balloon: VirtioBalloon) -> VirtioBalloon:
        """What it says becomes events."""

    def claim(self, chardev: str) -> Chardev:
        """A chardev, for this device alone."""

    def serial_bus(self, name: str) -> VirtioConsole:
        """The virtio-serial device that the options say (bus=), or the first."""

    def add_port(self, name: str, port: Port) -> Any:
        """Own a port: its state is kept, and its opening is an event."""

    def on_close(self, close: Callable[[], None]) -> None:
        """Call this when the machine goes away."""


@dataclass(frozen=True, slots=True)
class VirtioRow:
    """What a catalogue row says, in its order."""

    name: str
    bus: str
    category: str
    about: str
    properties: type[Any]
    make: Callable[[Any, str, Any], Any]


Maker = Callable[[VirtioSite, str, Any], VirtioDevice]
PCI_FIELDS: dict[str, Any] = {
    "vectors": prop(None, "uint32", "MSI-X vectors; 0: none, so interrupts by the pin", most=2048),
    "disable_legacy": prop("auto", "OnOffAuto", "on or auto: modern only"),
    "disable_modern": prop(False, "bool", "cannot be on"),
}


def on_pci(schema: type[Any]) -> type[Any]:
    """The properties of a device as a PCI function."""
    fields = [(name, Any, default) for name, default in PCI_FIELDS.items()]
    return dataclasses.make_dataclass(f"{schema.__name__}Pci", fields, bases=(schema,), frozen=True, slots=True)


def family(name: str, category: str, about: str, schema: type[Any], make: Maker) -> Iterator[VirtioRow]:
    """One device under the names of all its transports."""
    pci = on_pci(schema)

    def plug(transport: str | None) -> Callable[[VirtioSite, str, Any], Any]:
        def made(site: VirtioSite, called: str, given: Any) -> Any:
            if transport == "mmio":
                return site.add_virtio(called, make(site, called, given), "mmio")
            if given.disable_modern or given.disable_legacy not in ("on", "auto"):
                raise ConfigError(f"{name}: only the modern device is made (disable-legacy=on)", option="-device")
            return site.add_virtio(called, make(site, called, given), transport, given.vectors)

        return made

    yield VirtioRow(f"{name}-pci", "PCI", category, about, pci, plug("pci"))
    yield VirtioRow(f"{name}-pci-non-transitional", "PCI", category, about, pci, plug("pci"))
    yield VirtioRow(f"{name}-device", "virtio-bus", category, about, schema, plug("mmio"))
    yield VirtioRow(name, "PCI or virtio-bus", category, about, pci, plug(None))


@dataclass(frozen=True, slots=True)
class RngProperties(RingProperties):
    """`-device virtio-rng-*`."""

    rng: str | None = prop(
        None, "link<rng-backend>", "an rng-builtin or rng-random object; without one, the host kernel"
    )
    max_bytes: int | None = prop(None, "uint64", "bytes in each period; without it, no limit", least=1)
    period: int = prop(1 << 16, "uint32", "length of a period in milliseconds", least=1)


def make_rng(site: VirtioSite, name: str, given: RngProperties) -> VirtioDevice:
    """Entropy from the host."""
    source = site.object(given.rng, ENTROPY).open() if given.rng is not None else make_entropy("rng-builtin", None)
    site.on_close(source.close)
    return VirtioRng(source, site.timers, max_bytes=given.max_bytes, period_ms=given.period, ring=given)


@dataclass(frozen=True, slots=True)
class SerialBusProperties(RingProperties):
    """`-device virtio-serial-*`."""

    max_ports: int = prop(MAX_PORTS, "uint32", "ports that there can be", least=1, most=MAX_PORTS)
    emergency_write: bool = prop(True, "bool", "offer output without a driver")


def make_serial_bus(site: VirtioSite, name: str, given: SerialBusProperties) -> VirtioDevice:
    """A device for ports; they are added to it by name."""
    return VirtioConsole(given.max_ports, emergency=given.emergency_write, ring=given)


@dataclass(frozen=True, slots=True)
class PortProperties:
    """`-device virtconsole` and `virtserialport`."""

    chardev: str | None = prop(None, "str", "ID of a chardev to use as a backend")
    name: str | None = prop(None, "str", "what the guest finds the port by")
    nr: int | None = prop(None, "uint32", "number of the port; by default the first free one")


def make_port(console: bool) -> Callable[[VirtioSite, str, PortProperties], Any]:
    """A port on a virtio-serial device."""

    def made(site: VirtioSite, name: str, given: PortProperties) -> Any:
        bus = site.serial_bus(name)
        wire = site.claim(given.chardev) if given.chardev is not None else None
        port = bus.add(Port(wire, console=console, label=given.name or ""), given.nr)
        if wire is not None:
            wire.connect(port)
        return site.add_port(name, port)

    return made


@dataclass(frozen=True, slots=True)
class BalloonProperties(RingProperties):
    """`-device virtio-balloon-*`."""

    deflate_on_oom: bool = prop(False, "bool", "the guest may take memory back when it has none left")
    free_page_reporting: bool = prop(False, "bool", "the guest gives back what it frees")


def make_balloon(site: VirtioSite, name: str, given: BalloonProperties) -> VirtioDevice:
    """A balloon as large as the machine's memory."""
    return site.watch_balloon(
        VirtioBalloon(
            site.memory_bytes,
            site.timers,
            deflate_on_oom=given.deflate_on_oom,
            reporting=given.free_page_reporting,
            ring=given,
        )
    )


VIRTIO_ROWS: tuple[VirtioRow, ...] = (
    *family("virtio-blk", STORAGE, "a disk", BlkProperties, make_blk),
    *family("virtio-net", NETWORK, "network card", NetProperties, make_net),
    *family("virtio-rng", MISC, "entropy from the host", RngProperties, make_rng),
    *family("virtio-balloon", MISC, "takes memory back from the guest", BalloonProperties, make_balloon),
    *family("virtio-serial", INPUT, "carries serial ports", SerialBusProperties, make_serial_bus),
    VirtioRow("virtconsole", SERIAL_BUS, INPUT, "console on a virtio-serial device", PortProperties, make_port(True)),
    VirtioRow("virtserialport", SERIAL_BUS, INPUT, "port on a virtio-serial device", PortProperties, make_port(False)),
)
