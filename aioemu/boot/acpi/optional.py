"""The small tables that a board has only with the part they describe: MCFG, HPET, SPCR."""

from __future__ import annotations

import struct

from aioemu.boot.acpi.board import PciHost, Uart
from aioemu.boot.acpi.header import SYSTEM_IO, SYSTEM_MEMORY, address, table

HPET_BLOCK_ID = 0x8086A201  # PCI vendor, legacy replacement, 64-bit counter, three timers, revision 1
HPET_MIN_TICK = 100
UART_16550 = 0x00
INTERRUPT_8259_AND_IOAPIC = 0x03
BAUD_115200, ONE_STOP_BIT, TERMINAL_ANSI = 7, 1, 3
NO_PCI_DEVICE = 0xFFFF


def mcfg(host: PciHost) -> bytes:
    """PCI Firmware 3.3 section 4.1.2: where configuration space is in memory."""
    return table(b"MCFG", 1, struct.pack("<8xQHBBI", host.ecam.base, 0, 0, host.bus_count - 1, 0))


def hpet(base: int) -> bytes:
    """IA-PC HPET 1.0a section 3.2.4."""
    where = address(SYSTEM_MEMORY, 64, base)
    return table(b"HPET", 1, struct.pack("<I", HPET_BLOCK_ID) + where + struct.pack("<BHB", 0, HPET_MIN_TICK, 0))


def spcr(uart: Uart) -> bytes:
    """Serial port console redirection, revision 2."""
    where = address(SYSTEM_IO, 8, uart.port)
    body = struct.pack("<B3x", UART_16550) + where
    body += struct.pack("<BBI", INTERRUPT_8259_AND_IOAPIC, uart.irq, uart.irq)
    body += struct.pack("<BBBBBB", BAUD_115200, 0, ONE_STOP_BIT, 0, TERMINAL_ANSI, 0)
    body += struct.pack("<HHBBBIBI", NO_PCI_DEVICE, NO_PCI_DEVICE, 0, 0, 0, 0, 0, 0)
    return table(b"SPCR", 2, body)
