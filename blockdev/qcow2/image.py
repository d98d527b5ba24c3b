"""An open image: its header and tables in memory, what a guest offset maps to, and when it may be changed at all.

Nothing is written here but single header fields. `Allocator` finds clusters, `Committer` writes tables in an order that
a crash at any point leaves consistent, `Writer` and `Eraser` change the mapping. An inconsistency marks the image as
corrupt and stops every later change of it; reading goes on where it can.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from array import array
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import merge
from itertools import islice, pairwise, starmap
from operator import eq
from typing import Any

from aioemu.blockdev.node import Node
from aioemu.blockdev.qcow2 import header as fields
from aioemu.blockdev.qcow2.allocator import Allocator
from aioemu.blockdev.qcow2.cache import TableCache
from aioemu.blockdev.qcow2.commit import Committer
from aioemu.blockdev.qcow2.entries import COPIED, OFFSET_MASK, Kind, Layout, Run
from aioemu.blockdev.qcow2.header import Header
from aioemu.blockdev.qcow2.ranges import RangeLock
from aioemu.blockdev.qcow2.snapshots import Snapshot, mark_bitmaps_in_use, read_snapshots
from aioemu.blockdev.qcow2.tables import RefcountWidth, Table
from aioemu.errors import HostError

SLICE = 1 << 14  # entries looked at before others have their turn
FORMATS = {"size": ">Q", "l1": ">IQ", "refcount_table": ">QI", "incompatible": ">Q", "autoclear": ">Q"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Memory that tables may take."""

    l2_cache: int = 32 << 20
    refcount_cache: int = 4 << 20


class Image:
    """One image on its `store` (the node of the image file) and its `data` (the same, or the external data file)."""

    def __init__(self, name: str, store: Node[Any], header: Header, limits: Limits = Limits()) -> None:
        self.name = name
        self.store = store
        self.data = store
        self.header = header
        self.layout = Layout(header)
        self.width = RefcountWidth(header.refcount_order, header.cluster_size)
        self.lazy = False
        self.broken: str | None = None
        self.tell_corrupt: Callable[[str, bool, tuple[int, int] | None], None] = lambda message, fatal, where: None
        self.snapshots: list[Snapshot] = []
        self.ranges = RangeLock()
        self.allocator = Allocator(self)
        self.committer = Committer(self)
        room = self.committer.commit
        self.l2_cache = TableCache(self._load_l2, room, limits.l2_cache, header.cluster_size)
        self.block_cache = TableCache(self._load_block, self._write_counts, limits.refcount_cache, header.cluster_size)
        self.l1 = Table(header.l1_offset, array("Q"))
        self.refcount_table = Table(header.refcount_table_offset, array("Q"))
        self.mapping = 0  # how often the mapping has changed
        self._changing = False
        self._starting = asyncio.Lock()
        self._metadata: array[int] | None = None  # cluster numbers of metadata, sorted

    def set_limits(self, limits: Limits) -> None:
        """Tables may take so much memory from now on."""
        self.l2_cache.set_limit(limits.l2_cache)
        self.block_cache.set_limit(limits.refcount_cache)

    # ---- opening -----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is always in memory: L1 table, refcount table, snapshot table."""
        header = self.header
        self.l1 = Table.load(header.l1_offset, await self.store.read(header.l1_offset, header.l1_size * 8), "Q")
        size = header.refcount_table_clusters << header.cluster_bits
        self.store.debug_event("reftable_load")
        self.refcount_table = Table.load(
            header.refcount_table_offset, await self.store.read(header.refcount_table_offset, size), "Q"
        )
        self.snapshots = await read_snapshots(self.store, header)
        self.allocator.start(self.store.size)

    async def _load_l2(self, offset: int) -> Table:
        self.store.debug_event("l2_load")
        return Table.load(offset, await self.store.read(offset, self.layout.cluster), "Q")

    async def _load_block(self, offset: int) -> Table:
        self.store.debug_event("refblock_load")
        return Table.load(offset, await self.store.read(offset, self.layout.cluster), self.width.code)

    async def _write_counts(self) -> None:
        await self.committer.commit(counts=True)

    # ---- looking up --------------------------------------------------------------------------------------------------

    async def lookup(self, offset: int, length: int) -> Run:
        """Where the guest's bytes from (offset) on are; the run is at most (length) long and at least one byte."""
        layout = self.layout
        number = offset >> layout.span_bits
        entries = self.l1.entries
        entry = entries[number]
        if not entry & OFFSET_MASK:
            number += 1
            last = min(offset + length - 1 >> layout.span_bits, len(entries) - 1)
            while number <= last and not entries[number] & OFFSET_MASK:
                number += 1
            return Run(Kind.NONE, min((number << layout.span_bits) - offset, length))
        table = self.l2_cache.peek(entry & OFFSET_MASK)
        if table is None:
            table = await self.l2(number)
            if table is None:
                return await self.lookup(offset, length)  # its table went away meanwhile
        left = (number + 1 << layout.span_bits) - offset
        run = layout.run(table.entries, offset, min(length, left))
        if run.kind is Kind.INVALID:
            await self.corrupt(f"L2 entry {run.host:#x} for guest offset {offset:#x} is invalid")
        return run

    async def l2(self, number: int) -> Table | None:
        """The L2 table of an L1 entry, None where it has none."""
        while True:
            offset = self.l1.entries[number] & OFFSET_MASK
            if not offset:
                return None
            if offset & self.layout.mask:
                await self.corrupt(f"L2 table offset {offset:#x} unaligned (L1 index: {number:#x})")
            table = await self.l2_cache.get(offset)
            if self.l1.entries[number] & OFFSET_MASK == offset and table.live:
                return table

    async def l2_for_change(self, number: int) -> Table:
        """The L2 table of an L1 entry, made or copied first where the disk has none of its own.

        The table may be changed until the caller awaits anything.
        """
        table = await self._own_l2(number)
        self.mapping += 1
        return table

    async def _own_l2(self, number: int) -> Table:
        """The L2 table for `l2_for_change`."""
        while True:
            entry = self.l1.entries[number]
            if entry & OFFSET_MASK and entry & COPIED:
                table = await self.l2(number)
                if table is not None and self.l1.entries[number] == entry:
                    return table
                continue
            if entry & OFFSET_MASK:
                self.store.debug_event("l2_alloc_cow_read")
            old = await self.l2(number)
            contents = old.entries[:] if old is not None else array("Q", bytes(self.layout.cluster))
            await self.l2_cache.make_room()
            cluster = await self.allocator.take_metadata()
            if self.l1.entries[number] != entry or (old is not None and not old.live):
                self.allocator.give_back_metadata(cluster)
                continue
            table = Table(cluster << self.layout.bits, contents)
            table.touch(0, len(contents))
            self.store.debug_event("l2_alloc_write")
            self.l2_cache.add(table)
            self.l1.put(number, table.offset | COPIED)
            if old is not None:
                self.l2_cache.drop(old.offset)
                self.forget_metadata(old.offset >> self.layout.bits)
                self.allocator.release(old.offset >> self.layout.bits, 1)
            return table

    # ---- changing ----------------------------------------------------------------------------------------------------

    async def begin_changes(self) -> None:
        """Must return before the first byte of the image or its data changes. HostError when nothing may."""
        if self.broken is not None:
            raise HostError(f"{self.name}: the image is corrupt ({self.broken})", errno.EIO)
        if self._changing:
            return
        async with self._starting:
            if not self._changing:
                await self._start_changes()

    async def _start_changes(self) -> None:
        await self._build_metadata()
        # the specification: unknown auto-clear bits go before the first change
        unknown = self.header.autoclear & ~fields.AUTOCLEAR_KNOWN
        if self.header.version >= 3 and unknown:
            await self.put_field(autoclear=self.header.autoclear & fields.AUTOCLEAR_KNOWN)
        bitmaps = self.header.bitmaps if self.header.version >= 3 else None
        if bitmaps is not None:
            await mark_bitmaps_in_use(self.store, bitmaps)
        if self.lazy and self.header.version >= 3:
            await self.put_field(incompatible=self.header.incompatible | fields.DIRTY)
        await self.store.flush()
        self._changing = True

    async def flush(self) -> None:
        """What was written is on the disk, and so is what maps it."""
        if self.broken is not None:
            raise HostError(f"{self.name}: the image is corrupt ({self.broken})", errno.EIO)
        await self.committer.commit()

    async def finish(self) -> None:
        """Write everything back and leave the image as nobody had it open."""
        if not self._changing or self.broken is not None:
            return
        self.allocator.give_back_unnamed()
        await self.committer.commit(counts=True)
        await self.committer.commit(counts=True)  # what the first one let go of
        if self.header.version >= 3 and self.header.incompatible & fields.DIRTY:
            await self.put_field(incompatible=self.header.incompatible & ~fields.DIRTY)
            await self.store.flush()
        await self.allocator.trim()
        self._changing = False

    async def reach(self, end: int) -> None:
        """Have the file of the data at least (end) bytes long."""
        if self.data is self.store:
            await self.allocator.reach(end)
        elif self.data.size < end:
            await self.data.grow(end)

    async def put_field(self, **changes: int) -> None:
        """Change header fields, each with one write of less than a sector."""
        changed = replace(self.header, **changes)  # type: ignore[arg-type]  # names of integers
        groups: dict[str, tuple[str, ...]] = {
            "size": ("size",),
            "l1": ("l1_size", "l1_offset"),
            "refcount_table": ("refcount_table_offset", "refcount_table_clusters"),
            "incompatible": ("incompatible",),
            "autoclear": ("autoclear",),
        }
        for group, names in groups.items():
            if not changes.keys().isdisjoint(names):
                data = struct.pack(FORMATS[group], *(getattr(changed, name) for name in names))
                await self.store.write(fields.FIELDS[group], data)
        self.header = changed

    async def corrupt(self, message: str, where: tuple[int, int] | None = None) -> None:
        """Always raises: mark the image as corrupt, on the disk too where it is open for writing.

        (where): the place in the file, offset and size, where it is about one.
        """
        first = self.broken is None
        writable = not self.store.read_only and not self.header.incompatible & fields.CORRUPT
        if first:
            self.broken = message
            self.tell_corrupt(message, writable, where)
            if writable and self.header.version >= 3:
                await self.put_field(incompatible=self.header.incompatible | fields.CORRUPT)
                await self.store.flush()
        raise HostError(f"{self.name}: corrupt image: {message}", errno.EIO)

    # ---- what must never be written as data --------------------------------------------------------------------------

    async def _build_metadata(self) -> None:
        """Number the clusters of all metadata; two tables in one place are a corruption."""
        bits, mask = self.layout.bits, self.layout.mask
        header = self.header
        found = array("Q", [0])
        spans = [
            (header.refcount_table_offset, header.refcount_table_clusters << bits),
            (header.l1_offset, header.l1_size * 8),
            (header.snapshots_offset, self.snapshots[-1].end - header.snapshots_offset if self.snapshots else 0),
            *((snapshot.l1_offset, snapshot.l1_size * 8) for snapshot in self.snapshots),
        ]
        bitmaps = header.bitmaps if header.version >= 3 else None
        if bitmaps is not None:
            spans.append((bitmaps.directory_offset, bitmaps.directory_size))
        for start, size in spans:
            if size and start >= self.store.size:
                await self.corrupt(f"a metadata table at {start:#x} is beyond the end of the file")
            found.extend(range(start >> bits, start + size + mask >> bits))
        for tables, covered in ((self.l1.entries, OFFSET_MASK), (self.refcount_table.entries, ~511)):
            for first in range(0, len(tables), SLICE):
                offsets = [entry & covered for entry in tables[first : first + SLICE] if entry & covered]
                if any(offset & mask or offset >= self.store.size for offset in offsets):
                    await self.corrupt("a metadata table is not at a cluster's start, or beyond the end of the file")
                found.extend(offset >> bits for offset in offsets)
                await asyncio.sleep(0)
        self._metadata = await self._in_order(found)

    async def _in_order(self, clusters: array[int]) -> array[int]:
        """Ascending, each once; others have their turn meanwhile, as a hostile image has millions."""
        runs = []
        for first in range(0, len(clusters), SLICE):
            runs.append(sorted(clusters[first : first + SLICE]))
            await asyncio.sleep(0)
        ordered, merged = array("Q"), merge(*runs)
        while piece := array("Q", islice(merged, SLICE)):
            start = max(len(ordered) - 1, 0)
            ordered.extend(piece)
            if any(starmap(eq, pairwise(ordered[start:]))):
                await self.corrupt("two metadata tables are in the same cluster")
            await asyncio.sleep(0)
        return ordered

    def is_metadata(self, first: int, count: int) -> bool:
        """Whether any of (count) clusters from (first) on holds metadata."""
        ordered = self._metadata
        if ordered is None:
            return False
        at = bisect_left(ordered, first)
        return at < len(ordered) and ordered[at] < first + count

    def note_metadata(self, first: int, count: int = 1) -> None:
        if self._metadata is not None:
            for cluster in range(first, first + count):
                insort(self._metadata, cluster)

    def forget_metadata(self, first: int, count: int = 1) -> None:
        if self._metadata is not None:
            at = bisect_left(self._metadata, first)
            del self._metadata[at : bisect_left(self._metadata, first + count)]

    def may_write(self, run: Run) -> bool:
        """Whether an owned DATA run may be written without asking again."""
        bits, mask = self.layout.bits, self.layout.mask
        if not self._changing or self.broken is not None:
            return False
        first = run.host >> bits
        return self.data is not self.store or not self.is_metadata(
            first, (run.host + run.length + mask >> bits) - first
        )

    async def check_data(self, host: int, length: int) -> None:
        """A range that the guest is about to write: not metadata, and not beyond what the image has."""
        if self.data is not self.store:
            return
        bits = self.layout.bits
        first, end = host >> bits, host + length + self.layout.mask >> bits
        if self.is_metadata(first, end - first):
            await self.corrupt(f"Preventing invalid write on metadata at {host:#x}", (host, length))
        if host + length > self.store.size and not await self.allocator.count(end - 1):
            await self.corrupt(f"data cluster {end - 1 << bits:#x} is not allocated")
        self.allocator.note_written(host + length)
