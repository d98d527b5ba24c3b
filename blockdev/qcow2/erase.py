"""Makes guest ranges zero or gives their clusters back: whole clusters (or subclusters) by their entries alone.

What a range was mapped to is let go of after the commit that wrote the new entries. Whoever calls holds the range.
With an external raw data file, zeros are written there as well: it must read alike without this image.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from aioemu.blockdev.qcow2.entries import (
    ALL_ALLOCATED,
    ALL_ZERO,
    COMPRESSED_BIT,
    COPIED,
    OFFSET_MASK,
    ZERO_BIT,
    run_length,
)
from aioemu.blockdev.qcow2.header import AUTOCLEAR_RAW_DATA
from aioemu.blockdev.qcow2.write import release_entry

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.image import Image
    from aioemu.blockdev.qcow2.tables import Table


STEPS_A_TURN = 512  # runs of entries that are changed before others have their turn
Change = Callable[[tuple[int, int]], tuple[int, int]]  # the old entry and its bitmap to the new ones


class Eraser:
    """Changes that take clusters away. `keep_places`: discarded clusters stay allocated, reading as zeros.

    `changed` is told of each range before anything else can run: nobody may write to a cluster that will be given away.
    """

    def __init__(self, image: Image, changed: Callable[[int, int], None], keep_places: bool = False) -> None:
        self._image = image
        self._changed = changed
        self.keep_places = keep_places

    @property
    def _raw_data(self) -> bool:
        header = self._image.header
        return self._image.layout.external and bool(header.autoclear & AUTOCLEAR_RAW_DATA)

    async def zero(self, start: int, end: int, unmap: bool, backed: bool) -> None:
        """Whole clusters [start, end) read as zeros. Where it is (backed), its version must know zero clusters."""
        if self._raw_data:
            await self._image.data.write_zeroes(start, end - start, unmap=unmap)
            unmap = False
        await self._each_table(start, end, backed, lambda entry: self._zeroed(entry, unmap, backed), backed)

    async def discard(self, start: int, end: int, backed: bool) -> None:
        """Whole clusters [start, end) are given back; they read as zeros."""
        if self._raw_data:
            await self._image.data.write_zeroes(start, end - start, unmap=True)
            return
        await self._each_table(
            start, end, backed, lambda entry: self._zeroed(entry, not self.keep_places, backed), False
        )
        if self._image.layout.external:
            await self._image.data.discard(start, end - start)

    async def drop(self, start: int, end: int) -> None:
        """Whole clusters [start, end) become unallocated: beyond the end of a disk that shrinks."""
        await self._each_table(start, end, False, lambda entry: (0, 0), False)

    async def _each_table(self, start: int, end: int, backed: bool, change: Change, make: bool) -> None:
        """Run (change) over the entries of every cluster; tables that do not exist are made only if (make)."""
        image, layout = self._image, self._image.layout
        while start < end:
            number = start >> layout.span_bits
            stop = min(end, number + 1 << layout.span_bits)
            if make or image.l1.entries[number] & OFFSET_MASK:
                table = await image.l2_for_change(number)
                first = layout.index(start)
                each = self._change_pairs if layout.extended else self._change_runs
                stop = start + (each(table, first, layout.index(stop - 1) + 1, change) - first << layout.bits)
                self._changed(start, stop - start)
                await asyncio.sleep(0)  # others have their turn
            start = stop

    def _change_runs(self, table: Table, at: int, end: int, change: Change) -> int:
        """Change standard entries, many alike at once, and let go of what they named; where the turn ended."""
        image, layout = self._image, self._image.layout
        entries = table.entries
        for _ in range(STEPS_A_TURN):
            if at == end:
                break
            old = entries[at]
            new, _ = change((old, 0))
            placed = bool(old & OFFSET_MASK)
            count = 1 if old & COMPRESSED_BIT else run_length(entries, at, end, layout.cluster if placed else 0)
            if new != old:
                if placed and not new & OFFSET_MASK:
                    release_entry(image, old, by_guest=True, count=count)
                step = layout.cluster if new & OFFSET_MASK else 0
                table.put_run(at, range(new, new + count * step, step) if step else array("Q", (new,)) * count)
            at += count
        return at

    def _change_pairs(self, table: Table, at: int, end: int, change: Change) -> int:
        """The same for extended entries, one by one."""
        entries = table.entries
        end = min(end, at + STEPS_A_TURN)
        for each in range(at, end):
            old = (entries[2 * each], entries[2 * each + 1])
            new = change(old)
            if new == old:
                continue
            if old[0] and old[0] & ~(COPIED | ZERO_BIT) != new[0] & ~(COPIED | ZERO_BIT):
                release_entry(self._image, old[0], by_guest=True)
            table.put_run(2 * each, new)
        return end

    def _zeroed(self, old: tuple[int, int], unmap: bool, backed: bool) -> tuple[int, int]:
        """The entry of a cluster that shall read as zeros."""
        layout = self._image.layout
        entry, bitmap = old
        if not backed and not entry & COMPRESSED_BIT and not entry & OFFSET_MASK and not bitmap & ALL_ALLOCATED:
            return old  # unallocated or zero already
        if not layout.zeroes:
            return 0, 0
        keeps = not unmap and not entry & COMPRESSED_BIT and (entry & OFFSET_MASK or entry & COPIED)
        place = entry & (OFFSET_MASK | COPIED) if keeps else 0
        return (place, ALL_ZERO) if layout.extended else (place | ZERO_BIT, 0)
