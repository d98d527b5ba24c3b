"""A PCI function: identity, BARs, capabilities, interrupts; its configuration space is its register block.

Plug it into a bus, which gives it its wires. Everything a guest writes is taken as hardware takes it. Not modelled:
parity and system errors, expansion ROMs, the effect of power states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aioemu.bus.registers import RegisterBlock
from aioemu.bus.wires import IrqLine, MsiSink, NotConnected
from aioemu.devices.pci.bars import BarMapper, BarSpec, MappedBar
from aioemu.devices.pci.capabilities import Capability, chain
from aioemu.devices.pci.header import TYPE_0, Command, HeaderType, Status
from aioemu.devices.pci.msi import Msi, Msix

CONFIG_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a function says it is; `class_code` is base class, subclass and programming interface."""

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0


class Slot(Protocol):
    """What a function finds where it is plugged in."""

    @property
    def mapper(self) -> BarMapper: ...
    @property
    def msi(self) -> MsiSink: ...
    def intx(self, pin: int) -> IrqLine:
        """This function's own source of the line that its pin (1 is INTA#) reaches."""

    def bars_moved(self) -> None:
        """A place became free: others may want it."""


class PciFunction(RegisterBlock):
    """One function. `pin` 1..4 is INTA#..INTD#, 0 none."""

    layout = TYPE_0
    size = CONFIG_BYTES
    command: int
    header_type: int
    status: int
    bar: Any

    def __init__(
        self,
        identity: Identity,
        *,
        bars: Sequence[BarSpec] = (),
        capabilities: Sequence[Capability] = (),
        pin: int = 0,
        multifunction: bool = False,
        name: str = "",
    ) -> None:
        self.identity = identity
        self.pin = pin
        self.name = name or type(self).__name__
        self.slot: Slot | None = None
        self._several = False
        self.intx_line: IrqLine = NotConnected()
        self.intx_level = False
        self.bars = [MappedBar(spec, self.name) for spec in bars]
        self.capabilities = tuple(capabilities)
        self.msix = next((c for c in capabilities if isinstance(c, Msix)), None)
        self.msi = next((c for c in capabilities if isinstance(c, Msi)), None)
        groups = chain(capabilities)
        self.tuning = self._header(multifunction, bool(groups))
        super().__init__(groups)
        for capability in capabilities:
            capability.attached(self)

    def _header(self, multifunction: bool, has_capabilities: bool) -> dict[str, dict[str, int]]:
        who = self.identity
        resets = {
            "vendor_id": who.vendor,
            "device_id": who.device,
            "revision_id": who.revision,
            "class_code0": who.class_code & 0xFF,
            "class_code1": who.class_code >> 8 & 0xFF,
            "class_code2": who.class_code >> 16,
            "header_type": self._header_layout() | (HeaderType.multifunction if multifunction else 0),
            "capabilities_pointer": 0x40 if has_capabilities else 0,
            "status": Status.capabilities if has_capabilities else 0,
            "interrupt_pin": self.pin,
            "subsystem_vendor_id": who.subsystem_vendor,
            "subsystem_id": who.subsystem,
        }
        names = {register.name for register in self.registers}
        tuning = {name: {"reset": int(value)} for name, value in resets.items() if name in names}
        for bar in self.bars:
            taken = bar.spec.tuning()
            if taken.keys() & tuning.keys() or taken.keys() - names:
                raise ValueError(f"{self.name}: BAR {bar.spec.index} cannot be there")
            tuning |= taken
        return tuning

    def _header_layout(self) -> int:
        return 0

    # ---- where it is plugged in --------------------------------------------------------------------------------------

    @property
    def has_siblings(self) -> bool:
        """The header says that the device has more functions than this one; a reset does not change that."""
        return bool(self.header_type & HeaderType.multifunction)

    @has_siblings.setter
    def has_siblings(self, several: bool) -> None:
        self._several = several
        if several:
            self.set_bits("header_type", int(HeaderType.multifunction))

    def plugged(self, slot: Slot) -> None:
        """The bus gives the function its wires."""
        self.slot = slot
        self.intx_line = slot.intx(self.pin) if self.pin else NotConnected()
        if self.msi is not None:
            self.msi.sink = slot.msi
        self._follow_command()

    def unplugged(self) -> None:
        """The function leaves the bus: nothing of it is left on the board."""
        if self.slot is not None:
            self._move_bars(decode=False)
        self.intx_line.set(False)
        self.slot, self.intx_line = None, NotConnected()
        if self.msi is not None:
            self.msi.sink = NotConnected()

    # ---- for the device ----------------------------------------------------------------------------------------------

    @property
    def is_master(self) -> bool:
        """The guest lets the function access memory."""
        return bool(self.command & Command.master)

    def notify(self, vector: int) -> bool:
        """Interrupt by message; False when the guest uses neither MSI-X nor MSI, so the pin is what it hears."""
        if self.msix is not None and self.msix.enabled:
            self.msix.notify(vector)
            return True
        return self.msi is not None and self.msi.notify(vector)

    def set_intx(self, level: bool) -> None:
        """Drive the interrupt pin."""
        self.intx_level = level
        self._drive_intx()

    def bar_moved(self, index: int, base: int | None) -> None:
        """BAR `index` is decoded at `base` now, or not at all."""

    # ---- the guest ---------------------------------------------------------------------------------------------------

    def write_command(self, value: int) -> None:
        self._follow_command()

    def write_bar(self, index: int, value: int) -> None:
        self._move_bars()

    def on_reset(self) -> None:
        self.has_siblings = self._several
        self.intx_level = False
        self._follow_command()

    def loaded(self) -> None:
        self.intx_level = bool(self.status & Status.intx)
        self._follow_command()

    def retry_bars(self) -> None:
        """Map what was refused, if the place is free now."""
        if self.slot is not None:
            for bar in self.bars:
                if bar.refused:
                    bar.retry(self.slot.mapper)

    def _follow_command(self) -> None:
        self._move_bars()
        self._drive_intx()

    def _move_bars(self, *, decode: bool = True) -> None:
        if self.slot is None:
            return
        values = [self.bar[i] for i in range(len(self.bar))]
        moved = False
        for bar in self.bars:
            enable = Command.io if bar.spec.kind == "io" else Command.memory
            base = bar.spec.base(values) if decode and self.command & enable else None
            if bar.move(self.slot.mapper, base):
                moved = True
                self.bar_moved(bar.spec.index, base)
        if moved:
            self.slot.bars_moved()

    def _drive_intx(self) -> None:
        if self.intx_level:
            self.set_bits("status", Status.intx)
        else:
            self.clear_bits("status", Status.intx)
        self.intx_line.set(self.intx_level and not self.command & Command.intx_off)
