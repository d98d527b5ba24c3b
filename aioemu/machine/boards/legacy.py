"""The ISA-side chips that boards share, each wired to the kit: serial ports, clock, power management, panic port."""

from __future__ import annotations

from msgspec.structs import replace

import aioemu
from aioemu._core import lib
from aioemu.accel.cpuid import apic_ids
from aioemu.boot import mptable, smbios, smbios_options
from aioemu.boot.acpi import AcpiBoard, Cpu, build_tables
from aioemu.boot.acpi import Uart as AcpiUart
from aioemu.boot.tables import FirmwareTables
from aioemu.bus.deferred import ALL_ONES
from aioemu.bus.router import RawRange
from aioemu.bus.wires import PIO
from aioemu.devices.acpi_pm import AcpiPm, Gpe
from aioemu.devices.i8042 import I8042
from aioemu.devices.pm_timer import PmTimer
from aioemu.devices.reset_control import RESET_PORT, ResetControl
from aioemu.devices.rtc import Rtc
from aioemu.devices.rtc_clock import make_clock
from aioemu.devices.uart import Uart
from aioemu.errors import HostError
from aioemu.machine.keys import Typist
from aioemu.machine.kit import Kit
from aioemu.machine.serial import PolledOutput

UART_PORTS = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3))  # COM1 to COM4: base, interrupt
PM_EVENT, PM_TIMER, PM_GPE0, SCI = 0x600, 0x608, 0x620, 9
RTC_PORT, RTC_IRQ = 0x70, 8
OUTPUT_GATHER_S = 0.002  # a guest that prints wakes the host at most so often; below what a person notices


def add_serial(kit: Kit, number: int) -> AcpiUart:
    """The UART `COM<number + 1>`, plugged into the chardev of that number."""
    base, irq = UART_PORTS[number]
    place_uart(kit, f"serial{number}", base, irq)
    kit.connect_serial(kit.chips[f"serial{number}"], number)
    return AcpiUart(base, irq, number)


def place_uart(kit: Kit, name: str, base: int, irq: int) -> Uart:
    """A UART at a port and line of its own."""
    uart = Uart()
    kit.place(name, uart, (PIO, base))
    rc = lib.core_chip_wire(uart.chip, kit.native.ptr, irq)
    if rc < 0:
        raise HostError(f"{name}: interrupt {irq}", -rc)
    output = PolledOutput(uart, base, kit.clock)
    kit.router.notify(uart.chip, output.notified, name, OUTPUT_GATHER_S)
    kit.flushers.append(uart.notified)
    return uart


def add_rtc(kit: Kit) -> Rtc:
    """The real time clock on interrupt 8."""
    options = kit.config.rtc
    clock = make_clock(options.base, options.clock, kit.clock)
    rtc: Rtc = kit.place("rtc", Rtc(kit.irq(RTC_IRQ), kit.clock, clock), (PIO, RTC_PORT))
    return rtc


def add_i8042(kit: Kit) -> I8042:
    """Keyboard controller with a keyboard on interrupt 1."""
    controller: I8042 = kit.add("i8042", I8042(kit.irq(1), kit.irq(12), kit.wishes.reset))
    for port, block in ((0x60, controller.port60), (0x64, controller.port64)):
        kit.map("i8042", block, PIO, port)
    kit.add("i8042-keys", Typist(controller.keyboard, kit.clock))
    return controller


def add_power(kit: Kit) -> AcpiPm:
    """ACPI fixed hardware, its timer and general purpose events."""
    pm: AcpiPm = kit.place("acpi-pm", AcpiPm(kit.irq(SCI), kit.wishes.power_off, kit.clock), (PIO, PM_EVENT))
    kit.place("pm-timer", PmTimer(pm.timer_bits), (PIO, PM_TIMER))
    kit.place("gpe0", Gpe(kit.irq(SCI)), (PIO, PM_GPE0))
    return pm


def add_reset_control(kit: Kit) -> ResetControl:
    """The reset register where there is no PCI host around it: only a byte at 0xcf9 is meant for it."""
    control: ResetControl = kit.add("reset-control", ResetControl(kit.wishes.reset))
    first = RESET_PORT & ~7  # wider accesses from 0xcf8 on are attempts at PCI configuration

    def mine(offset: int, size: int) -> bool:
        return first + offset == RESET_PORT and size == 1

    def read(offset: int, size: int) -> int:
        return control.read(0, 1) if mine(offset, size) else ALL_ONES

    def write(offset: int, size: int, value: int) -> None:
        if mine(offset, size):
            control.write(0, 1, value)

    kit.map("reset-control", RawRange(8, read, write), PIO, first)
    return control


def firmware_tables(kit: Kit, board: AcpiBoard, product: str, acpi: bool) -> FirmwareTables:
    """What the board's operating system is told: SMBIOS, the MP table, and with `acpi` the ACPI tables."""
    config = kit.config
    base = smbios.Smbios(bios=smbios.Bios(version=aioemu.__version__))
    described = replace(
        base,
        system=replace(base.system, product=product),
        processor=replace(
            base.processor,
            sockets=config.smp.sockets,
            cores=config.smp.cores * config.smp.dies,
            threads=config.smp.cores * config.smp.dies * config.smp.threads,
        ),
        memory=replace(base.memory, ranges=tuple(kit.memory.ranges)),
    )
    described = smbios_options.apply_options(described, config.smbios, config.uuid)
    groups = [smbios.build(described), mptable.build(board)]
    if acpi:
        groups.append(build_tables(board))
    return FirmwareTables.of(*groups)


def pvpanic_port(kit: Kit) -> int | None:
    """Where the panic port will be, if the configuration has one: guests find it through ACPI only."""
    given = next((device for device in kit.config.devices if device.driver == "pvpanic"), None)
    if given is None:
        return None
    from aioemu.devices.catalog import PvpanicProperties  # loads every device there is
    from aioemu.devices.properties import read_properties

    port: int = read_properties("pvpanic", PvpanicProperties, given.props).ioport
    return port


def acpi_cpus(kit: Kit) -> tuple[Cpu, ...]:
    """Every possible processor; those that are not there yet are disabled."""
    present = kit.config.smp.cpus
    return tuple(Cpu(apic_id, n < present) for n, apic_id in enumerate(apic_ids(kit.config.smp)))
