"""An image's internal snapshots and persistent bitmaps: where they are, so that nothing of them is lost or overwritten.

Taking, reverting and deleting snapshots is not here, nor is tracking changes in bitmaps: a bitmap that should have
followed the disk is marked as in use before the first change, which is how the format says that it did not.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from aioemu.blockdev.qcow2.header import L1_BYTES_MAX, OFFSET_MAX, BitmapsExtension, Header
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.blockdev.node import Node

SNAPSHOT = struct.Struct(">QIHHIIQII")
EXTRA_MAX = 1024
TABLE_MAX = 64 << 20
CHUNK = 64 << 10
BITMAP = struct.Struct(">QIIBBHI")
IN_USE, AUTO = 1, 2


class Snapshot(NamedTuple):
    """One internal snapshot: its L1 table, and where its entry in the table of snapshots ends."""

    id: str
    name: str
    l1_offset: int
    l1_size: int
    date_sec: int
    date_nsec: int
    vm_clock_nsec: int
    vm_state_size: int
    disk_size: int
    end: int


async def read_snapshots(store: Node[Any], header: Header) -> list[Snapshot]:
    """The table of snapshots, every field checked against what the format allows."""
    found: list[Snapshot] = []
    window, base = b"", header.snapshots_offset
    at = base
    for _ in range(header.snapshots):
        needed = SNAPSHOT.size + EXTRA_MAX + 2 * 65535 + 8
        if at + needed > base + len(window) and base + len(window) < store.size:
            window, base = await store.read(at, needed + CHUNK), at
        one = _snapshot(window, at - base, at, header)
        at = one.end
        if at - header.snapshots_offset > TABLE_MAX:
            raise ConfigError("Snapshot table is too large")
        found.append(one)
    return found


def _snapshot(window: bytes, start: int, at: int, header: Header) -> Snapshot:
    """One entry of the table of snapshots."""
    if start + SNAPSHOT.size > len(window):
        raise ConfigError("Snapshot table ends beyond the end of the file")
    fields = SNAPSHOT.unpack_from(window, start)
    l1_offset, l1_size, id_size, name_size, sec, nsec, clock, vm_size, extra_size = fields
    if extra_size > EXTRA_MAX:
        raise ConfigError("Too much extra metadata in snapshot table entry")
    if l1_size > L1_BYTES_MAX // 8:
        raise ConfigError("Snapshot L1 table too large")
    if l1_offset & (header.cluster_size - 1) or l1_offset + l1_size * 8 > OFFSET_MAX:
        raise ConfigError("Snapshot L1 table offset invalid")
    position = start + SNAPSHOT.size
    extra = window[position : position + extra_size]
    position += extra_size
    texts = window[position : position + id_size], window[position + id_size : position + id_size + name_size]
    position += id_size + name_size
    size = header.size
    if len(extra) >= 16:
        vm_size, size = struct.unpack_from(">QQ", extra)
    shown = [text.decode("utf-8", "replace") for text in texts]
    end = at + ((position - start + 7) & ~7)
    return Snapshot(shown[0], shown[1], l1_offset, l1_size, sec, nsec, clock, vm_size, size, end)


class Bitmap(NamedTuple):
    """One persistent bitmap: its table, and where its flags are in the image."""

    name: str
    table_offset: int
    table_size: int
    flags: int
    flags_at: int
    granularity_bits: int


async def read_bitmaps(store: Node[Any], extension: BitmapsExtension) -> list[Bitmap]:
    """The directory of bitmaps, as far as it is well-formed."""
    data = await store.read(extension.directory_offset, extension.directory_size)
    found: list[Bitmap] = []
    at = 0
    for _ in range(extension.count):
        if at + BITMAP.size > len(data):
            raise ConfigError("Bitmap directory is too short")
        offset, entries, flags, _, granularity, name_size, extra = BITMAP.unpack_from(data, at)
        start = at + BITMAP.size + extra
        end = start + name_size
        if end > len(data):
            raise ConfigError("Bitmap directory is too short")
        name = data[start:end].decode("utf-8", "replace")
        found.append(Bitmap(name, offset, entries, flags, extension.directory_offset + at + 12, granularity))
        at = (end + 7) & ~7
    return found


async def mark_bitmaps_in_use(store: Node[Any], extension: BitmapsExtension) -> None:
    """Say of each bitmap that should follow the disk that it does not; the others stay valid as they are."""
    for bitmap in await read_bitmaps(store, extension):
        if bitmap.flags & AUTO and not bitmap.flags & IN_USE:
            await store.write(bitmap.flags_at, struct.pack(">I", bitmap.flags | IN_USE))
