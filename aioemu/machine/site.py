"""Adds devices to a built board: `-device`, `-debugcon`, later `device_add`. What the catalog calls a site."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioemu.bus.router import IrqSource
from aioemu.bus.wires import PIO, ByteSink, NotConnected, Placeable
from aioemu.chardev import Chardev, Event
from aioemu.config import DeviceOptions
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError
from aioemu.machine.board import Board
from aioemu.machine.clock import VirtualClock
from aioemu.machine.kit import Kit, PanicWires
from aioemu.machine.objects import Objects
from aioemu.machine.serial import SerialPorts

if TYPE_CHECKING:
    from aioemu.blockdev.backend import Backend
    from aioemu.devices.catalog import DeviceType
    from aioemu.devices.pci.bridge import RootPort
    from aioemu.devices.pci.bus import PciBus
    from aioemu.devices.pci.function import PciFunction
    from aioemu.devices.pci.place import PciPlace
    from aioemu.devices.virtio.balloon import VirtioBalloon
    from aioemu.devices.virtio.blk import VirtioBlk
    from aioemu.devices.virtio.console import Port, VirtioConsole
    from aioemu.devices.virtio.device import VirtioDevice
    from aioemu.devices.virtio.net import VirtioNet
    from aioemu.machine.virtio import Transport, VirtioBay

DEBUGCON_PORT = 0xE9


class ByteLine:
    """Single bytes to a chardev; what it does not take at once is lost, as on a port without flow control."""

    def __init__(self, chardev: Chardev) -> None:
        self._chardev = chardev
        chardev.connect(self)

    def put(self, value: int) -> None:
        self._chardev.write(bytes((value,)))

    def receive(self, data: bytes) -> None:
        """The port has no input."""

    def can_receive(self) -> int:
        return 0

    def event(self, event: Event) -> None:
        """Whether anybody listens changes nothing."""

    def writable(self) -> None:
        """Nothing waits."""


class Plugged(Struct, frozen=True):
    """A device as it was asked for."""

    kind: DeviceType
    path: str  # in the object tree
    properties: Any  # those of -device
    parent: str | None  # the device whose bus it is on, where that is no PCI bus
    hot: bool  # it came while the guest could run


class Site:
    """Where devices go on one machine."""

    def __init__(self, kit: Kit, board: Board, serial: SerialPorts, objects: Objects) -> None:
        self.kit = kit
        self.board = board
        self.serial = serial
        self.objects = objects
        self.panic = PanicWires(kit.wishes)
        self._virtio: VirtioBay | None = None
        self.buses: dict[str, PciBus] = {}
        self.devices: dict[str, Any] = {}  # by id or generated name
        self.drivers: dict[str, str] = {}  # the models of these, by the same names
        self.plugged: dict[str, Plugged] = {}  # the same devices as they were asked for
        self.boot_order: dict[str, int] = {}  # by name, -1 for none; there is no firmware that would follow it
        self._parent: str | None = None
        self._nameless = 0
        self._settled = False
        self._options = DeviceOptions("")
        self._place: PciPlace | None = None  # what is said of the function that is being made
        self._path = ""  # of the device that is being made, in the object tree
        root = getattr(board, "pci_bus", None)
        if root is not None:
            self.buses[root.name] = root

    @property
    def timers(self) -> VirtualClock:
        return self.kit.clock

    def add(self, options: DeviceOptions) -> Any:
        """Make one device and put it where its options say. ConfigError names what cannot be."""
        from aioemu.devices.catalog import find_device  # loads every device there is
        from aioemu.devices.properties import read_properties

        kind = find_device(options.driver)
        name = options.id or self._make_name(options.driver)
        if name in self.devices or name in self.kit.chips:
            raise ConfigError(f"Duplicate device ID '{name}'", "-device")
        defaults = {g.property: g.value for g in self.kit.config.globals if g.driver == options.driver}
        self._options, self._parent = options, None
        path = f"/machine/peripheral/{name}"
        if options.id is None:
            path = f"/machine/peripheral-anon/device[{self._nameless}]"
        self._path = path
        given = {**defaults, **options.props}
        if "PCI" in kind.bus:
            from aioemu.devices.pci.place import PLACE_NAMES, PciPlace

            said = {key: given.pop(key) for key in PLACE_NAMES if key in given}
            self._place = read_properties(options.driver, PciPlace, said)
            if self._place.romfile:
                raise ConfigError(f'failed to find romfile "{self._place.romfile}"', "-device")
        properties = read_properties(options.driver, kind.properties, given)
        self.set_boot_index(name, getattr(properties, "bootindex", -1))
        try:
            with self.kit.closers.owner(name):
                device = kind.make(self, name, properties)
        except BaseException:
            self.boot_order.pop(name, None)
            raise
        self._nameless += options.id is None
        self.devices[name] = device
        self.drivers[name] = kind.name
        self.plugged[name] = Plugged(kind, path, properties, self._parent, self._settled)
        return device

    def _make_name(self, driver: str) -> str:
        """For a device without an id: no other has it, and the same command line gives the same names."""
        numbers = itertools.count(len(self.devices))
        return next(name for n in numbers if (name := f"{driver}-{n}") not in self.devices)

    def settle(self) -> None:
        """All that the configuration has is plugged in: slots are as a guest finds them at power-on."""
        self._settled = True
        for bus in self.buses.values():
            slot = getattr(bus.bridge, "express", None)
            if slot is not None:
                slot.start(bool(bus.functions))

    def set_boot_index(self, name: str, index: int) -> None:
        """A device's place in the boot order, -1 for none. ConfigError where another one has it."""
        if index >= 0 and any(taken == index and other != name for other, taken in self.boot_order.items()):
            raise ConfigError(f"The bootindex {index} has already been used", "-device")
        self.boot_order[name] = max(-1, index)

    def remove(self, name: str) -> None:
        """Take a device away and forget its name; what is on a bus of its own has gone before."""
        self.boot_order.pop(name, None)
        for each in (self.devices, self.drivers, self.plugged):
            each.pop(name, None)
        self.kit.closers.release(name)

    def id_of(self, name: str) -> str:
        """What the user called a device; "" for one without an id."""
        plugged = self.plugged.get(name)
        if plugged is None:
            return name if name in self.devices else ""
        return name if plugged.path.endswith(f"/peripheral/{name}") else ""

    def behind(self, name: str) -> list[str]:
        """The devices on the bus of another one (ports of a virtio-serial device), the last added first."""
        return [each for each, plugged in reversed(self.plugged.items()) if plugged.parent == name]

    def add_debugcon(self, chardev: str) -> None:
        """`-debugcon`: the debug console at its usual port."""
        from aioemu.devices.debugcon import DebugCon

        self.place("debugcon", DebugCon(self.sink(chardev)), (PIO, DEBUGCON_PORT))

    # ---- what devices ask of their site ------------------------------------------------------------------------------

    def leave(self, status: int) -> None:
        self.kit.wishes.exit(status)

    def irq(self, gsi: int) -> IrqSource:
        return self.kit.irq(gsi)

    def place(self, name: str, chip: Placeable, *places: tuple[int, int]) -> Any:
        return self.kit.place(name, chip, *places)

    def sink(self, chardev: str | None) -> ByteSink:
        if chardev is None:
            return NotConnected()
        return ByteLine(self.claim(chardev))

    def add_serial(self, name: str, chardev: str | None, index: int | None, iobase: int | None, irq: int | None) -> Any:
        from aioemu.machine.boards.legacy import UART_PORTS, place_uart  # the board has loaded these already

        number = self._free_serial() if index is None else index
        if number is None:
            raise ConfigError(f"{name}: a PC has at most {len(UART_PORTS)} serial ports", "-device")
        base, line = UART_PORTS[number]
        uart = place_uart(self.kit, name, base if iobase is None else iobase, line if irq is None else irq)
        if chardev is not None:
            self.serial.plug(uart, chardev)
        return uart

    def plug(self, name: str, function: PciFunction) -> Any:
        bus = self._bus()
        number = bus.plug(function, self._devfn(), several=self._place is not None and self._place.multifunction)
        self.kit.closers.on_leave(lambda: bus.unplug(number))
        function.name = name
        return function

    def add_virtio(
        self, name: str, device: VirtioDevice, transport: Transport | None = None, vectors: int | None = None
    ) -> Any:
        from aioemu.machine.virtio import VirtioBay

        if self._virtio is None:
            self._virtio = VirtioBay(self.kit, getattr(self.board, "virtio_slots", None))
        if transport == "mmio" and getattr(self.board, "virtio_slots", None) is None:
            raise ConfigError(f"No 'virtio-bus' bus found for device '{self._options.driver}'", "-device")
        if transport == "mmio" or (transport is None and not self.buses):
            self._virtio.mmio(name, device, self._options.bus)
        else:
            self._bus()  # there is one, before anything is made
            self.plug(name, self._virtio.function(name, device, vectors))
        return device

    def object(self, name: str, kinds: tuple[str, ...]) -> Any:
        """The object called `name`, of one of these types; it stays as long as the device that is being made."""
        kind = self.objects.names().get(name)
        if kind is None:
            raise ConfigError(f"Device '{name}' not found")
        if kind not in kinds:
            raise ConfigError(f"Invalid parameter type for '{name}', expected: {' or '.join(kinds)}")
        held, release = self.objects.use(name, self._options.driver)
        self.kit.closers.on_leave(release)
        return held.made

    def netdev_queues(self, netdev: str | None) -> int:
        return self.kit.nics.queues_of(netdev)

    def default_mac(self) -> bytes:
        return self.kit.nics.default_mac()

    def add_nic(self, name: str, card: VirtioNet, netdev: str | None, iothread: str | None) -> VirtioNet:
        from aioemu.machine.nics import Nic

        context = self.kit.native.io if iothread is None else self.object(iothread, ("iothread",))
        nic = Nic(name, self._options.driver, card, context.ptr)
        card.io = lambda: nic.io
        self.kit.nics.add_card(nic, netdev)
        self.kit.closers.on_leave(lambda: self.kit.nics.let_go(nic))  # last of all
        self.kit.closers.append(lambda: self.kit.nics.remove_card(nic))
        return card

    @property
    def memory_bytes(self) -> int:
        return self.kit.memory.size_bytes

    def watch_balloon(self, balloon: VirtioBalloon) -> VirtioBalloon:
        if any(hasattr(device, "actual_bytes") for device in self.devices.values()):
            raise ConfigError("Only one balloon device is supported", "-device")
        balloon.on_actual = lambda actual: self.kit.log.event("BALLOON_CHANGE", actual=actual)
        return balloon

    @property
    def vcpu_count(self) -> int:
        return self.kit.config.smp.cpus

    def claim_disk(self, drive: str, name: str, *, share_rw: bool) -> Backend:
        from aioemu.machine.disks import claim_disk

        behind = self._path if self._options.driver.endswith("-device") else f"{self._path}/virtio-backend"
        return claim_disk(self.kit, drive, behind, self._options.driver, share_rw=share_rw)

    def io_context(self, iothread: str | None, name: str) -> Any:
        from aioemu.machine.disks import io_context

        return io_context(self.kit, iothread, name)

    def watch_disk(self, name: str, disk: VirtioBlk) -> None:
        from aioemu.machine.disks import watch_disk

        watch_disk(self.kit, name, disk)

    def claim(self, chardev: str) -> Chardev:
        claimed = self.serial.chardevs.claim(chardev)
        self.kit.closers.on_leave(lambda: self.serial.chardevs.release(claimed))
        return claimed

    def serial_bus(self, name: str) -> VirtioConsole:
        from aioemu.devices.virtio.console import VirtioConsole

        wanted = self._options.bus
        names = {f"{n}.0": n for n, d in self.devices.items() if isinstance(d, VirtioConsole)}
        if not names:
            raise ConfigError(f"No 'virtio-serial-bus' bus found for device '{self._options.driver}'", "-device")
        if wanted is not None and wanted not in names:
            raise ConfigError(f"Bus '{wanted}' not found{did_you_mean(wanted, names)}", "-device")
        self._parent = next(iter(names.values())) if wanted is None else names[wanted]
        found: VirtioConsole = self.devices[self._parent]
        return found

    def add_port(self, name: str, port: Port) -> Any:
        self.kit.closers.on_leave(port.remove)
        port.on_open = lambda is_open: self.kit.log.event("VSERPORT_CHANGE", id=name, open=is_open)
        return self.kit.add(name, port)

    def on_close(self, close: Callable[[], None]) -> None:
        self.kit.closers.append(close)

    def plug_own(
        self, name: str, device: VirtioDevice, transport: Transport | None = None, bus: str | None = None
    ) -> Any:
        """Plug in a device that a program made, as `-device` would, under a name of its own."""
        if name in self.devices or name in self.kit.chips:
            raise ConfigError(f"Duplicate device ID '{name}'")
        self._options = DeviceOptions(name, bus=bus)
        with self.kit.closers.owner(name):
            self.devices[name] = self.add_virtio(name, device, transport)
        return device

    def add_bus(self, name: str, bridge: RootPort) -> PciBus:
        from aioemu.devices.pci.bus import PciBus

        bus = PciBus(self._bus().host, bridge, name)
        self.buses[name] = bus
        return bus

    def _bus(self) -> PciBus:
        wanted = self._options.bus
        if not self.buses:
            raise ConfigError(f"No 'PCI' bus found for device '{self._options.driver}'", "-device")
        if wanted is None:
            return next(iter(self.buses.values()))
        if wanted not in self.buses:
            raise ConfigError(f"Bus '{wanted}' not found{did_you_mean(wanted, self.buses)}", "-device")
        return self.buses[wanted]

    def _devfn(self) -> int | None:
        """`addr=`: device, or device.function, in hexadecimal."""
        addr = self._options.addr
        if addr is None:
            return None
        device, dot, function = addr.partition(".")
        try:
            parts = int(device, 16), int(function, 16) if dot else 0
        except ValueError:
            parts = (-1, 0)
        if not 0 <= parts[0] < 32 or not 0 <= parts[1] < 8:
            raise ConfigError(f"Property '{self._options.driver}.addr' doesn't take value '{addr}'", "-device")
        return parts[0] << 3 | parts[1]

    def _free_serial(self) -> int | None:
        from aioemu.machine.boards.legacy import UART_PORTS

        taken = {region.base for region in self.kit.router.regions if region.space == PIO}
        return next((n for n, (base, _) in enumerate(UART_PORTS) if base not in taken), None)
