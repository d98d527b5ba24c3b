"""Resource descriptors: which ports, addresses and interrupts a device uses (ACPI 6.5 section 6.4)."""

from __future__ import annotations

import struct

from aioemu.boot.acpi import aml

_END_TAG = b"\x79\x00"  # checksum 0: not checked
_PRODUCER_FIXED = 0x0C  # resource producer, positive decode, both ends fixed
_MEMORY, _IO, _BUS = 0, 1, 2
_READ_WRITE = 0x01  # memory, not cacheable: also right for windows that hold prefetchable BARs
_ENTIRE_RANGE = 0x03


def template(*descriptors: bytes) -> bytes:
    """ResourceTemplate: the buffer that _CRS gives."""
    return aml.buffer(b"".join(descriptors) + _END_TAG)


def crs(*descriptors: bytes) -> bytes:
    """Name (_CRS, ResourceTemplate () {descriptors})."""
    return aml.name("_CRS", template(*descriptors))


def io(port: int, size: int) -> bytes:
    """Fixed ports, 16-bit decode."""
    return struct.pack("<BBHHBB", 0x47, 0x01, port, port, 1, size)


def irq(number: int) -> bytes:
    """One ISA interrupt: edge, active high, exclusive."""
    return struct.pack("<BH", 0x22, 1 << number)


def interrupt(gsi: int, edge: bool) -> bytes:
    """A global system interrupt, active high, exclusive."""
    return struct.pack("<BHBBI", 0x89, 6, 0x01 | (0x02 if edge else 0), 1, gsi)


def memory32_fixed(base: int, size: int) -> bytes:
    """Fixed addresses below 4 GiB, writable."""
    return struct.pack("<BHBII", 0x86, 9, 1, base, size)


def word_bus_number(first: int, count: int) -> bytes:
    """Bus numbers below a host bridge."""
    return struct.pack("<BHBBBHHHHH", 0x88, 13, _BUS, _PRODUCER_FIXED, 0, 0, first, first + count - 1, 0, count)


def word_io(first: int, size: int) -> bytes:
    """A window of ports that a bridge passes on."""
    fields = (_IO, _PRODUCER_FIXED, _ENTIRE_RANGE, 0, first, first + size - 1, 0, size)
    return struct.pack("<BHBBBHHHHH", 0x88, 13, *fields)


def dword_memory(base: int, size: int) -> bytes:
    """A window of addresses below 4 GiB that a bridge passes on."""
    fields = (_MEMORY, _PRODUCER_FIXED, _READ_WRITE, 0, base, base + size - 1, 0, size)
    return struct.pack("<BHBBBIIIII", 0x87, 23, *fields)


def qword_memory(base: int, size: int) -> bytes:
    """A window of addresses that a bridge passes on, or one beyond 4 GiB."""
    fields = (_MEMORY, _PRODUCER_FIXED, _READ_WRITE, 0, base, base + size - 1, 0, size)
    return struct.pack("<BHBBBQQQQQ", 0x8A, 43, *fields)
