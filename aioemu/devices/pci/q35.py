"""The two functions that every q35 guest finds: the memory controller hub and the ICH9's LPC bridge.

What a kernel and firmware look at: ids, where ECAM is, interrupt routing, where ACPI's registers are. The memory
attribute registers (PAM, SMRAM) are kept, but all memory is always readable and writable. (Intel 3 Series datasheet
5.1; ICH9 datasheet 13.1.)
"""

from __future__ import annotations

from aioemu.bus.registers import Reg, bit, field
from aioemu.bus.wires import MMIO
from aioemu.devices.pci.function import Identity, PciFunction
from aioemu.devices.pci.header import TYPE_0
from aioemu.devices.pci.host import BUS_BYTES, PciHost

SUBSYSTEM = (0x1AF4, 0x1100)
MCH_ID = Identity(0x8086, 0x29C0, 0x060000, 0, *SUBSYSTEM)
LPC_ID = Identity(0x8086, 0x2918, 0x060100, 2, *SUBSYSTEM)
ECAM_BUSES = {0: 256, 1: 128, 2: 64}  # PCIEXBAR length field
ADDRESS_BITS = 36


class PciExBar(Reg):
    """Where ECAM is: enable, length, base."""

    width, writable = 4, 0xFC000007
    enable, length = bit(0), field(2, 1)


class PciExBarUpper(Reg):
    width, writable = 4, (1 << (ADDRESS_BITS - 32)) - 1


class Pam(Reg):
    """Attributes of the memory below 1 MiB: kept."""

    count, writable = 7, 0x33


class SmRam(Reg):
    reset, writable = 0x02, 0x78


class EsmRam(Reg):
    reset, writable = 0x38, 0x80


class HostBridge(PciFunction):
    """8086:29c0, device 0. It places the host's ECAM where the guest wants it; `ecam_base` is where it starts."""

    layout = {**TYPE_0, 0x60: PciExBar, 0x64: PciExBarUpper, 0x90: Pam, 0x9D: SmRam, 0x9E: EsmRam}
    pci_ex_bar: int
    pci_ex_bar_upper: int

    def __init__(self, host: PciHost, ecam_base: int | None = None) -> None:
        self.host = host
        self._place: object | None = None
        self._placed_at: tuple[int, int] | None = None
        self.ecam_base = ecam_base
        super().__init__(MCH_ID, name="host bridge")
        self._start()

    def write_pci_ex_bar(self, value: int) -> None:
        self._follow()

    def write_pci_ex_bar_upper(self, value: int) -> None:
        self._follow()

    def on_reset(self) -> None:
        super().on_reset()
        self._start()

    def loaded(self) -> None:
        super().loaded()
        self._follow()

    def _start(self) -> None:
        if self.ecam_base is not None:
            length = max(code for code, buses in ECAM_BUSES.items() if buses >= self.host.buses)
            self.pci_ex_bar = self.ecam_base & 0xFC000000 | length << 1 | PciExBar.enable
            self.pci_ex_bar_upper = self.ecam_base >> 32
        self._follow()

    def _follow(self) -> None:
        """Put ECAM where the register says; a base within its own size is rounded down, as the sheet says."""
        buses = ECAM_BUSES.get(PciExBar.length.of(self.pci_ex_bar))
        wanted = None
        if self.pci_ex_bar & PciExBar.enable and buses is not None:
            size = buses * BUS_BYTES
            base = (self.pci_ex_bar_upper << 32 | self.pci_ex_bar) & ~(size - 1)
            wanted = (base, size) if base else None
        if wanted == self._placed_at:
            return
        if self._place is not None:
            self.host.mapper.unmap(self._place)
            self._place = None
        self._placed_at = wanted
        if wanted is not None:
            self.host.ecam.size = wanted[1]
            self._place = self.host.mapper.map(MMIO, wanted[0], self.host.ecam, "ECAM")


class PmBase(Reg):
    """Where ACPI's registers are; bit 0 says ports."""

    width, reset, writable, fixed = 4, 0x0000_0001, 0x0000_FF80, True


class AcpiControl(Reg):
    """ACPI enable and which interrupt it raises."""

    writable = 0x87
    enable = bit(7)


class GpioBase(Reg):
    width, reset, writable = 4, 1, 0x0000_FF80


class GpioControl(Reg):
    writable = 0x10


class Pirq(Reg):
    """Routing of PIRQA..D to the 8259s; 0x80 is none."""

    count, reset, writable = 4, 0x80, 0x8F


class Pirq2(Reg):
    """Routing of PIRQE..H."""

    name, count, reset, writable = "pirq_upper", 4, 0x80, 0x8F


class GenPmCon1(Reg):
    width, writable = 2, 0x17FF


class Rcba(Reg):
    """Chipset registers in memory: kept, nothing is there."""

    width, writable = 4, 0xFFFFC001


class Lpc(PciFunction):
    """8086:2918, device 0x1f function 0: the ISA bridge."""

    layout = {
        **TYPE_0,
        0x40: PmBase,
        0x44: AcpiControl,
        0x48: GpioBase,
        0x4C: GpioControl,
        0x60: Pirq,
        0x68: Pirq2,
        0xA0: GenPmCon1,
        0xF0: Rcba,
    }

    def __init__(self, pm_base: int, multifunction: bool = True) -> None:
        self.fixed_tuning = {
            "pm_base": {"reset": pm_base | 1},
            "acpi_control": {"reset": int(AcpiControl.enable)},
        }
        super().__init__(LPC_ID, multifunction=multifunction, name="LPC bridge")

    def _header(self, multifunction: bool, has_capabilities: bool) -> dict[str, dict[str, int]]:
        return {**super()._header(multifunction, has_capabilities), **self.fixed_tuning}
