"""DSDT: the devices that a bus cannot find by itself, and the methods that go with them.

Interrupts are given as global system interrupts: a guest without an I/O APIC driver has no INTx.
"""

from __future__ import annotations

from aioemu.boot.acpi import aml
from aioemu.boot.acpi import resources as res
from aioemu.boot.acpi.board import AcpiBoard, PciHost, Uart, VirtioMmio
from aioemu.boot.acpi.header import table

REVISION = 2  # 64-bit integers
PRESENT = 0x0F  # _STA: present, enabled, shown, working
PCI_OSC_UUID = "33DB4D5B-1FF7-401C-9657-7441C03DD766"
OSC_FAILURE_UUID, OSC_MASKED, OSC_REVISION = 0x04, 0x10, 0x08
OSC_HOTPLUG, OSC_PME, OSC_AER, OSC_CAPABILITY = 1 << 0, 1 << 2, 1 << 3, 1 << 4
PCI_SLOTS, PCI_PINS = 32, 4
CONFIG_PORTS = (0xCF8, 8)
VGA_MEMORY = (0xA0000, 0x20000)
PM_PORTS_SIZE = 0x80


def dsdt(board: AcpiBoard) -> bytes:
    """The table."""
    devices = [_cpu(uid) for uid in range(len(board.cpus))]
    if board.pci is not None:
        devices.append(_pci_host(board.pci, board.vga))
    devices.append(_motherboard(board))
    devices += [_uart(uart) for uart in board.uarts]
    if board.rtc:
        devices.append(_device("RTC", "PNP0B00", res.io(0x70, 2), res.irq(8)))
    if board.i8042:
        devices.append(_device("KBD", "PNP0303", res.io(0x60, 1), res.io(0x64, 1), res.irq(1)))
    if board.mouse:
        devices.append(_device("MOU", "PNP0F13", res.irq(12)))
    if board.pvpanic_port is not None:
        devices.append(_device("PEVT", "QEMU0001", res.io(board.pvpanic_port, 1)))
    devices += [_virtio_mmio(transport) for transport in board.virtio_mmio]
    sleep = aml.integer(board.pm.s5_sleep_type)
    body = aml.scope("_SB", *devices) + aml.name("_S5", aml.package(sleep, sleep, aml.ZERO, aml.ZERO))
    return table(b"DSDT", REVISION, body)


def _device(path: str, hardware_id: str, *descriptors: bytes, uid: int | None = None) -> bytes:
    terms = [aml.hid(hardware_id)]
    if uid is not None:
        terms.append(aml.name("_UID", aml.integer(uid)))
    terms += [aml.name("_STA", aml.integer(PRESENT)), res.crs(*descriptors)]
    return aml.device(path, *terms)


def _cpu(uid: int) -> bytes:
    return aml.device(f"C{uid:03X}", aml.hid("ACPI0007"), aml.name("_UID", aml.integer(uid)))


def _uart(uart: Uart) -> bytes:
    return _device(f"COM{uart.uid + 1}", "PNP0501", res.io(uart.port, 8), res.irq(uart.irq), uid=uart.uid)


def _virtio_mmio(transport: VirtioMmio) -> bytes:
    where = res.memory32_fixed(transport.base, transport.size)
    line = res.interrupt(transport.gsi, transport.edge)
    return _device(f"VR{transport.uid:02X}", "LNRO0005", where, line, uid=transport.uid)


def _motherboard(board: AcpiBoard) -> bytes:
    """What the board itself occupies: guests must neither give it away nor doubt that ECAM is there."""
    descriptors = [res.io(board.pm.event_port, PM_PORTS_SIZE)]
    if board.pci is not None:
        ecam = board.pci.ecam
        below = ecam.base + ecam.size <= 1 << 32
        descriptors.append((res.memory32_fixed if below else res.qword_memory)(ecam.base, ecam.size))
    return _device("MBRD", "PNP0C02", *descriptors, uid=0)


def _pci_host(host: PciHost, vga: bool) -> bytes:
    windows = [res.word_bus_number(0, host.bus_count)]
    if host.io_ports:
        first, size = CONFIG_PORTS
        windows += [res.io(first, size), res.word_io(0, first), res.word_io(first + size, 0x10000 - first - size)]
    if vga:
        windows.append(res.dword_memory(*VGA_MEMORY))
    windows.append(res.dword_memory(host.mmio32.base, host.mmio32.size))
    if host.mmio64 is not None:
        windows.append(res.qword_memory(host.mmio64.base, host.mmio64.size))
    return aml.device(
        "PCI0",
        aml.hid("PNP0A08"),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.ZERO),
        aml.name("_SEG", aml.ZERO),
        aml.name("_BBN", aml.ZERO),
        res.crs(*windows),
        _prt(host),
        _osc(host),
    )


def _prt(host: PciHost) -> bytes:
    """_PRT: slot and pin to interrupt, with no link devices between."""
    gsis = host.intx_gsis
    rows = [
        aml.package(
            aml.integer(slot << 16 | 0xFFFF), aml.integer(pin), aml.ZERO, aml.integer(gsis[(slot + pin) % len(gsis)])
        )
        for slot in range(PCI_SLOTS)
        for pin in range(PCI_PINS)
    ]
    return aml.name("_PRT", aml.package(*rows))


def _osc(host: PciHost) -> bytes:
    """_OSC: PCIe services are handed to the operating system (PCI Firmware 3.3 section 4.5.1)."""
    granted = OSC_PME | OSC_AER | OSC_CAPABILITY | (OSC_HOTPLUG if host.native_hotplug else 0)
    status, control = aml.name_string("CDW1"), aml.name_string("CDW3")
    answer = aml.local(0)
    known = aml.if_(
        aml.equal(aml.arg(0), aml.uuid(PCI_OSC_UUID)),
        aml.create_dword_field(aml.arg(3), 8, "CDW3"),
        aml.and_(control, aml.integer(granted), answer),
        aml.if_(aml.not_equal(aml.arg(1), aml.ONE), aml.or_(status, aml.integer(OSC_REVISION), status)),
        aml.if_(aml.not_equal(control, answer), aml.or_(status, aml.integer(OSC_MASKED), status)),
        aml.store(answer, control),
    )
    unknown = aml.else_(aml.or_(status, aml.integer(OSC_FAILURE_UUID), status))
    first = aml.create_dword_field(aml.arg(3), 0, "CDW1")
    return aml.method("_OSC", 4, first, known, unknown, aml.return_(aml.arg(3)))
