"""Finds free host clusters and counts references; what is freed is free only after the commit that let go of it.

A cluster's count goes up in memory before anything refers to it, and down only when the disk refers to it no more: the
worst that a crash leaves is a leak. Counts are not trusted: one that would hand out metadata stops the image.
"""

from __future__ import annotations

import asyncio
import errno
from array import array
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from aioemu.blockdev.qcow2.header import OFFSET_MAX, REFTABLE_BYTES_MAX
from aioemu.blockdev.qcow2.tables import Table
from aioemu.errors import HostError

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.image import Image

BLOCK_MASK = ~511 & (1 << 64) - 1
GROW_AHEAD = 64 << 20  # the file is lengthened in such steps while it is open: one call for many allocations


class Taken(NamedTuple):
    """Clusters in a row that are now in use; `fresh`: they read as zeros as they are."""

    first: int
    clusters: int
    fresh: bool


class Freed:
    """Clusters that the disk may still refer to."""

    __slots__ = ("count", "discard", "first")

    def __init__(self, first: int, count: int, discard: bool) -> None:
        self.first, self.count, self.discard = first, count, discard


class Allocator:
    """Host clusters of one image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.discard_freed = {True: False, False: False}  # by whether the guest asked: tell the host of freed clusters
        self.freed: list[Freed] = []
        self._hint = 0  # no cluster below is free
        self._fresh = 0  # from here on clusters have never been written: they read as zeros
        self.used_end = 0  # bytes of the file that are in use, as far as known
        self.unnamed: set[tuple[int, int]] = set()  # (first, count) that were taken and nothing refers to yet
        self._growing = asyncio.Lock()

    def start(self, file_size: int) -> None:
        """Begin with a file of this size."""
        bits = self._image.layout.bits
        self._fresh = file_size + self._image.layout.mask >> bits
        self.used_end = self._fresh << bits  # others write only the first part of a cluster, and this has the rest

    # ---- taking ------------------------------------------------------------------------------------------------------

    async def take(self, most: int) -> Taken:
        """Up to (most) free clusters in a row, counted once from now on."""
        image, width = self._image, self._image.width
        image.store.debug_event("cluster_alloc")
        while True:
            await image.block_cache.make_room()
            hint = self._hint
            number = hint // width.per_block
            if number >= len(image.refcount_table.entries):
                await self._grow_table(number + 1)
                continue
            base = number * width.per_block
            block = await self._block(number)
            if block is None:
                if self._hint == hint:
                    await self._new_block(number, hint)
                continue
            found = (
                width.first_free(block, max(self._hint - base, 0)) if self._hint // width.per_block == number else None
            )
            if found is None:
                if self._hint == hint:
                    self._hint = base + width.per_block
                continue
            count = width.free_run(block, found, most)
            first = base + found
            await self._refuse_metadata(first, count)
            if first < self._fresh:
                count = min(count, self._fresh - first)
            taken = Taken(first, count, first >= self._fresh)
            width.fill(block, found, count, 1)
            self._hint = first + count
            self._note_used(first + count)
            return taken

    def take_now(self) -> int | None:
        """One cluster that reads as zeros and has its place in the file; None where that needs more than a look."""
        image, width = self._image, self._image.width
        cluster = self._hint
        number, at = divmod(cluster, width.per_block)
        entries = image.refcount_table.entries
        if cluster < self._fresh or cluster + 1 << image.layout.bits > image.store.size or number >= len(entries):
            return None
        block = image.block_cache.peek(entries[number] & BLOCK_MASK)
        if block is None or width.get(block, at) or image.is_metadata(cluster, 1):
            return None
        image.store.debug_event("cluster_alloc")
        width.put(block, at, 1)
        self._hint = cluster + 1
        self._note_used(cluster + 1)
        return cluster

    async def _refuse_metadata(self, first: int, count: int) -> None:
        """Counts that call metadata free are wrong, and so is all that would come of them. Awaits only to raise."""
        image = self._image
        offset, size = first << image.layout.bits, count << image.layout.bits
        if not first or image.is_metadata(first, count):
            await image.corrupt(f"Preventing invalid allocation of metadata at {offset:#x}", (offset, size))
        if offset + size > min(OFFSET_MAX, 1 << 56):
            raise HostError(f"{image.name}: no cluster is free", errno.ENOSPC)

    async def take_metadata(self) -> int:
        """One cluster for a table."""
        taken = await self.take(1)
        self._image.note_metadata(taken.first)
        return taken.first

    async def take_row(self, count: int) -> int:
        """(count) clusters in a row for a table, behind everything else; the first of them."""
        image, width = self._image, self._image.width
        blocks = 1
        while count + blocks > blocks * width.per_block:
            blocks += 1
        while True:
            entries = image.refcount_table.entries
            number = max((at for at, entry in enumerate(entries) if entry), default=-1) + 1
            if number + blocks <= len(entries):
                break
            await self._grow_table(number + blocks)
        first = number * width.per_block
        await self._refuse_metadata(first, count + blocks)
        for at in range(blocks):
            block = self._empty_block(first + count + at)
            inside = range(at * width.per_block, min((at + 1) * width.per_block, count + blocks))
            width.fill(block, 0, len(inside), 1)
            image.block_cache.add(block)
            image.refcount_table.put(number + at, block.offset)
        image.note_metadata(first, count + blocks)
        self._note_used(first + count + blocks)
        return first

    def give_back_metadata(self, cluster: int) -> None:
        """A cluster from `take_metadata` that nothing refers to."""
        self._image.forget_metadata(cluster)
        self.release(cluster, 1)

    def _note_used(self, end: int) -> None:
        """Clusters up to (end) are no longer fresh."""
        self._fresh = max(self._fresh, end)
        self.used_end = max(self.used_end, end << self._image.layout.bits)

    def note_written(self, end: int) -> None:
        """The file is in use up to (end): `trim` leaves that."""
        self.used_end = max(self.used_end, end)

    async def clear(self, taken: Taken) -> None:
        """Make taken clusters read as zeros, which costs nothing where the file never reached."""
        bits = self._image.layout.bits
        if not taken.fresh:
            self._image.store.debug_event("cluster_alloc_space")
            await self._image.store.write_zeroes(taken.first << bits, taken.clusters << bits, unmap=True)
        await self.reach(taken.first + taken.clusters << bits)

    async def reach(self, end: int) -> None:
        """Have the file at least (end) bytes long."""
        store = self._image.store
        self.note_written(end)
        while store.size < end:
            async with self._growing:
                if store.size >= end:
                    return
                ahead = min(end + GROW_AHEAD, end * 2)
                try:
                    await store.grow(max(ahead, end))
                except HostError:
                    await store.grow(end)

    def give_back_unnamed(self) -> None:
        """What requests took that were cut off before anything referred to it."""
        for first, count in self.unnamed:
            self.release(first, count)
        self.unnamed.clear()

    async def trim(self) -> None:
        """Take back what the file was lengthened by for clusters that were never taken."""
        if self.used_end < self._image.store.size:
            await self._image.store.resize(self.used_end)

    # ---- giving back -------------------------------------------------------------------------------------------------

    def release(self, first: int, count: int, by_guest: bool = False) -> None:
        """One reference less for each cluster, once a commit has written what refers to it no more."""
        discard = self.discard_freed[by_guest]
        if self.freed:
            last = self.freed[-1]
            if last.first + last.count == first and last.discard == discard:
                last.count += count
                return
        self.freed.append(Freed(first, count, discard))

    async def drop(self, freed: list[Freed]) -> None:
        """Count down what nothing on the disk refers to any more; part of a commit."""
        while freed:
            self._image.store.debug_event("cluster_free")
            each = freed[0]
            try:
                await self._drop_run(each)
            except BaseException:
                self.freed[:0] = freed  # tried again by the next commit
                raise
            del freed[0]

    async def _drop_run(self, each: Freed) -> None:
        """Count down clusters in a row, one block of counts at a time; `each` shrinks as it goes."""
        image, width = self._image, self._image.width
        while each.count:
            start = each.first % width.per_block
            count = min(each.count, width.per_block - start)
            number = each.first // width.per_block
            block = await self._block(number, committing=True)
            values = width.values(block, start, count) if block is not None else [0]
            if not all(values):
                each.count = 0
                await image.corrupt(
                    f"reference count of a cluster from {each.first << image.layout.bits:#x} on is zero"
                )
            if each.discard:
                await self._discard_last(each.first, values)
                block = await self._block(number, committing=True)
            if block is None:
                continue
            if values.count(1) == count:
                width.fill(block, start, count, 0)
            else:
                for at, value in enumerate(values, start):
                    width.put(block, at, value - 1)
            if 1 in values:
                self._hint = min(self._hint, each.first + values.index(1))
            each.first += count
            each.count -= count

    async def _discard_last(self, first: int, counts: Sequence[int]) -> None:
        """Tell the host of clusters that lose their last reference; before anybody can take them again."""
        bits = self._image.layout.bits
        at = 0
        for last, group in groupby(count == 1 for count in counts):
            length = len(list(group))
            if last:
                with suppress(HostError):  # advice
                    await self._image.store.discard(first + at << bits, length << bits)
            at += length

    async def count(self, cluster: int) -> int:
        """How often a cluster is referred to."""
        width = self._image.width
        number = cluster // width.per_block
        if number >= len(self._image.refcount_table.entries):
            return 0
        block = await self._block(number)
        return 0 if block is None else width.get(block, cluster % width.per_block)

    # ---- blocks and their table --------------------------------------------------------------------------------------

    async def _block(self, number: int, committing: bool = False) -> Table | None:
        """A refcount block; None where there is none: all its counts are zero."""
        image = self._image
        entries = image.refcount_table.entries
        offset = entries[number] & BLOCK_MASK if number < len(entries) else 0
        if not offset:
            return None
        if offset & image.layout.mask:
            await image.corrupt(f"Refblock offset {offset:#x} unaligned (reftable index: {number:#x})")
        return image.block_cache.peek(offset) or await image.block_cache.get(offset, committing)

    async def _new_block(self, number: int, cluster: int) -> None:
        """Make a refcount block that is itself the first cluster that it counts. Awaits only to raise."""
        image, width = self._image, self._image.width
        await self._refuse_metadata(cluster, 1)
        image.store.debug_event("refblock_alloc")
        block = self._empty_block(cluster)
        width.put(block, cluster % width.per_block, 1)
        image.block_cache.add(block)
        image.refcount_table.put(number, block.offset)
        image.note_metadata(cluster)
        self._hint = cluster + 1
        self._note_used(cluster + 1)

    def _empty_block(self, cluster: int) -> Table:
        """A block of zeros, all of it to be written."""
        image = self._image
        entries = array(image.width.code, bytes(image.layout.cluster))
        block = Table(cluster << image.layout.bits, entries)
        block.touch(0, len(entries))
        return block

    async def _grow_table(self, needed: int) -> None:
        """Move the refcount table to a larger place, behind all that the present one counts; for (needed) entries."""
        image, width = self._image, self._image.width
        async with image.committer.lock:
            old = image.refcount_table
            start = len(old.entries) * width.per_block
            if len(old.entries) >= needed:  # grown by somebody else
                return
            per_cluster = image.layout.cluster // 8
            old_clusters = len(old.entries) // per_cluster
            image.store.debug_event("reftable_grow")
            table_clusters, blocks = old_clusters + (old_clusters + 1) // 2 + 1, 1
            while (table_clusters + blocks) > blocks * width.per_block:
                blocks += 1
            while len(old.entries) + blocks > table_clusters * per_cluster:
                table_clusters += 1
                blocks = -(-(table_clusters + blocks) // width.per_block)
            if table_clusters << image.layout.bits > REFTABLE_BYTES_MAX:
                raise HostError(f"{image.name}: the refcount table is at its largest", errno.EFBIG)
            await self._refuse_metadata(start, blocks + table_clusters)
            entries = old.entries[:]
            entries.extend(start + at << image.layout.bits for at in range(blocks))
            entries.frombytes(bytes((table_clusters * per_cluster - len(entries)) * 8))
            table = Table(start + blocks << image.layout.bits, entries)
            made = [self._empty_block(start + at) for at in range(blocks)]
            for at in range(blocks + table_clusters):
                width.put(made[at // width.per_block], at % width.per_block, 1)
            await image.committer.move_refcount_table(table, made)
            for block in made:
                image.block_cache.add(block)
            image.note_metadata(start, blocks + table_clusters)
            self._note_used(start + blocks + table_clusters)
            image.forget_metadata(old.offset >> image.layout.bits, old_clusters)
            self.release(old.offset >> image.layout.bits, old_clusters)
