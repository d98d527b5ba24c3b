"""Counts every reference in an image anew and gives it a fresh refcount table: what the dirty bit asks for.

The new table and its blocks go behind everything that is used and take effect with one write of the header, so a crash
leaves the image as it was, still dirty. The old ones become free. Time and memory are bounded by what the file holds:
each table is read once, however often it is referred to, and one that is nowhere in the file ends the repair.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from typing import TYPE_CHECKING

from aioemu.blockdev.qcow2 import header as fields
from aioemu.blockdev.qcow2.entries import COMPRESSED_BIT, COPIED, OFFSET_MASK
from aioemu.blockdev.qcow2.snapshots import read_bitmaps
from aioemu.blockdev.qcow2.tables import Table, decode, encode
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.image import Image

CHUNK = 4096  # clusters counted together
READ_MAX = 2 << 30  # bytes of tables: those of a 16 TiB disk with 64 KiB clusters; larger ones take too long here


class References:
    """How often each cluster is referred to."""

    def __init__(self, image: Image) -> None:
        self._chunks: dict[int, array[int]] = {}
        self.end = 0
        self._limit = (image.store.size + image.layout.mask >> image.layout.bits) + CHUNK
        self._read = 0

    def add(self, first: int, count: int = 1, times: int = 1) -> None:
        """(times) more references to each of (count) clusters."""
        if first + count > self._limit:
            raise ConfigError("qcow2: Repairing dirty image failed: a reference leads beyond the end of the file")
        for cluster in range(first, first + count):
            chunk = self._chunks.get(cluster // CHUNK)
            if chunk is None:
                chunk = self._chunks[cluster // CHUNK] = array("Q", bytes(8 * CHUNK))
            chunk[cluster % CHUNK] += times
        self.end = max(self.end, first + count)

    def get(self, cluster: int) -> int:
        chunk = self._chunks.get(cluster // CHUNK)
        return chunk[cluster % CHUNK] if chunk is not None else 0

    def used(self) -> list[int]:
        """The numbers of clusters with references."""
        found: list[int] = []
        for number in sorted(self._chunks):
            found += [number * CHUNK + at for at, count in enumerate(self._chunks[number]) if count]
        return found

    def will_read(self, size: int) -> None:
        """Tables of (size) bytes are about to be read."""
        self._read += size
        if self._read > READ_MAX:
            raise ConfigError("qcow2: Repairing dirty image failed: its tables are too large")


async def repair(image: Image) -> None:
    """Make the counts of an image right, and clear its dirty bit. ConfigError when that cannot be."""
    references = await count_references(image)
    await _fix_copied(image, references)
    await _write_counts(image, references)
    await image.put_field(incompatible=image.header.incompatible & ~fields.DIRTY)
    await image.store.flush()


async def count_references(image: Image) -> References:
    """Every reference in the image but those of the refcount table and to it."""
    layout, header = image.layout, image.header
    found = References(image)

    def table(offset: int, size: int, times: int = 1) -> None:
        if size:
            found.add(offset >> layout.bits, (size + layout.mask) >> layout.bits, times)

    found.add(0)
    table(header.l1_offset, header.l1_size * 8)
    l2: Counter[int] = Counter(entry & OFFSET_MASK for entry in image.l1.entries if entry & OFFSET_MASK)
    if image.snapshots:
        table(header.snapshots_offset, image.snapshots[-1].end - header.snapshots_offset)
    l1s = Counter((snapshot.l1_offset, snapshot.l1_size) for snapshot in image.snapshots)
    for (offset, entries), times in l1s.items():
        table(offset, entries * 8, times)
        found.will_read(entries * 8)
        for entry in decode(await image.store.read(offset, entries * 8), "Q"):
            if entry & OFFSET_MASK:
                l2[entry & OFFSET_MASK] += times
    for offset, times in l2.items():
        if offset & layout.mask:
            raise ConfigError("qcow2: Repairing dirty image failed: an L2 table is not at a cluster's start")
        found.add(offset >> layout.bits, times=times)
        found.will_read(layout.cluster)
        _count_l2(image, decode(await image.store.read(offset, layout.cluster), "Q"), times, found)
        await asyncio.sleep(0)
    await _count_bitmaps(image, found)
    return found


def _count_l2(image: Image, entries: array[int], times: int, found: References) -> None:
    """The clusters that one L2 table names."""
    layout = image.layout
    if layout.external:
        return
    for entry in entries[::2] if layout.extended else entries:
        if entry & COMPRESSED_BIT:
            offset, length = layout.compressed(entry)
            first = offset >> layout.bits
            found.add(first, (offset + length - 1 >> layout.bits) - first + 1, times)
        elif entry & OFFSET_MASK:
            found.add((entry & OFFSET_MASK) >> layout.bits, times=times)


async def _count_bitmaps(image: Image, found: References) -> None:
    """The clusters of persistent bitmaps."""
    extension = image.header.bitmaps if image.header.version >= 3 else None
    if extension is None:
        return
    bits, mask = image.layout.bits, image.layout.mask
    found.add(extension.directory_offset >> bits, extension.directory_size + mask >> bits)
    for bitmap in await read_bitmaps(image.store, extension):
        if bitmap.table_size:
            found.add(bitmap.table_offset >> bits, bitmap.table_size * 8 + mask >> bits)
        found.will_read(bitmap.table_size * 8)
        for entry in decode(await image.store.read(bitmap.table_offset, bitmap.table_size * 8), "Q"):
            if entry & OFFSET_MASK:
                found.add((entry & OFFSET_MASK) >> bits)


async def _fix_copied(image: Image, references: References) -> None:
    """The bit that says that a cluster is this disk's alone is set exactly where that is so."""
    layout = image.layout
    step = 2 if layout.extended else 1
    for number, entry in enumerate(image.l1.entries):
        offset = entry & OFFSET_MASK
        if not offset:
            continue
        alone = COPIED if references.get(offset >> layout.bits) == 1 else 0
        if entry & COPIED != alone:
            image.l1.put(number, offset | alone)
        table = await image.l2(number)
        if table is None or layout.external:
            continue
        for at in range(0, len(table.entries), step):
            each = table.entries[at]
            if each & COMPRESSED_BIT or not each & OFFSET_MASK:
                continue
            alone = COPIED if references.get((each & OFFSET_MASK) >> layout.bits) == 1 else 0
            if each & COPIED != alone:
                table.put(at, each & ~COPIED | alone)
    for write in image.l2_cache.take_dirty():
        await image.store.write(write.offset, write.data)
        write.done()
    await image.store.flush()
    l1 = image.l1.take()
    if l1 is not None:
        await image.store.write(l1.offset, l1.data)
        l1.done()


async def _write_counts(image: Image, references: References) -> None:
    """Write a refcount table with its blocks behind everything, and have the header name it."""
    layout, width = image.layout, image.width
    start = max(references.end, image.store.size + layout.mask >> layout.bits)
    used = references.used()
    numbers = {cluster // width.per_block for cluster in used}
    table_clusters = 1
    while True:  # the new clusters need counts too, and entries for their blocks
        own = start + len(numbers) + table_clusters
        covering = set(range(start // width.per_block, (own - 1) // width.per_block + 1))
        entries = max(max(numbers | covering) + 1, 1)
        wanted = max(table_clusters, -(-entries * 8 >> layout.bits))
        if covering <= numbers and wanted == table_clusters:
            break
        numbers |= covering
        table_clusters = wanted
    if table_clusters << layout.bits > fields.REFTABLE_BYTES_MAX:
        raise ConfigError("qcow2: Repairing dirty image failed: the refcount table would be too large")
    ordered = sorted(numbers)
    place = {number: start + at for at, number in enumerate(ordered)}
    table = Table((start + len(ordered)) << layout.bits, array("Q", bytes(table_clusters << layout.bits)))
    blocks = {n: Table(c << layout.bits, array(width.code, bytes(layout.cluster))) for n, c in place.items()}
    for cluster in used:
        count = references.get(cluster)
        if count > width.highest:
            raise ConfigError("qcow2: Repairing dirty image failed: a cluster has too many references")
        width.put(blocks[cluster // width.per_block], cluster % width.per_block, count)
    for cluster in range(start, start + len(ordered) + table_clusters):
        width.put(blocks[cluster // width.per_block], cluster % width.per_block, 1)
    for number, block in blocks.items():
        table.entries[number] = block.offset
        await image.store.write(block.offset, encode(block.entries))
    await image.store.write(table.offset, encode(table.entries))
    await image.store.flush()
    await image.put_field(refcount_table_offset=table.offset, refcount_table_clusters=table_clusters)
    await image.store.flush()
    image.refcount_table = table
    image.allocator.start(image.store.size)
