"""Unpack LZ4's legacy frames, the kind Linux kernels carry (lz4_Block_format.md, lz4_Frame_format.md "Legacy frame").

Nothing is trusted: each length and offset is checked against what is there and against a limit. Plain Python: some
seconds for a kernel, which is done once for each one fetched.
"""

from __future__ import annotations

import struct

LEGACY_MAGIC = b"\x02\x21\x4c\x18"
BLOCK_MAX = 8 << 20  # what one block unpacks to at most
LAST_LENGTH = 15  # a nibble that says: more bytes follow
MIN_MATCH = 4


def unpack_legacy(data: bytes, limit: int) -> bytes:
    """The bytes of all blocks, at most (limit); ValueError when they are damaged."""
    if not data.startswith(LEGACY_MAGIC):
        raise ValueError("not an LZ4 legacy frame")
    out, at = bytearray(), 4
    while at + 4 <= len(data) and len(out) < limit:
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size > len(data) - at:
            raise ValueError(f"block of {size} bytes, {len(data) - at} left")
        out += _unpack_block(data[at : at + size])
        at += size
    return bytes(out[:limit])


def _unpack_block(data: bytes) -> bytearray:
    try:
        return _sequences(data)
    except IndexError as exc:
        raise ValueError("block ends inside a sequence") from exc


def _sequences(data: bytes) -> bytearray:
    """Sequences of literals and a match each; the last one ends after its literals."""
    out, at, end = bytearray(), 0, len(data)
    while at < end:
        token = data[at]
        at += 1
        length = token >> 4
        if length == LAST_LENGTH:
            length, at = _long_length(data, at)
        if length > end - at:
            raise ValueError("literals beyond the block's end")
        out += data[at : at + length]
        at += length
        if at == end:
            break
        distance = data[at] | data[at + 1] << 8
        at += 2
        length = token & LAST_LENGTH
        if length == LAST_LENGTH:
            length, at = _long_length(data, at)
        length += MIN_MATCH
        start = len(out) - distance
        if not distance or start < 0 or len(out) + length > BLOCK_MAX:
            raise ValueError(f"match of {length} bytes at distance {distance}")
        if distance >= length:
            out += out[start : start + length]
        else:  # the match overlaps what it produces: the last (distance) bytes repeat
            out += (out[start:] * (length // distance + 1))[:length]
    return out


def _long_length(data: bytes, at: int) -> tuple[int, int]:
    length = LAST_LENGTH
    while (byte := data[at]) == 255:
        length += 255
        at += 1
    return length + byte, at + 1
