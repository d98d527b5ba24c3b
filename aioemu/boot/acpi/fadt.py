"""FADT and FACS: fixed ACPI hardware on I/O ports (ACPI 6.5 section 5.2.9), in ACPI mode from the start."""

from __future__ import annotations

import struct
from enum import IntFlag

from aioemu.boot.acpi.board import AcpiBoard
from aioemu.boot.acpi.header import HEADER, SYSTEM_IO, address, table

REVISION, MINOR = 6, 3
SIZE = 276
FACS_SIZE, FACS_VERSION = 64, 2
CENTURY = 0x32  # the CMOS byte that PCs keep it in
NO_C2, NO_C3 = 0xFFF, 0xFFF  # latencies above 100 and 1000 µs: no such state
PM1_EVT_LEN, PM1_CNT_LEN, PM_TMR_LEN = 4, 2, 4
CLUSTER_CPUS = 8  # more than flat logical destinations can name


class Flags(IntFlag):
    """Fixed feature flags (table 5.10). Not set: PWR_BUTTON, because the power button is a fixed one."""

    WBINVD = 1 << 0
    PROC_C1 = 1 << 2
    SLP_BUTTON = 1 << 5  # no fixed sleep button
    FIX_RTC = 1 << 6  # no RTC wake status
    TMR_VAL_EXT = 1 << 8
    RESET_REG_SUP = 1 << 10
    FORCE_APIC_CLUSTER_MODEL = 1 << 18


class BootArch(IntFlag):
    """IA-PC boot architecture flags (table 5.11)."""

    LEGACY_DEVICES = 1 << 0
    I8042 = 1 << 1
    VGA_NOT_PRESENT = 1 << 2
    CMOS_RTC_NOT_PRESENT = 1 << 5


def facs() -> bytes:
    """The structure that holds the waking vector and the global lock; it has no checksum."""
    return struct.pack("<4sI", b"FACS", FACS_SIZE).ljust(32, b"\0") + bytes([FACS_VERSION]).ljust(32, b"\0")


def fadt(board: AcpiBoard, facs_at: int, dsdt_at: int) -> bytes:
    """The table, with the addresses of those that only it names."""
    pm = board.pm
    body = bytearray(SIZE)
    # offsets are from the start of the table, as in table 5.9
    struct.pack_into("<II", body, 36, facs_at, dsdt_at)
    struct.pack_into("<H", body, 46, pm.sci_irq)
    struct.pack_into("<IIIIIIII", body, 56, pm.event_port, 0, pm.control_port, 0, 0, pm.timer_port, pm.gpe0_port, 0)
    struct.pack_into("<BBBBB", body, 88, PM1_EVT_LEN, PM1_CNT_LEN, 0, PM_TMR_LEN, pm.gpe0_size)
    struct.pack_into("<HH", body, 96, NO_C2, NO_C3)
    struct.pack_into("<BHBI", body, 108, CENTURY if board.rtc else 0, _boot_arch(board), 0, _flags(board))
    body[116:128] = address(SYSTEM_IO, 8, pm.reset_port)
    struct.pack_into("<BHB", body, 128, pm.reset_value, 0, MINOR)
    struct.pack_into("<QQ", body, 132, 0, dsdt_at)
    body[148:160] = address(SYSTEM_IO, 8 * PM1_EVT_LEN, pm.event_port, 16)
    body[172:184] = address(SYSTEM_IO, 8 * PM1_CNT_LEN, pm.control_port)
    body[208:220] = address(SYSTEM_IO, 32, pm.timer_port)
    if pm.gpe0_size:
        body[220:232] = address(SYSTEM_IO, 8 * pm.gpe0_size, pm.gpe0_port, 8)
    return table(b"FACP", REVISION, bytes(body[HEADER.size :]))


def _flags(board: AcpiBoard) -> Flags:
    flags = Flags.WBINVD | Flags.PROC_C1 | Flags.SLP_BUTTON | Flags.FIX_RTC | Flags.RESET_REG_SUP
    if board.pm.timer_32bit:
        flags |= Flags.TMR_VAL_EXT
    if len(board.cpus) > CLUSTER_CPUS:
        flags |= Flags.FORCE_APIC_CLUSTER_MODEL
    return flags


def _boot_arch(board: AcpiBoard) -> BootArch:
    flags = BootArch(0)
    if board.uarts or board.i8042 or board.rtc:
        flags |= BootArch.LEGACY_DEVICES
    if board.i8042:
        flags |= BootArch.I8042
    if not board.vga:
        flags |= BootArch.VGA_NOT_PRESENT
    if not board.rtc:
        flags |= BootArch.CMOS_RTC_NOT_PRESENT
    return flags
