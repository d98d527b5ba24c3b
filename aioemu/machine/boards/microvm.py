"""`microvm`: the smallest board that boots Linux, with QEMU's addresses: no PCI, virtio-mmio, one serial port.

Options as in QEMU. `acpi=on` (default) describes everything in tables; without it, devices are on the kernel command
line (`auto-kernel-cmdline`) and the processors in ACPI's absence are the kernel's guess: one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from aioemu.accel.base import ChipNeeds
from aioemu.boot.acpi import AcpiBoard, VirtioMmio, Window
from aioemu.boot.acpi import PciHost as AcpiPci
from aioemu.boot.e820 import E820Entry, E820Type
from aioemu.boot.loader import BootLayout
from aioemu.boot.tables import FirmwareTables
from aioemu.bus.wires import MMIO
from aioemu.config import MachineConfig
from aioemu.devices.acpi_pm import AcpiPm
from aioemu.machine.boards import legacy
from aioemu.machine.boards.pci import window64
from aioemu.machine.boards.slots import MmioSlots
from aioemu.machine.kit import Kit
from aioemu.memory.guest import split_around_hole
from aioemu.memory.ranges import RamRange

if TYPE_CHECKING:
    from aioemu.devices.pci.bus import PciBus
    from aioemu.devices.pci.host import PciHost

LOW_RAM_LIMIT = 0xC0000000  # memory below 4 GiB ends here
PCI_WINDOW, ECAM = Window(0xC0000000, 0x20000000), Window(0xE0000000, 256 << 20)  # with pcie=on
INTX_GSIS = (12, 13, 14, 15)
VIRTIO_BASE, VIRTIO_SLOTS, VIRTIO_LINES = 0xFEB00000, 24, (16, 17, 18, 19, 20, 21, 22, 23)
VIRTIO_ISA_LINES = (5, 6, 7, 10, 11, 12, 14, 15)  # without ACPI a kernel takes lines as ISA's: edges, not shared
GENERIC_BRIDGE = (0x1B36, 0x0008, 0x060000)  # "PCIe host bridge" of the generic kind


@dataclass(frozen=True, slots=True)
class MicrovmOptions:
    """`-machine microvm,...`. `auto` values are decided by the board."""

    acpi: bool = True
    pcie: bool = False
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
        self.pci: PciHost | None = None
        self._described: AcpiBoard | None = None
        lines = VIRTIO_LINES * (VIRTIO_SLOTS // len(VIRTIO_LINES)) if options.acpi else VIRTIO_ISA_LINES
        self.virtio_slots = MmioSlots(VIRTIO_BASE, lines, edge=not options.acpi)

    @property
    def pci_bus(self) -> PciBus | None:
        """The root bus, with pcie=on and once it is built."""
        return self.pci.root if self.pci is not None else None

    def ram(self, size: int) -> list[RamRange]:
        return split_around_hole(size, LOW_RAM_LIMIT)

    def build(self, kit: Kit) -> None:
        uarts = (legacy.add_serial(kit, 0),) if self.options.isa_serial else ()
        rtc = self.options.rtc != "off"
        if rtc:
            legacy.add_rtc(kit)
        self.pm = legacy.add_power(kit)
        legacy.add_reset_control(kit)
        pci = self._add_pci(kit) if self.options.pcie else None
        self._described = AcpiBoard(
            cpus=legacy.acpi_cpus(kit),
            uarts=uarts,
            rtc=rtc,
            pic=self.needs.pic,
            pci=pci,
            pvpanic_port=legacy.pvpanic_port(kit),
        )

    def _add_pci(self, kit: Kit) -> AcpiPci:
        """A generic host bridge: ECAM alone, no configuration ports."""
        from aioemu.devices.pci.bus import devfn  # few want PCI on this board, and it takes a while to load
        from aioemu.devices.pci.function import Identity, PciFunction
        from aioemu.devices.pci.host import PciHost
        from aioemu.devices.pci.mapper import RouterMapper

        bridge = PciFunction(Identity(*GENERIC_BRIDGE), name="host bridge")
        self.pci = PciHost(RouterMapper(kit.router), kit.msi, lambda n: kit.irq(INTX_GSIS[n]))
        kit.add("pci", self.pci)
        kit.map("ECAM", self.pci.ecam, MMIO, ECAM.base)
        self.pci.root.plug(bridge, devfn(0))
        mmio64 = window64(kit.memory.ranges)
        return AcpiPci(ecam=ECAM, mmio32=PCI_WINDOW, mmio64=mmio64, io_ports=False, intx_gsis=INTX_GSIS)

    def firmware(self, kit: Kit) -> FirmwareTables | None:
        if self._described is None:
            return None
        slots = self.virtio_slots
        transports = tuple(VirtioMmio(slots.address(n), slots.gsis[n], n, edge=slots.edge) for n in sorted(slots.taken))
        described = replace(self._described, virtio_mmio=transports)
        return legacy.firmware_tables(kit, described, "microvm", self.options.acpi)

    def boot_layout(self) -> BootLayout:
        return BootLayout(reserved=(E820Entry(ECAM.base, ECAM.size, E820Type.RESERVED),) if self.pci else ())

    def boot_cmdline(self, given: str) -> str:
        if self.options.acpi or not self.options.auto_kernel_cmdline:
            return given
        return " ".join((given, *self.virtio_slots.command_line())).strip()

    def power_button(self) -> None:
        if self.pm is not None:
            self.pm.press_power_button()
