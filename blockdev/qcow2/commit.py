"""Writes changed tables in an order that a crash after any write, with any of the later ones lost, leaves consistent.

The order of one commit, `|` being a flush of the host's caches, which only what precedes it must survive:
reference counts (and guest data, which is written already) | refcount table | L2 tables | L1 table | ... and then, in
memory only, counts of what nothing refers to any more go down. Steps with nothing to write cost nothing, and what is
asked for while a commit runs shares the next one. With lazy refcounts the counts stay in memory until the image closes:
the dirty bit, set before the first change, says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aioemu.blockdev.qcow2.tables import Table, Writeback, encode

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.image import Image

EVENTS = ("refblock_update_part", "refblock_alloc_hookup", "l2_update", "l1_update")  # of blkdebug, for each step


class Committer:
    """The one writer of an image's tables."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.lock = asyncio.Lock()
        self._asked = 0
        self._done = 0

    async def commit(self, counts: bool = False) -> None:
        """All that was changed and written before this call is on the disk when it returns.

        (counts): reference counts too, even when they are lazy.
        """
        self._asked += 1
        ticket = self._asked
        async with self.lock:
            if self._done >= ticket and not counts:
                return
            covered = self._asked
            await self._commit(counts)
            self._done = max(self._done, covered)

    async def commit_locked(self) -> None:
        """A whole commit for one who holds the lock already."""
        await self._commit(counts=True)

    async def _commit(self, counts: bool) -> None:
        image = self._image
        lazy = image.lazy and not counts
        freed, image.allocator.freed = image.allocator.freed, []
        blocks = [] if lazy else image.block_cache.take_dirty()
        table = None if lazy else image.refcount_table.take()
        steps = [blocks, [table] if table else [], image.l2_cache.take_dirty()]
        l1 = image.l1.take()
        steps.append([l1] if l1 else [])
        try:
            await self._write_steps(steps)
        except BaseException:
            # whatever happened: nothing of it counts as written, and all of it is written again by the next commit
            for write in (write for step in steps for write in step):
                write.undo()
            image.allocator.freed[:0] = freed
            raise
        for write in (write for step in steps for write in step):
            write.done()
        await image.allocator.drop(freed)

    async def _write_steps(self, steps: Sequence[Sequence[Writeback]]) -> None:
        """Each step after a flush of what came before it; a last flush makes the whole durable."""
        for at, (step, event) in enumerate(zip(steps, EVENTS, strict=True)):
            if step and at:
                await self._barrier()
            await self._write(step, event)
        await self._barrier()

    async def _write(self, writes: Sequence[Writeback], event: str) -> None:
        for write in writes:
            self._image.store.debug_event(event)
            await self._image.store.write(write.offset, write.data)

    async def _barrier(self) -> None:
        """What was written is on the disk: the image file and, where there is one, the data file."""
        image = self._image
        if image.data is not image.store:
            await image.data.flush()
        await image.store.flush()

    async def move_refcount_table(self, table: Table, blocks: Sequence[Table]) -> None:
        """Put a refcount table in its new place, with blocks that count it. The caller holds the lock.

        Blocks that only the old table's copy in memory knows are written first: the new one refers to them.
        """
        image = self._image
        for written in [*image.block_cache, *blocks]:
            if (write := written.take()) is not None:
                image.store.debug_event("refblock_alloc_write_blocks")
                try:
                    await image.store.write(write.offset, write.data)
                except BaseException:
                    write.undo()
                    raise
                write.done()
        image.store.debug_event("refblock_alloc_write_table")
        await image.store.write(table.offset, encode(table.entries))
        await self._barrier()
        image.store.debug_event("refblock_alloc_switch_table")
        clusters = table.size >> image.layout.bits
        await image.put_field(refcount_table_offset=table.offset, refcount_table_clusters=clusters)
        await image.store.flush()
        # entries that were made while this was written are dirty in the old table: they are copied over
        made = len(image.refcount_table.entries)
        for at in range(made):
            if image.refcount_table.entries[at] != table.entries[at]:
                table.put(at, image.refcount_table.entries[at])
        image.refcount_table.live = False
        image.refcount_table = table
