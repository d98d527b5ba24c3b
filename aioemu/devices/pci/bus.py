"""A PCI bus: which function is at which device and function number, and how its pins reach the root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioemu.bus.wires import IrqLine, MsiSink
from aioemu.devices.pci.bars import BarMapper
from aioemu.devices.pci.bridge import Bridge, RootPort
from aioemu.devices.pci.function import PciFunction
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.devices.pci.host import PciHost

FUNCTIONS = 256  # 32 devices of 8 functions
PINS = 4


def devfn(device: int, function: int = 0) -> int:
    """Device and function as one number."""
    return device << 3 | function


class BusSlot:
    """One place on a bus: the wires of the function that is plugged in there."""

    def __init__(self, bus: PciBus, number: int) -> None:
        self.bus, self.number = bus, number

    @property
    def mapper(self) -> BarMapper:
        return self.bus.host.mapper

    @property
    def msi(self) -> MsiSink:
        return self.bus.host.msi

    def intx(self, pin: int) -> IrqLine:
        """Each bridge on the way turns the pins by the device number (Bridge 1.2, 9.1)."""
        bus, number, index = self.bus, self.number, pin - 1
        while bus.bridge is not None and isinstance(slot := bus.bridge.slot, BusSlot):
            index = (index + (number >> 3)) % PINS
            bus, number = slot.bus, slot.number
        return bus.host.intx((index + (number >> 3)) % PINS)

    def bars_moved(self) -> None:
        self.bus.host.retry_bars()


class PciBus:
    """The root bus (no bridge), or the bus behind one."""

    def __init__(self, host: PciHost, bridge: Bridge | None = None, name: str = "pcie.0") -> None:
        self.host = host
        self.bridge = bridge
        self.name = name
        self.functions: dict[int, PciFunction] = {}
        if bridge is not None:
            bridge.behind = self

    def plug(self, function: PciFunction, number: int | None = None, *, several: bool = False) -> int:
        """Put a function at a device and function number, or at the first free device; that number. `several`: as
        function 0 it says that there are more.
        """
        number = self._free() if number is None else number
        if not 0 <= number < FUNCTIONS:
            raise ConfigError(f"{self.name}: no device {number >> 3:#x}")
        if number in self.functions:
            taken = self.functions[number].name
            raise ConfigError(f"{self.name}: {number >> 3:#x}.{number & 7} is taken by {taken}")
        self._check_device(number, several)
        if several:
            function.has_siblings = True
        self.functions[number] = function
        function.plugged(BusSlot(self, number))
        self._changed()
        return number

    def _check_device(self, number: int, several: bool) -> None:
        """Guests look at further functions only if function 0 says that there are any."""
        device, first = number >> 3, self.functions.get(number & ~7)
        if number & 7:
            if first is not None and not first.has_siblings:
                raise ConfigError(
                    f"PCI: single function device can't be populated in function {device:x}.{number & 7:x}"
                )
        elif not several:
            taken = next((n for n in range(number + 1, number + 8) if n in self.functions), None)
            if taken is not None:
                raise ConfigError(
                    f"PCI: {device:x}.0 indicates single function, but {device:x}.{taken & 7:x} is already populated."
                )

    def unplug(self, number: int) -> PciFunction:
        """Take a function away; the guest reads all ones there from now on."""
        function = self.functions.pop(number)
        self._changed()
        function.unplugged()
        return function

    def reset(self) -> None:
        """Power-on state of every function on this bus and behind it."""
        for function in self.functions.values():
            function.reset()
            if isinstance(function, Bridge) and function.behind is not None:
                function.behind.reset()

    def _free(self) -> int:
        # behind a root port there is one device, on the root bus device 0 is the host bridge
        for device in range(1) if isinstance(self.bridge, RootPort) else range(1, 31):
            if not any(number >> 3 == device for number in self.functions):
                return devfn(device)
        raise ConfigError(f"{self.name}: no free slot")

    def _changed(self) -> None:
        self.host.renumber()
        if isinstance(self.bridge, RootPort):
            self.bridge.occupied(bool(self.functions))
