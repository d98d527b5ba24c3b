"""pvpanic: the guest's kernel tells its host that it crashed (pvpanic specification, ISA and PCI).

Reading the register gives the events that this device takes; a guest sends only those. Several bits in one write are
several events. Unknown bits are ignored, as the specification asks.
"""

from __future__ import annotations

from typing import Protocol

from aioemu.bus.registers import Reg, RegisterBlock, bit
from aioemu.devices.pci.bars import BarSpec
from aioemu.devices.pci.function import Identity, PciFunction

DEFAULT_PORT = 0x505
EVENTS = 0x07
PCI_ID = Identity(0x1B36, 0x0011, 0x088000, 1, 0x1AF4, 0x1100)
BAR_BYTES = 16


class Events(Reg):
    """What happened in the guest."""

    writable = 0
    panicked, crash_loaded, shutdown = bit(0), bit(1), bit(2)


class PanicWires(Protocol):
    """What the board does about each event."""

    def guest_panicked(self) -> None:
        """The guest crashed and does not go on."""

    def guest_crash_loaded(self) -> None:
        """The guest crashed, and a crash kernel takes over."""

    def guest_shutdown(self) -> None:
        """The guest has ended and cannot switch itself off."""


class Pvpanic(RegisterBlock):
    """One port; `events` are the bits it takes."""

    layout = {0: Events}

    def __init__(self, wires: PanicWires, events: int = EVENTS) -> None:
        self.wires = wires
        self.taken = events & EVENTS
        self.tuning = {"events": {"reset": self.taken}}
        super().__init__()

    def write_events(self, value: int) -> None:
        value &= self.taken
        if value & Events.panicked:
            self.wires.guest_panicked()
        if value & Events.crash_loaded:
            self.wires.guest_crash_loaded()
        if value & Events.shutdown:
            self.wires.guest_shutdown()


class PvpanicPci(PciFunction):
    """The same register in a BAR of a PCI function (1b36:0011)."""

    def __init__(self, wires: PanicWires, events: int = EVENTS) -> None:
        self.port = Pvpanic(wires, events)
        bar = BarSpec(0, "mem32", BAR_BYTES, [(0, self.port)])
        super().__init__(PCI_ID, bars=[bar], name="pvpanic-pci")
