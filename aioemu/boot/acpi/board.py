"""What ACPI tells about a board, as frozen data: the board layer fills it in, the tables are made of nothing else."""

from __future__ import annotations

from enum import IntFlag

from msgspec import Struct


class IntiFlags(IntFlag):
    """MPS INTI flags of a MADT entry (ACPI 6.5 table 5.26); 0 is what the bus says."""

    CONFORMS = 0
    ACTIVE_HIGH = 1
    ACTIVE_LOW = 3
    EDGE = 1 << 2
    LEVEL = 3 << 2


class Cpu(Struct, frozen=True):
    """One processor; one that is not enabled can be brought in while the guest runs."""

    apic_id: int
    enabled: bool = True


class IoApic(Struct, frozen=True):
    """An I/O APIC: `gsi_base` is the number of its first input."""

    id: int = 0
    address: int = 0xFEC00000
    gsi_base: int = 0


class IrqOverride(Struct, frozen=True):
    """An ISA interrupt that reaches another input, or has another signal, than ISA says."""

    source: int
    gsi: int
    flags: IntiFlags = IntiFlags.CONFORMS


class Window(Struct, frozen=True):
    """A run of addresses on a bus."""

    base: int
    size: int


class PciHost(Struct, frozen=True):
    """A PCIe host bridge: configuration space, address windows and how INTx# reaches the I/O APIC.

    Pin p (0 is INTA#) of device d on bus 0 is wired to `intx_gsis[(d + p) % len(intx_gsis)]`.
    """

    ecam: Window = Window(0xB0000000, 256 << 20)
    bus_count: int = 256
    mmio32: Window = Window(0xC0000000, 0xFEC00000 - 0xC0000000)
    mmio64: Window | None = None
    io_ports: bool = True  # configuration mechanism #1 at 0xcf8, and I/O BARs
    intx_gsis: tuple[int, ...] = (16, 17, 18, 19)
    native_hotplug: bool = True


class Uart(Struct, frozen=True):
    """A 16550A on ISA ports; COM1 has `uid` 0."""

    port: int
    irq: int
    uid: int


class VirtioMmio(Struct, frozen=True):
    """A virtio-mmio transport."""

    base: int
    gsi: int
    uid: int
    size: int = 0x200
    edge: bool = True


class PowerManagement(Struct, frozen=True):
    """Fixed ACPI hardware: a PM1 block, a timer, general-purpose events, and a reset register, all on I/O ports.

    The hardware is always in ACPI mode (SCI_EN reads as 1), so that no SMI command port is needed.
    """

    event_port: int = 0x600  # PM1a_EVT_BLK: status, enable
    control_port: int = 0x604  # PM1a_CNT_BLK
    timer_port: int = 0x608  # PM_TMR_BLK
    timer_32bit: bool = False
    gpe0_port: int = 0x620  # GPE0_BLK; 0 length: none
    gpe0_size: int = 16
    sci_irq: int = 9
    s5_sleep_type: int = 0  # SLP_TYPa that powers off
    reset_port: int = 0xCF9
    reset_value: int = 0x0F


class AcpiBoard(Struct, frozen=True):
    """Everything that the tables say."""

    cpus: tuple[Cpu, ...]
    ioapics: tuple[IoApic, ...] = (IoApic(),)
    overrides: tuple[IrqOverride, ...] = (
        IrqOverride(0, 2),
        IrqOverride(9, 9, IntiFlags.ACTIVE_HIGH | IntiFlags.LEVEL),
    )
    lapic_address: int = 0xFEE00000
    pic: bool = True  # a pair of 8259A
    pm: PowerManagement = PowerManagement()
    pci: PciHost | None = None
    uarts: tuple[Uart, ...] = ()
    virtio_mmio: tuple[VirtioMmio, ...] = ()
    rtc: bool = True  # an MC146818 at port 0x70, interrupt 8
    i8042: bool = False  # ports 0x60 and 0x64, keyboard on interrupt 1
    mouse: bool = False  # an auxiliary device on interrupt 12
    vga: bool = False
    pvpanic_port: int | None = None
    hpet_address: int | None = None
    spcr: bool = False  # name the first UART as the console
    extra: tuple[bytes, ...] = ()  # whole tables (`-acpitable file=`), listed as they are
