"""`q35`: a PC with PCI Express: memory around a PCI hole, ECAM, and the ICH9's ISA-side chips at their usual ports."""

from __future__ import annotations

from dataclasses import dataclass

from aioemu.accel.base import ChipNeeds
from aioemu.boot.acpi import AcpiBoard, Window
from aioemu.boot.acpi import PciHost as AcpiPci
from aioemu.boot.e820 import E820Entry, E820Type
from aioemu.boot.loader import BootLayout
from aioemu.boot.tables import FirmwareTables
from aioemu.bus.wires import PIO
from aioemu.config import MachineConfig
from aioemu.devices.acpi_pm import AcpiPm
from aioemu.devices.pci.bus import PciBus, devfn
from aioemu.devices.pci.host import CONFIG_PORTS, PciHost
from aioemu.devices.pci.mapper import RouterMapper
from aioemu.devices.pci.q35 import HostBridge, Lpc
from aioemu.devices.port92 import PORT as PORT92
from aioemu.devices.port92 import Port92
from aioemu.devices.reset_control import ResetControl
from aioemu.machine.boards import legacy
from aioemu.machine.boards.pci import window64
from aioemu.machine.kit import Kit
from aioemu.memory.guest import split_around_hole
from aioemu.memory.ranges import RamRange

ECAM_BASE, ECAM_MIN_BYTES = 0xB0000000, 64 << 20  # the smallest window that the chipset's register can say
BUSES_MIN, BUSES_MAX = 16, 256  # guests probe every bus that there may be: each costs a thousand exits
LOW_RAM_ROUND = 0x80000000  # with more memory than fits below ECAM, so much stays low: whole GiB for large pages
INTX_GSIS = (16, 17, 18, 19)  # PIRQA to PIRQD on the I/O APIC
LPC_SLOT = devfn(0x1F, 0)


@dataclass(frozen=True, slots=True)
class Q35Options:
    """`-machine q35,...`."""

    acpi: bool = True
    pit: bool = True
    pic: bool = True
    i8042: bool = True


class Q35:
    """The board."""

    def __init__(self, options: Q35Options, config: MachineConfig) -> None:
        self.options = options
        self.needs = ChipNeeds(pit=options.pit, pic=options.pic)
        self.buses = bus_count(config)
        self.ecam = Window(ECAM_BASE, max(ECAM_MIN_BYTES, self.buses << 20))
        self.serials = min(len(config.serials), len(legacy.UART_PORTS))
        self.pm: AcpiPm | None = None
        self.pci: PciHost | None = None
        self._described: AcpiBoard | None = None

    @property
    def pci_bus(self) -> PciBus | None:
        """The root bus, once it is built."""
        return self.pci.root if self.pci is not None else None

    def ram(self, size: int) -> list[RamRange]:
        return split_around_hole(size, ECAM_BASE if size <= ECAM_BASE else LOW_RAM_ROUND)

    def build(self, kit: Kit) -> None:
        uarts = tuple(legacy.add_serial(kit, n) for n in range(self.serials))
        legacy.add_rtc(kit)
        if self.options.i8042:
            legacy.add_i8042(kit)
        kit.place("port92", Port92(kit.wishes.reset), (PIO, PORT92))
        self.pm = legacy.add_power(kit)
        self._add_pci(kit)
        self._described = AcpiBoard(
            cpus=legacy.acpi_cpus(kit),
            uarts=uarts,
            pic=self.needs.pic,
            i8042=self.options.i8042,
            pci=AcpiPci(ecam=self.ecam, bus_count=self.buses, mmio64=window64(kit.memory.ranges), intx_gsis=INTX_GSIS),
            pvpanic_port=legacy.pvpanic_port(kit),
        )

    def _add_pci(self, kit: Kit) -> None:
        control = ResetControl(kit.wishes.reset)
        self.pci = PciHost(RouterMapper(kit.router), kit.msi, lambda n: kit.irq(INTX_GSIS[n]), control, self.buses)
        kit.place("pci", self.pci, (PIO, CONFIG_PORTS))
        self.pci.root.plug(HostBridge(self.pci, ECAM_BASE), devfn(0))
        self.pci.root.plug(Lpc(legacy.PM_EVENT), LPC_SLOT)

    def firmware(self, kit: Kit) -> FirmwareTables | None:
        if self._described is None:
            return None
        return legacy.firmware_tables(kit, self._described, "Standard PC (Q35 + ICH9)", self.options.acpi)

    def boot_layout(self) -> BootLayout:
        return BootLayout(reserved=(E820Entry(self.ecam.base, self.ecam.size, E820Type.RESERVED),))

    def boot_cmdline(self, given: str) -> str:
        return given

    def power_button(self) -> None:
        if self.pm is not None:
            self.pm.press_power_button()


def bus_count(config: MachineConfig) -> int:
    """Buses for this machine: one for each bridge and some to spare, a power of two."""
    bridges = sum(device.driver == "pcie-root-port" for device in config.devices)
    return min(BUSES_MAX, max(BUSES_MIN, 1 << (bridges + 8 - 1).bit_length()))
