"""`microvm`: the smallest board that boots Linux, with QEMU's addresses: no PCI, virtio-mmio, one serial port.

Options as in QEMU. `acpi=on` (default) describes everything in tables; without it, devices are on the kernel command
line (`auto-kernel-cmdline`) and the processors in ACPI's absence are the kernel's guess: one.
"""

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

LOW_RAM_LIMIT = 0xC0000000  # memory below 4 GiB ends here
VIRTIO_MMIO_BASE, VIRTIO_MMIO_STRIDE, VIRTIO_MMIO_SLOTS = 0xFEB00000, 0x200, 24


@dataclass(frozen=True, slots=True)
class MicrovmOptions:
    """`-machine microvm,...`. `auto` values are decided by the board."""

    acpi: bool = True
    rtc: str = "auto"  # without ACPI a guest reads the time from nowhere else
    isa_serial: bool = True
    pit: str = "auto"
    pic: str = "auto"
    auto_kernel_cmdline: bool = True
    x_option_roms: bool = True


class Microvm:
    """The board."""

    def __init__(self, options: MicrovmOptions, config: MachineConfig) -> None:
        self.options = options
        self.needs = ChipNeeds(pit=options.pit != "off", pic=options.pic != "off")
        self.pm: AcpiPm | None = None
        self._acpi: AcpiBoard | None = None

    def ram(self, size: int) -> list[RamRange]:
        return split_around_hole(size, LOW_RAM_LIMIT)

    def build(self, kit: Kit) -> None:
        uarts = (legacy.add_serial(kit, 0),) if self.options.isa_serial else ()
        rtc = self.options.rtc != "off"
        if rtc:
            legacy.add_rtc(kit)
        self.pm = legacy.add_power(kit)
        if self.options.acpi:
            self._acpi = AcpiBoard(cpus=legacy.acpi_cpus(kit), uarts=uarts, rtc=rtc, pic=self.needs.pic)

    def firmware(self, kit: Kit) -> FirmwareTables | None:
        return legacy.firmware_tables(kit, self._acpi, "microvm")

    def boot_layout(self) -> BootLayout:
        return BootLayout()

    def boot_cmdline(self, given: str) -> str:
        return given

    def power_button(self) -> None:
        if self.pm is not None:
            self.pm.press_power_button()
