"""A board for one device: what the catalogue's rows are made on, and what a guest can then reach."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from aioemu._core import ffi, lib
from aioemu.blockdev.backend import Backend
from aioemu.blockdev.graph import Graph
from aioemu.blockdev.null import NullNode, NullOptions
from aioemu.blockdev.permissions import Edge
from aioemu.bus.wires import Placeable
from aioemu.chardev.base import Chardev
from aioemu.devices.pci.bridge import RootPort
from aioemu.devices.pci.bus import PciBus
from aioemu.devices.pci.function import PciFunction
from aioemu.devices.uart import Uart
from aioemu.devices.virtio.balloon import VirtioBalloon
from aioemu.devices.virtio.blk import VirtioBlk
from aioemu.devices.virtio.console import Port, VirtioConsole
from aioemu.devices.virtio.device import VirtioDevice
from aioemu.devices.virtio.mmio import VirtioMmio
from aioemu.devices.virtio.net import VirtioNet
from aioemu.devices.virtio.pci import VirtioPci
from tests.devices.fakes import FakeTimers, Line, Mapper, Messages, Sink


def free_engine(engine: Any, *until_then: Any) -> None:
    """What an engine stands on is kept until it goes."""
    lib.core_blk_free(engine)


class FakeSite:
    """Satisfies `Site`. `reachable` are the chips that the device put somewhere."""

    def __init__(self) -> None:
        from aioemu.devices.pci.host import PciHost

        self.timers = FakeTimers()
        self.reachable: list[Placeable] = []
        self.lines: list[Line] = []
        self.statuses: list[int] = []
        self.pci = PciHost(Mapper(), Messages(), lambda index: Line())

    @property
    def panic(self) -> FakeSite:
        return self

    def guest_panicked(self) -> None:
        self.statuses.append(-1)

    def guest_crash_loaded(self) -> None:
        self.statuses.append(-2)

    def guest_shutdown(self) -> None:
        self.statuses.append(-3)

    def leave(self, status: int) -> None:
        self.statuses.append(status)

    def wish(self) -> None:
        """A reset or power off."""
        self.statuses.append(0)

    def irq(self, gsi: int) -> Line:
        self.lines.append(Line())
        return self.lines[-1]

    def place(self, name: str, chip: Placeable, *places: tuple[int, int]) -> Any:
        self.reachable.append(chip)
        return chip

    def sink(self, chardev: str | None) -> Sink:
        return Sink()

    def add_serial(self, name: str, chardev: str | None, index: int | None, iobase: int | None, irq: int | None) -> Any:
        return self.place(name, Uart())

    def plug(self, name: str, function: PciFunction) -> Any:
        self.pci.root.plug(function)
        self.reachable.append(self.pci.ecam)
        self.reachable += [part for bar in function.bars for _, part in bar.spec.parts]
        return function

    def add_virtio(self, name: str, device: VirtioDevice, transport: Any = None, vectors: int | None = None) -> Any:
        if transport == "mmio":
            return self.place(name, VirtioMmio(device))
        return self.plug(name, VirtioPci(device, vectors=vectors))

    def object(self, name: str, kinds: tuple[str, ...]) -> Any:
        raise NotImplementedError

    def netdev_queues(self, netdev: str | None) -> int:
        return 1

    def default_mac(self) -> bytes:
        return bytes((0x52, 0x54, 0, 0x12, 0x34, 0x56))

    def add_nic(self, name: str, card: VirtioNet, netdev: str | None, iothread: str | None) -> VirtioNet:
        return card

    @property
    def memory_bytes(self) -> int:
        return 1 << 30

    def watch_balloon(self, balloon: VirtioBalloon) -> VirtioBalloon:
        return balloon

    @property
    def vcpu_count(self) -> int:
        return 2

    def claim_disk(self, drive: str, name: str, *, share_rw: bool) -> Backend:
        node = NullNode(drive, NullOptions())
        node.size = node.options.size
        backend = Backend(Graph(lambda *words: None), drive)
        backend.edge = Edge(backend, "root", node)
        return backend

    def io_context(self, iothread: str | None, name: str) -> Any:
        self.io = ffi.gc(lib.core_io_new(), lib.core_io_free)
        return self.io

    def watch_disk(self, name: str, disk: VirtioBlk) -> None:
        weakref.finalize(disk, free_engine, disk.engine.ptr, disk.chip, self.io)

    def claim(self, chardev: str) -> Chardev:
        raise NotImplementedError

    def serial_bus(self, name: str) -> VirtioConsole:
        bus = VirtioConsole()
        self.place("bus", VirtioMmio(bus))
        return bus

    def add_port(self, name: str, port: Port) -> Any:
        return port

    def on_close(self, close: Callable[[], None]) -> None:
        """Sites of tests hold nothing."""

    def add_bus(self, name: str, bridge: RootPort) -> PciBus:
        return PciBus(self.pci, bridge, name)
