"""Virtio devices on a machine: plugged into a slot or a PCI bus, wired, and rung for.

Where the accelerator's kernel part can take the driver's notifications, each queue in use has an eventfd there and the
guest goes on at once; elsewhere the core collects them, which needs no descriptors. Reactor thread only.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Literal

from aioemu._core import ffi, lib
from aioemu.bus.wires import MMIO
from aioemu.devices.virtio.device import VirtioDevice
from aioemu.devices.virtio.mmio import NOTIFY_AT as MMIO_NOTIFY
from aioemu.devices.virtio.mmio import VirtioMmio
from aioemu.errors import ConfigError
from aioemu.machine.boards.slots import MmioSlots
from aioemu.machine.kit import Kit

if TYPE_CHECKING:
    from aioemu.devices.virtio.pci import VirtioPci

Transport = Literal["pci", "mmio"]


class Doorbells:
    """The eventfds of one device's queues, while its driver drives it and its registers are on the bus."""

    def __init__(self, kit: Kit, device: VirtioDevice, offset: int, stride: int, size: int) -> None:
        self._machine = kit.native.ptr
        self._loop = asyncio.get_running_loop()
        self._device = device
        self._offset, self._stride, self._size = offset, stride, size
        self._base: int | None = None
        self._bells: list[tuple[int, int, int, bool]] = []  # eventfd, address, value, rings here
        kit.closers.append(self._take_down)

    def moved(self, base: int | None) -> None:
        """The registers are at `base` now, or nowhere."""
        self._base = base
        self.running(self._device.running)

    def running(self, on: bool) -> None:
        """The driver began, or ended."""
        self._take_down()
        if on and self._base is not None:
            for index in range(len(self._device.queues)):
                if lib.core_virtio_ready(self._device.chip, index):
                    self._add(index, self._base + self._offset)

    def _add(self, index: int, base: int) -> None:
        address, match = base + self._stride * index, self._stride == 0
        native = self._device.bell(index)
        fd = native if native >= 0 else os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        rc = lib.core_doorbell_add(self._machine, MMIO, address, self._size, fd, match, index)
        if rc == 0:
            self._bells.append((fd, address, index, native < 0))
            if native < 0:
                self._loop.add_reader(fd, self._rung, fd, index)
        elif native < 0:  # the chip takes the notification itself
            os.close(fd)

    def _rung(self, fd: int, index: int) -> None:
        os.eventfd_read(fd)
        self._device.ring_bell(index)

    def _take_down(self) -> None:
        bells, self._bells = self._bells, []
        for fd, address, index, rings_here in bells:
            lib.core_doorbell_remove(self._machine, MMIO, address, self._size, fd, self._stride == 0, index)
            if rings_here:
                self._loop.remove_reader(fd)
                os.close(fd)


class Running:
    """A device's `run`: from when it is plugged in, and again with its next driver after it failed."""

    def __init__(self, device: VirtioDevice) -> None:
        self._device = device
        self._task: asyncio.Task[None] | None = None
        self._failed = True

    def begin(self) -> None:
        """Run it unless it runs, or ended by itself."""
        if self._failed and not self._device.closed:
            self._failed = False
            self._task = asyncio.get_running_loop().create_task(self._run())

    def end(self) -> None:
        """Cancel it."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._device.run()
        except Exception as exc:
            self._failed = True
            self._device.failed(exc)


class VirtioBay:
    """Plugs virtio devices into one machine."""

    def __init__(self, kit: Kit, slots: MmioSlots | None) -> None:
        self.kit = kit
        self.slots = slots
        name: Any = ffi.string(lib.core_accel_name(kit.native.ptr))
        self._in_kernel = name in (b"kvm", "kvm")

    def mmio(self, name: str, device: VirtioDevice, bus: str | None) -> None:
        """Put a device into a slot."""
        if self.slots is None:
            raise ConfigError(f"No 'virtio-bus' bus found for device '{name}'", "-device")
        base, gsi = self.slots.take(name, bus)
        self._connect(name, device)
        self.kit.place(name, VirtioMmio(device), (MMIO, base))
        self.kit.irq(gsi).wire(device.chip)
        if self._in_kernel and device.ring.ioeventfd:
            bells = Doorbells(self.kit, device, MMIO_NOTIFY, 0, 4)
            device.on_running = bells.running
            bells.moved(base)

    def function(self, name: str, device: VirtioDevice, vectors: int | None) -> VirtioPci:
        """The PCI function that carries a device; plug it into a bus."""
        from aioemu.devices.virtio.pci import NOTIFY_AT, NOTIFY_STRIDE, VirtioPci

        self._connect(name, device)
        function = VirtioPci(device, vectors=vectors, name=name)
        if self._in_kernel and device.ring.ioeventfd:
            bells = Doorbells(self.kit, device, NOTIFY_AT, NOTIFY_STRIDE, 2)
            device.on_running = bells.running
            function.moved = bells.moved
        return function

    def _connect(self, name: str, device: VirtioDevice) -> None:
        self.kit.notify(device.chip, device.notified, name)
        self.kit.closers.append(device.close)
        device.on_broken = lambda why: self._broken(name, why)
        if type(device).run is not VirtioDevice.run:
            running = Running(device)
            device.on_driven = running.begin
            running.begin()
            self.kit.closers.append(running.end)

    def _broken(self, name: str, why: str) -> None:
        self.kit.log.event("device-error", device=name, error=why)
        self.kit.log.error("%s: stopped until its driver resets it: %s", name, why)
