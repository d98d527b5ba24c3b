"""PCI Express root port: a bridge with one bus behind it (PCI-to-PCI Bridge 1.2; PCIe 2.0, 7.5).

The bus numbers that the guest writes decide where the functions behind it are found. The memory and I/O windows are
kept for the guest, but not enforced: a function behind the port decodes what its own BARs say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aioemu.devices.pci.capabilities import Capability, PowerManagement
from aioemu.devices.pci.function import Identity, PciFunction
from aioemu.devices.pci.header import TYPE_1, BridgeControl
from aioemu.devices.pci.hotplug import HotSlot
from aioemu.devices.pci.msi import Msi

if TYPE_CHECKING:
    from aioemu.devices.pci.bus import PciBus

ROOT_PORT_ID = Identity(0x1B36, 0x000C, 0x060400)  # QEMU's generic root port: guests know it


class Bridge(PciFunction):
    """A function with a bus behind it; `behind` is set when that bus is made."""

    layout = TYPE_1
    secondary_bus: int
    subordinate_bus: int
    bridge_control: int
    behind: PciBus | None = None

    def _header_layout(self) -> int:
        return 1

    def write_secondary_bus(self, value: int) -> None:
        self._renumber()

    def write_subordinate_bus(self, value: int) -> None:
        self._renumber()

    def write_bridge_control(self, value: int) -> None:
        if value & BridgeControl.secondary_reset and self.behind is not None:
            self.behind.reset()

    def on_reset(self) -> None:
        super().on_reset()
        self._renumber()

    def loaded(self) -> None:
        super().loaded()
        self._renumber()

    def _renumber(self) -> None:
        if self.behind is not None:
            self.behind.host.renumber()


class RootPort(Bridge):
    """`pcie-root-port`: `slot_number` is what the guest calls the slot. Devices come and go through `express`."""

    def __init__(self, slot_number: int, *, port: int = 0, extra: Sequence[Capability] = (), pin: int = 1) -> None:
        self.express = HotSlot(slot_number, port)
        self._asks = False
        capabilities = (PowerManagement(), Msi(), self.express, *extra)
        super().__init__(ROOT_PORT_ID, capabilities=capabilities, pin=pin, name=f"root port {slot_number}")
        self.express.signal = self._signal
        self.express.start(False)

    def occupied(self, present: bool) -> None:
        """A device is in the slot, or none; a running guest is told by `express.announce`."""
        self.express.occupied(present)

    def on_reset(self) -> None:
        super().on_reset()
        self._asks = False
        if self.express.removing:
            self.express.removing = False
            self.express.released()
        self.express.start(self.behind is not None and bool(self.behind.functions))

    def loaded(self) -> None:
        super().loaded()
        self.express.loaded()

    def _signal(self, asks: bool) -> None:
        """One message each time that asking begins, or the pin as long as it lasts."""
        began, self._asks = asks and not self._asks, asks
        by_message = self.msi is not None and self.msi.enabled
        self.set_intx(asks and not by_message)
        if began and by_message:
            self.notify(0)
