"""Small files of the kinds that kernels come in, made by hand: modules with a .modinfo section, bzImages."""

from __future__ import annotations

import struct


def module(**info: str) -> bytes:
    """An ELF64 object with nothing but a .modinfo section; `softdep="pre: a"` and the like as keywords."""
    names = b"\0.modinfo\0.shstrtab\0"
    data = b"".join(f"{key}={value}".encode() + b"\0" for key, value in info.items())
    data_at, names_at = 64, 64 + len(data)
    table_at = names_at + len(names)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, data_at, len(data), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    return header + data + names + sections


def bzimage(payload: bytes, *, sectors: int = 1, version: int = 0x20F, offset: int = 16, length: int = -1) -> bytes:
    """A bzImage around a compressed kernel, which its unpacked size follows, as the kernel's build has it."""
    head = bytearray((sectors + 1) * 512)
    head[0x1F1] = sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, offset, len(payload) + 4 if length < 0 else length)
    return bytes(head) + bytes(16) + payload + bytes(4)
