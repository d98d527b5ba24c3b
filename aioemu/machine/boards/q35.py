"""`q35`: a PC with PCI Express: memory around a PCI hole, ECAM, and the ICH9's ISA-side chips at their usual ports."""

from __future__ import annotations

from dataclasses import dataclass

from aioemu.accel.base import ChipNeeds
from aioemu.boot.acpi import AcpiBoard
from aioemu.boot.loader import BootLayout
from aioemu.boot.tables import FirmwareTables
from aioemu.config import MachineConfig
from aioemu.devices.acpi_pm import AcpiPm
from aioemu.machine.boards import legacy
from aioemu.machine.kit import Kit
from aioemu.memory.guest import split_around_hole
from aioemu.memory.ranges import RamRange

LOW_RAM_MAX = 0xB0000000  # where ECAM begins
LOW_RAM_ROUND = 0x80000000  # with more memory than fits below ECAM, so much stays low: whole GiB for large pages


@dataclass(frozen=True, slots=True)
class Q35Options:
    """`-machine q35,...`."""

    acpi: bool = True
    pit: bool = True
    pic: bool = True


class Q35:
    """The board."""

    def __init__(self, options: Q35Options, config: MachineConfig) -> None:
        self.options = options
        self.needs = ChipNeeds(pit=options.pit, pic=options.pic)
        self.serials = max(1, len(config.serials)) if not config.nodefaults else len(config.serials)
        self.pm: AcpiPm | None = None
        self._acpi: AcpiBoard | None = None

    def ram(self, size: int) -> list[RamRange]:
        return split_around_hole(size, LOW_RAM_MAX if size <= LOW_RAM_MAX else LOW_RAM_ROUND)

    def build(self, kit: Kit) -> None:
        uarts = tuple(legacy.add_serial(kit, n) for n in range(min(self.serials, len(legacy.UART_PORTS))))
        legacy.add_rtc(kit)
        self.pm = legacy.add_power(kit)
        if self.options.acpi:
            self._acpi = AcpiBoard(cpus=legacy.acpi_cpus(kit), uarts=uarts, pic=self.needs.pic)

    def firmware(self, kit: Kit) -> FirmwareTables | None:
        return legacy.firmware_tables(kit, self._acpi, "Standard PC (Q35 + ICH9)")

    def boot_layout(self) -> BootLayout:
        return BootLayout()

    def boot_cmdline(self, given: str) -> str:
        return given

    def power_button(self) -> None:
        if self.pm is not None:
            self.pm.press_power_button()
