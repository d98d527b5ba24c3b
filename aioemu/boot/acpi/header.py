"""The header that every ACPI table has, its checksum, and the generic address structure."""

from __future__ import annotations

import struct

HEADER = struct.Struct("<4sIBB6s8sI4sI")
OEM_ID, OEM_TABLE_ID, CREATOR_ID = b"AIOEMU", b"AIOEMUPC", b"AIOE"
_CHECKSUM_AT = 9
SYSTEM_MEMORY, SYSTEM_IO = 0, 1
_ACCESS_SIZE = {8: 1, 16: 2, 32: 3, 64: 4}


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of all bytes zero."""
    return -sum(data) & 0xFF


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A whole table."""
    size = HEADER.size + len(body)
    head = HEADER.pack(signature, size, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1)
    data = bytearray(head + body)
    data[_CHECKSUM_AT] = checksum(data)
    return bytes(data)


def address(space: int, bits: int, where: int, access: int | None = None) -> bytes:
    """A generic address structure; `access` is the width of one access where the block is wider."""
    return struct.pack("<BBBBQ", space, bits, 0, _ACCESS_SIZE[access or bits], where)
