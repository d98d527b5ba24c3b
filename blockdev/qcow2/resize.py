"""Changes the size of a disk: a longer L1 table where one is needed, clusters beyond the new end given back.

The new size reaches the header last when a disk grows, so that a crash shows the old disk. Not done: images with
persistent bitmaps, and version 2 images with snapshots, whose entries do not say what size their disk had.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from aioemu.blockdev.qcow2.entries import OFFSET_MASK
from aioemu.blockdev.qcow2.header import EXT_BITMAPS, L1_BYTES_MAX, OFFSET_MAX, l1_entries
from aioemu.blockdev.qcow2.tables import Table, encode
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.erase import Eraser
    from aioemu.blockdev.qcow2.image import Image


def check_resize(image: Image, size: int) -> None:
    """ConfigError when the disk cannot have this size."""
    if size % 512:
        raise ConfigError("The new size must be a multiple of 512")
    if image.snapshots and image.header.version < 3:
        raise ConfigError("Can't resize a v2 image which has snapshots")
    if image.header.extension(EXT_BITMAPS) is not None:
        raise ConfigError("Cannot resize an image which has persistent bitmaps")
    if size > OFFSET_MAX or l1_entries(size, image.header) > L1_BYTES_MAX // 8:
        raise ConfigError("Image is too big")


async def shrink(image: Image, size: int, eraser: Eraser) -> None:
    """Unmap everything from (size) on, then say so in the header."""
    layout = image.layout
    start = size + layout.mask & ~layout.mask
    end = image.header.size + layout.mask & ~layout.mask
    if start < end:
        await eraser.drop(start, end)
    image.store.debug_event("l1_shrink_write_table")
    first = -(-size >> layout.span_bits)  # the first L1 entry that maps nothing any more
    for number in range(first, len(image.l1.entries)):
        offset = image.l1.entries[number] & OFFSET_MASK
        if offset and number < l1_entries(image.header.size, image.header):
            image.l1.put(number, 0)
            image.l2_cache.drop(offset)
            image.forget_metadata(offset >> layout.bits)
            image.allocator.release(offset >> layout.bits, 1)
    image.store.debug_event("l1_shrink_free_l2_clusters")
    await image.committer.commit()
    await image.put_field(size=size)
    await image.committer.commit()
    if image.layout.external:
        await image.data.resize(size)


async def make_room(image: Image, size: int) -> None:
    """Have an L1 table for a disk of (size) bytes; the disk keeps its size."""
    needed = l1_entries(size, image.header)
    if needed <= len(image.l1.entries):
        return
    layout = image.layout
    clusters = needed * 8 + layout.mask >> layout.bits
    image.store.debug_event("l1_grow_alloc_table")
    first = await image.allocator.take_row(clusters)
    async with image.committer.lock:
        try:
            table = await _write_longer(image, needed, first << layout.bits)
        except BaseException:  # nothing refers to it yet
            image.forget_metadata(first, clusters)
            image.allocator.release(first, clusters)
            raise
        old = image.l1
        image.store.debug_event("l1_grow_activate_table")
        await image.put_field(l1_size=needed, l1_offset=table.offset)
        await image.store.flush()
        for at, entry in enumerate(old.entries):  # what changed meanwhile
            if entry != table.entries[at]:
                table.put(at, entry)
        old.live = False
        image.l1 = table
    old_clusters = old.size + layout.mask >> layout.bits
    image.forget_metadata(old.offset >> layout.bits, old_clusters)
    image.allocator.release(old.offset >> layout.bits, old_clusters)


async def _write_longer(image: Image, needed: int, offset: int) -> Table:
    """The L1 table with (needed) entries, written to (offset). The caller holds the committer's lock."""
    while True:
        await image.committer.commit_locked()
        if not image.l1.dirty:  # what it names is on the disk
            break
    contents = image.l1.entries[:]
    contents.frombytes(bytes((needed - len(contents)) * 8))
    table = Table(offset, array("Q", contents))
    image.store.debug_event("l1_grow_write_table")
    await image.store.write(
        offset, encode(contents).ljust(-(-needed * 8 // image.layout.cluster) * image.layout.cluster, b"\0")
    )
    await image.store.flush()
    return table


async def finish_growth(image: Image, size: int) -> None:
    """Say in the header that the disk has grown; everything that the new part reads as is in place."""
    if image.layout.external and image.data.size < size:
        await image.data.resize(size)
    await image.committer.commit()
    await image.put_field(size=size)
    await image.committer.commit()
