"""The MultiProcessor table (Intel, version 1.4): processors and interrupts for guests that do not use ACPI.

Made of the same description as the ACPI tables, so that a kernel booted with `acpi=off` finds what it would find there.
Its numbers are bytes: a board with larger APIC IDs has no such table. Left out: what only ACPI can say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from aioemu.boot import lowmem
from aioemu.boot.acpi.board import AcpiBoard, IntiFlags, IoApic
from aioemu.boot.acpi.header import checksum
from aioemu.boot.ram import RamRange
from aioemu.boot.tables import Placement
from aioemu.errors import ConfigError

TABLE_OFFSET = 0x10  # behind the floating pointer
APIC_ID_MAX = 254  # 255 addresses all
SPEC_1_4 = 4
LAPIC_VERSION, IOAPIC_VERSION = 0x14, 0x11
FEATURES = 0x201  # a processor with FPU and local APIC; the guest asks CPUID for the rest
ENABLED, BOOT_PROCESSOR = 1, 2
ISA_IRQS, CASCADE_IRQ = 16, 2
INT, NMI, EXT_INT = 0, 1, 3
ALL_APICS = 0xFF
PCI_SLOTS, PCI_PINS = 32, 4
_HEADER = struct.Struct("<4sHBB8s12sIHHIHBB")


def build(board: AcpiBoard, area: RamRange = lowmem.MP_TABLE) -> tuple[Placement, ...]:
    """The floating pointer at the start of `area` and the table behind it; nothing where bytes do not do."""
    if not board.ioapics or any(cpu.apic_id > APIC_ID_MAX for cpu in board.cpus):
        return ()
    entries = list(_entries(board))
    body = b"".join(entries)
    size = _HEADER.size + len(body)
    if TABLE_OFFSET + size > area.size:
        raise ConfigError(f"the MP table needs {size} bytes, there is room for {area.size - TABLE_OFFSET}")
    header = (
        b"PCMP",
        size,
        SPEC_1_4,
        0,
        b"AIOEMU  ",
        b"PC          ",
        0,
        0,
        len(entries),
        board.lapic_address,
        0,
        0,
        0,
    )
    table = bytearray(_HEADER.pack(*header) + body)
    table[7] = checksum(table)
    address = area.start + TABLE_OFFSET
    pointer = bytearray(struct.pack("<4sIBBB5x", b"_MP_", address, 1, SPEC_1_4, 0))
    pointer[10] = checksum(pointer)
    return Placement("_MP_", area.start, bytes(pointer)), Placement("PCMP", address, bytes(table))


def _entries(board: AcpiBoard) -> Iterator[bytes]:
    """Processors, buses, I/O APICs, I/O interrupts, local interrupts: ascending by type, as section 4.3 asks."""
    for index, cpu in enumerate(board.cpus):
        flags = (ENABLED if cpu.enabled else 0) | (0 if index else BOOT_PROCESSOR)
        yield struct.pack("<BBBBII8x", 0, cpu.apic_id, LAPIC_VERSION, flags, 0, FEATURES)
    isa_bus = 0 if board.pci is None else 1
    if board.pci is not None:
        yield struct.pack("<BB6s", 1, 0, b"PCI   ")
    yield struct.pack("<BB6s", 1, isa_bus, b"ISA   ")
    for chip in board.ioapics:
        yield struct.pack("<BBBBI", 2, chip.id, IOAPIC_VERSION, ENABLED, chip.address)
    yield from _pci_interrupts(board)
    yield from _isa_interrupts(board, isa_bus)
    yield struct.pack("<BBHBBBB", 4, EXT_INT, 0, isa_bus, 0, ALL_APICS, 0)
    yield struct.pack("<BBHBBBB", 4, NMI, 0, isa_bus, 0, ALL_APICS, 1)


def _pci_interrupts(board: AcpiBoard) -> Iterator[bytes]:
    if board.pci is None:
        return
    gsis = board.pci.intx_gsis
    flags = IntiFlags.ACTIVE_HIGH | IntiFlags.LEVEL  # as the lines are wired to the I/O APIC
    for slot in range(PCI_SLOTS):
        for pin in range(PCI_PINS):
            chip, line = _input(board, gsis[(slot + pin) % len(gsis)])
            yield struct.pack("<BBHBBBB", 3, INT, flags, 0, slot << 2 | pin, chip.id, line)


def _isa_interrupts(board: AcpiBoard, bus: int) -> Iterator[bytes]:
    moved = {override.source: override for override in board.overrides}
    for irq in range(ISA_IRQS):
        if irq == CASCADE_IRQ:
            continue
        override = moved.get(irq)
        chip, line = _input(board, override.gsi if override else irq)
        flags = override.flags if override else IntiFlags.CONFORMS
        yield struct.pack("<BBHBBBB", 3, INT, flags, bus, irq, chip.id, line)


def _input(board: AcpiBoard, gsi: int) -> tuple[IoApic, int]:
    """The I/O APIC and its input that a global system interrupt is."""
    chip = max((c for c in board.ioapics if c.gsi_base <= gsi), key=lambda c: c.gsi_base, default=board.ioapics[0])
    return chip, gsi - chip.gsi_base
