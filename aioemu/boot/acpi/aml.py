"""Encodes ACPI Machine Language: each function makes one term, and terms are bytes that nest by concatenation.

Only what our tables say (ACPI 6.5 chapter 20). Names are checked, because a wrong one makes a table that fails in the
guest; types of operands are not.
"""

from __future__ import annotations

import re
import struct
from uuid import UUID

ZERO, ONE, ONES = b"\x00", b"\x01", b"\xff"
_NAME_SEGMENT = re.compile(r"[A-Z_][A-Z0-9_]{0,3}")
_EISA_ID = re.compile(r"[A-Z]{3}[0-9A-F]{4}")
PACKAGE_ELEMENTS_MAX = 255  # PackageOp counts in one byte


def name_string(path: str) -> bytes:
    """A name or path: `_SB.PCI0`, `\\_S5`, `^CPU0`."""
    prefix = path[: len(path) - len(path.lstrip("\\^"))]
    segments = path[len(prefix) :].split(".") if path[len(prefix) :] else []
    if prefix not in ("", "\\") and prefix.strip("^"):
        raise ValueError(f"bad name prefix in {path!r}")
    if not all(_NAME_SEGMENT.fullmatch(segment) for segment in segments):
        raise ValueError(f"bad ACPI name {path!r}")
    encoded = b"".join(segment.ljust(4, "_").encode() for segment in segments)
    count = len(segments)
    lead = {0: b"\x00", 1: b"", 2: b"\x2e"}.get(count, b"\x2f" + bytes([count]))
    return prefix.encode() + lead + encoded


def pkg_length(body_size: int) -> bytes:
    """PkgLength, which counts itself (20.2.4)."""
    if body_size + 1 < 1 << 6:
        return bytes([body_size + 1])
    for extra in (1, 2, 3):
        total = body_size + 1 + extra
        if total < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little")
    raise ValueError(f"an AML package of {body_size} bytes is too long")


def integer(value: int) -> bytes:
    """The shortest constant for a value of up to 64 bits."""
    if value in (0, 1):
        return bytes([value])
    for code, prefix in (("B", b"\x0a"), ("H", b"\x0b"), ("I", b"\x0c"), ("Q", b"\x0e")):
        if 0 <= value < 1 << 8 * struct.calcsize(code):
            return prefix + struct.pack("<" + code, value)
    raise ValueError(f"{value} is no 64-bit integer")


def string(text: str) -> bytes:
    """A NUL-terminated ASCII string."""
    if not text.isascii() or "\0" in text:
        raise ValueError(f"{text!r} is no ASCII string")
    return b"\x0d" + text.encode() + b"\0"


def eisa_id(text: str) -> bytes:
    """A compressed EISA ID such as PNP0501, as the integer that _HID takes (19.3.4)."""
    if not _EISA_ID.fullmatch(text):
        raise ValueError(f"{text!r} is no EISA ID")
    first, second, third = (ord(letter) - 0x40 for letter in text[:3])
    value = (first << 26 | second << 21 | third << 16 | int(text[3:], 16)).to_bytes(4, "big")
    return integer(int.from_bytes(value, "little"))


def hid(text: str) -> bytes:
    """Name(_HID, …): compressed where it can be, else a string (`LNRO0005`)."""
    return name("_HID", eisa_id(text) if _EISA_ID.fullmatch(text) else string(text))


def buffer(data: bytes) -> bytes:
    """Buffer () {data}."""
    body = integer(len(data)) + data
    return b"\x11" + pkg_length(len(body)) + body


def uuid(text: str) -> bytes:
    """ToUUID: the 16-byte buffer whose first three fields are little-endian."""
    return buffer(UUID(text).bytes_le)


def package(*elements: bytes) -> bytes:
    """Package () {elements}."""
    if len(elements) > PACKAGE_ELEMENTS_MAX:
        raise ValueError(f"{len(elements)} elements in a package")
    body = bytes([len(elements)]) + b"".join(elements)
    return b"\x12" + pkg_length(len(body)) + body


def name(path: str, value: bytes) -> bytes:
    """Name (path, value)."""
    return b"\x08" + name_string(path) + value


def _block(opcode: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return opcode + pkg_length(len(body)) + body


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) {terms}."""
    return _block(b"\x10", name_string(path), *terms)


def device(path: str, *terms: bytes) -> bytes:
    """Device (path) {terms}."""
    return _block(b"\x5b\x82", name_string(path), *terms)


def method(path: str, args: int, *terms: bytes) -> bytes:
    """A serialized method: ours create named fields, which two threads must not do at once."""
    return _block(b"\x14", name_string(path), bytes([args | 0x08]), *terms)


def if_(condition: bytes, *terms: bytes) -> bytes:
    """If (condition) {terms}."""
    return _block(b"\xa0", condition, *terms)


def else_(*terms: bytes) -> bytes:
    """Else {terms}, after an If."""
    return _block(b"\xa1", *terms)


def arg(index: int) -> bytes:
    """ArgN."""
    return bytes([0x68 + index])


def local(index: int) -> bytes:
    """LocalN."""
    return bytes([0x60 + index])


def store(value: bytes, target: bytes) -> bytes:
    """target = value."""
    return b"\x70" + value + target


def return_(value: bytes) -> bytes:
    """Return (value)."""
    return b"\xa4" + value


def equal(left: bytes, right: bytes) -> bytes:
    """left == right."""
    return b"\x93" + left + right


def not_equal(left: bytes, right: bytes) -> bytes:
    """left != right."""
    return b"\x92" + equal(left, right)


def and_(left: bytes, right: bytes, target: bytes = ZERO) -> bytes:
    """target = left & right."""
    return b"\x7b" + left + right + target


def or_(left: bytes, right: bytes, target: bytes = ZERO) -> bytes:
    """target = left | right."""
    return b"\x7d" + left + right + target


def create_dword_field(source: bytes, byte_index: int, path: str) -> bytes:
    """CreateDWordField (source, byte_index, path)."""
    return b"\x8a" + source + integer(byte_index) + name_string(path)
