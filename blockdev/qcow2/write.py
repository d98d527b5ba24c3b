"""Gives guest ranges host clusters: of zeros in large batches, by copying what is there, or with whole clusters' data.

What a range is mapped to always holds either its old or its new bytes before the mapping can reach the disk, so a crash
shows one or the other. Whoever calls holds the range (`Image.ranges`). Standard and extended entries alike.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aioemu.blockdev.qcow2.entries import (
    ALL_ALLOCATED,
    COMPRESSED_BIT,
    COPIED,
    OFFSET_MASK,
    SUBCLUSTERS,
    Kind,
)

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.image import Image
    from aioemu.blockdev.qcow2.tables import Table

BATCH_MIN = 1 << 20  # a sequential writer is given this much at first, and twice as much each time
BATCH_MAX = 64 << 20


class Writer:
    """Changes that give a range of the disk clusters of its own.

    `read` is the node's own read, `beneath` answers how much from an offset on is zeros below this image (0: none is).
    """

    def __init__(
        self,
        image: Image,
        read: Callable[[int, int], Awaitable[bytes]],
        beneath: Callable[[int, int], Awaitable[int]],
    ) -> None:
        self._image = image
        self._read = read
        self._beneath = beneath
        self._next = -1  # where a sequential writer will want its next cluster
        self._batch = BATCH_MIN

    # ---- zeros -------------------------------------------------------------------------------------------------------

    def ahead(self, start: int, length: int) -> int:
        """How many bytes to give a writer that asks for (length) at a cluster's (start)."""
        if start != self._next:
            self._batch = BATCH_MIN
            return length
        wanted = max(length, self._batch)
        self._batch = min(self._batch * 2, BATCH_MAX)
        return wanted

    def place_now(self, start: int) -> int | None:
        """Map the cluster at (start), on an image without a backing file, to zeros of its own; its host offset.

        What a random writer needs for each of its requests, so it takes no turns with anything and waits for nothing:
        None where it would have to, and where a sequential writer should get more.
        """
        image, layout = self._image, self._image.layout
        entry = image.l1.entries[start >> layout.span_bits]
        if start == self._next or layout.extended or layout.external or not entry & COPIED:
            return None
        table = image.l2_cache.peek(entry & OFFSET_MASK)
        index = layout.index(start)
        if table is None or table.entries[index] or not image.ranges.is_free(start, start + layout.cluster):
            return None
        cluster = image.allocator.take_now()
        if cluster is None:
            return None
        table.put(index, cluster << layout.bits | COPIED)
        image.mapping += 1
        self._next = start + layout.cluster
        return cluster << layout.bits

    async def clear_run(self, start: int, length: int) -> int:
        """How much of [start, start + length), in whole clusters, has no host cluster and reads as zeros."""
        image = self._image
        found = 0
        while found < length:
            run = await image.lookup(start + found, length - found)
            if run.kind is Kind.ZERO:
                more = 0 if run.host & OFFSET_MASK else run.length  # a preallocated cluster is used as it is
            elif run.kind is Kind.NONE and not run.host & OFFSET_MASK:
                more = min(await self._beneath(start + found, run.length), run.length)
            else:
                break
            found += more
            if more < run.length or more == 0:
                break
        return found & ~image.layout.mask

    async def allocate_clear(self, start: int, length: int) -> int:
        """Map the clusters from (start) on, which read as zeros and have no place, to zeros of their own.

        The answer is how many bytes, from one cluster to (length).
        """
        image, layout = self._image, self._image.layout
        number = start >> layout.span_bits
        length = min(length, (number + 1 << layout.span_bits) - start)
        if image.layout.external:
            count, host = length >> layout.bits, start
            await image.data.write_zeroes(start, count << layout.bits)
        else:
            taken = await image.allocator.take(length >> layout.bits)
            count, host = taken.clusters, taken.first << layout.bits
        async with self._or_back(host, count):
            if not image.layout.external:
                await image.allocator.clear(taken)
            table = await image.l2_for_change(number)
        self._link(table, layout.index(start), host, count)
        self._next = start + (count << layout.bits)
        return count << layout.bits

    async def map_all(self, start: int, end: int, keep: bool) -> None:
        """Map whole clusters that are not mapped; (keep): as the external data file holds them, not as zeros."""
        while start < end:
            step = self.link_external if keep else self.allocate_clear
            start += await step(start, end - start)

    async def link_external(self, start: int, length: int) -> int:
        """Map the clusters from (start) on to the external data file, whatever it holds; how many bytes."""
        layout = self._image.layout
        number = start >> layout.span_bits
        length = min(length, (number + 1 << layout.span_bits) - start)
        table = await self._image.l2_for_change(number)
        self._link(table, layout.index(start), start, length >> layout.bits)
        return length

    def _link(self, table: Table, index: int, host: int, count: int) -> None:
        """Have (count) entries name the clusters from (host) on, all of each of them data."""
        layout = self._image.layout
        entries = array("Q", range(host | COPIED, (host | COPIED) + (count << layout.bits), layout.cluster))
        if layout.extended:
            doubled = array("Q", bytes(16 * count))
            doubled[::2] = entries
            doubled[1::2] = array("Q", (ALL_ALLOCATED,)) * count
            table.put_run(2 * index, doubled)
        else:
            table.put_run(index, entries)

    # ---- whole clusters ----------------------------------------------------------------------------------------------

    async def write_new(self, start: int, data: memoryview) -> int:
        """Write whole clusters of data to new places and map them there; how many bytes were taken."""
        image, layout = self._image, self._image.layout
        number = start >> layout.span_bits
        length = min(len(data), (number + 1 << layout.span_bits) - start)
        if layout.external:
            count, host = length >> layout.bits, start
        else:
            taken = await image.allocator.take(length >> layout.bits)
            count, host = taken.clusters, taken.first << layout.bits
        async with self._or_back(host, count):
            image.data.debug_event("write_aio")
            await image.data.write(host, data[: count << layout.bits])
            table = await image.l2_for_change(number)
        self._release_entries(table, layout.index(start), count)
        self._link(table, layout.index(start), host, count)
        return count << layout.bits

    def _release_entries(self, table: Table, index: int, count: int) -> None:
        """Let go of what entries name that are about to name something else."""
        step = 2 if self._image.layout.extended else 1
        for at in range(index * step, (index + count) * step, step):
            if table.entries[at]:
                release_entry(self._image, table.entries[at])

    @asynccontextmanager
    async def _or_back(self, host: int, count: int) -> AsyncIterator[None]:
        """Give (count) clusters back when the block fails: nothing refers to them yet."""
        if self._image.layout.external or not count:
            yield
            return
        clusters = host >> self._image.layout.bits, count
        unnamed = self._image.allocator.unnamed
        unnamed.add(clusters)
        try:
            yield
        except BaseException:
            if clusters in unnamed:
                self._image.allocator.release(*clusters)
            raise
        finally:
            unnamed.discard(clusters)

    # ---- parts -------------------------------------------------------------------------------------------------------

    async def own(self, offset: int, length: int, data: memoryview | None = None) -> int:
        """Give the part of one cluster at (offset) a place of its own that holds its old bytes, or (data) over them.

        At least the units (subclusters, or the cluster) around [offset, offset + length) get it, up to one that has a
        place. The answer is how many bytes from (offset) on were done, to the end of the cluster at most.
        """
        image, layout = self._image, self._image.layout
        start = offset & ~layout.mask
        length = min(length, start + layout.cluster - offset)
        number, index = start >> layout.span_bits, layout.index(start)
        step = 2 if layout.extended else 1
        table = await image.l2(number)
        entry = table.entries[index * step] if table is not None else 0
        bitmap = table.entries[index * step + 1] if table is not None and layout.extended else 0
        keeps = bool(entry & COPIED) and not entry & COMPRESSED_BIT  # it has a place of its own, in part unused
        unit = layout.subcluster
        if keeps and layout.extended:  # up to what has a place: that may be written natively at this moment
            first = (offset - start) // unit
            length = min(length, (first + free_units(bitmap, first)) * unit - (offset - start))
        low, high = (offset - start) // unit * unit, -(-(offset + length - start) // unit) * unit
        if not keeps and (not layout.extended or entry):
            low, high = 0, layout.cluster  # moves as a whole
        contents = await self._contents(start + low, high - low, offset, length, data)
        if keeps:
            host = entry & OFFSET_MASK
            await image.check_data(host + low, high - low)
        elif layout.external:
            host = start
        else:
            taken = await image.allocator.take(1)
            host = taken.first << layout.bits
        async with self._or_back(host, 0 if keeps else 1):
            image.data.debug_event("write_aio" if data is not None else "cow_write")
            await image.data.write(host + low, contents)
            if high < layout.cluster:
                await image.reach(host + layout.cluster)
            table = await image.l2_for_change(number)
        if not keeps and entry:
            release_entry(image, entry)
        table.put(index * step, host | COPIED)
        if layout.extended:
            table.put(index * step + 1, self._bitmap(bitmap, low // unit, high // unit))
        return length

    async def _contents(self, start: int, size: int, offset: int, length: int, data: memoryview | None) -> Any:
        """What [start, start + size) holds, with (data) at (offset); not read where the data covers it all."""
        if data is not None and offset == start and length == size:
            return data[:length]
        visible = max(min(size, self._image.header.size - start), 0)  # a disk that grows is longer than it says
        self._image.store.debug_event("cow_read")
        contents = bytearray(await self._read(start, visible))
        contents += bytes(size - visible)
        if data is not None:
            contents[offset - start : offset - start + length] = data[:length]
        return contents

    def _bitmap(self, bitmap: int, low: int, high: int) -> int:
        """A subcluster bitmap with [low, high) allocated."""
        bits = (1 << high) - (1 << low)
        return (bitmap | bits) & ~(bits << SUBCLUSTERS)


def free_units(bitmap: int, first: int) -> int:
    """How many subclusters from (first) on have no place of their own."""
    above = (bitmap & ALL_ALLOCATED) >> first
    return (above & -above).bit_length() - 1 if above else SUBCLUSTERS - first


def release_entry(image: Image, entry: int, by_guest: bool = False, count: int = 1) -> None:
    """One reference less to what an L2 entry names, compressed or not, or (count) of them, cluster after cluster."""
    layout = image.layout
    if layout.external:
        return
    if entry & COMPRESSED_BIT:
        offset, length = layout.compressed(entry)
        first = offset >> layout.bits
        image.allocator.release(first, (offset + length - 1 >> layout.bits) - first + 1, by_guest)
    elif entry & OFFSET_MASK:
        image.allocator.release((entry & OFFSET_MASK) >> layout.bits, count, by_guest)
