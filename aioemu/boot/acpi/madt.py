"""MADT: the processors and how interrupts reach them (ACPI 6.5 section 5.2.12)."""

from __future__ import annotations

import struct

from aioemu.boot.acpi.board import AcpiBoard, Cpu
from aioemu.boot.acpi.header import table

REVISION = 5
PCAT_COMPAT = 1  # a pair of 8259A is there as well
ENABLED, ONLINE_CAPABLE = 1, 2
BYTE_ID_MAX = 254  # 255 addresses all processors: it and above need an x2APIC entry
ALL_BYTE, ALL = 0xFF, 0xFFFFFFFF
NMI_LINT = 1


def madt(board: AcpiBoard) -> bytes:
    """The table; a processor's ACPI UID is its place in `board.cpus`."""
    entries = [_cpu(uid, cpu) for uid, cpu in enumerate(board.cpus)]
    entries += [struct.pack("<BBBBII", 1, 12, chip.id, 0, chip.address, chip.gsi_base) for chip in board.ioapics]
    entries += [struct.pack("<BBBBIH", 2, 10, 0, o.source, o.gsi, o.flags) for o in board.overrides]
    entries.append(struct.pack("<BBBHB", 4, 6, ALL_BYTE, 0, NMI_LINT))
    if any(_needs_x2apic(uid, cpu) for uid, cpu in enumerate(board.cpus)):
        entries.append(struct.pack("<BBHIB3x", 10, 12, 0, ALL, NMI_LINT))
    head = struct.pack("<II", board.lapic_address, PCAT_COMPAT if board.pic else 0)
    return table(b"APIC", REVISION, head + b"".join(entries))


def _needs_x2apic(uid: int, cpu: Cpu) -> bool:
    return cpu.apic_id > BYTE_ID_MAX or uid > BYTE_ID_MAX


def _cpu(uid: int, cpu: Cpu) -> bytes:
    flags = ENABLED if cpu.enabled else ONLINE_CAPABLE
    if _needs_x2apic(uid, cpu):
        return struct.pack("<BBHIII", 9, 16, 0, cpu.apic_id, flags, uid)
    return struct.pack("<BBBBI", 0, 8, uid, cpu.apic_id, flags)
