"""Metadata tables in memory: big-endian on disk, native here, and which part of each must be written back.

A table that left its cache is dead: changing it is refused, so that no change is lost between two copies of one table.
Not here: when and in which order tables are written (`commit`).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

SECTOR: Final = 512  # the unit of metadata writes: what a disk never tears
CODES: Final = {3: "B", 4: "H", 5: "I", 6: "Q"}  # array codes of the refcount widths from one byte on
SWAP: Final = sys.byteorder == "little"


class Table:
    """One table of fixed-width numbers at one place in the image."""

    __slots__ = ("entries", "high", "live", "low", "offset", "writes")

    def __init__(self, offset: int, entries: array[int]) -> None:
        self.offset = offset
        self.entries = entries
        self.low = self.high = 0  # the dirty bytes
        self.live = True
        self.writes = 0  # that are under way: until they are done the disk has an older table

    @classmethod
    def load(cls, offset: int, data: bytes | bytearray | memoryview, code: str) -> Table:
        """A table from its bytes on disk."""
        return cls(offset, decode(data, code))

    @property
    def size(self) -> int:
        return len(self.entries) * self.entries.itemsize

    @property
    def dirty(self) -> bool:
        return self.high > self.low

    def touch(self, index: int, count: int = 1) -> None:
        """(count) entries from (index) on differ from what is on disk."""
        if not self.live:
            raise RuntimeError("a metadata table was changed after it left its cache")
        width = self.entries.itemsize
        low = index * width & -SECTOR
        high = (index + count) * width + SECTOR - 1 & -SECTOR
        if self.dirty:
            low, high = min(low, self.low), max(high, self.high)
        self.low, self.high = low, min(high, self.size)

    def put(self, index: int, value: int) -> None:
        self.touch(index)
        self.entries[index] = value

    def put_run(self, index: int, values: Iterable[int]) -> None:
        """Replace the entries from (index) on."""
        run = array(self.entries.typecode, values)
        self.touch(index, len(run))
        self.entries[index : index + len(run)] = run

    def take(self) -> Writeback | None:
        """The dirty part as it is now, which counts as written from here on; `done` or `undo` says what came of it."""
        if not self.dirty:
            return None
        low, high = self.low, self.high
        self.low = self.high = 0
        self.writes += 1
        width = self.entries.itemsize
        return Writeback(self, low, high, encode(self.entries[low // width : high // width]))


class Writeback:
    """One write of part of a table that a commit owes to the disk."""

    __slots__ = ("data", "high", "low", "table")

    def __init__(self, table: Table, low: int, high: int, data: bytes) -> None:
        self.table = table
        self.low, self.high = low, high
        self.data = data

    @property
    def offset(self) -> int:
        return self.table.offset + self.low

    def done(self) -> None:
        """The disk has it."""
        self.table.writes -= 1

    def undo(self) -> None:
        """The write did not happen: the part is dirty again."""
        table = self.table
        table.writes -= 1
        if table.dirty:
            table.low, table.high = min(self.low, table.low), max(self.high, table.high)
        else:
            table.low, table.high = self.low, self.high


def decode(data: bytes | bytearray | memoryview, code: str) -> array[int]:
    """Numbers from their bytes on disk."""
    entries = array(code)
    entries.frombytes(data)
    if SWAP:
        entries.byteswap()
    return entries


def encode(entries: array[int]) -> bytes:
    """Numbers as they stand on disk."""
    if SWAP and entries.itemsize > 1:
        entries = entries[:]
        entries.byteswap()
    return entries.tobytes()


class RefcountWidth:
    """How reference counts of one width sit in a block: 1 to 64 bits each, sub-byte ones from the low bits up."""

    def __init__(self, order: int, cluster_size: int) -> None:
        self.order = order
        self.per_block = (cluster_size << 3) >> order
        self.highest = (1 << (1 << order)) - 1
        self.code = CODES.get(order, "B")
        self._shift = 3 - order  # of an index, to its byte; only for sub-byte widths
        self._inside = (1 << self._shift) - 1 if order < 3 else 0

    def counts(self, used: int) -> array[int]:
        """The counts of the first (used) clusters of an image, each referred to once."""
        if self.order >= 3:
            return array(self.code, (1,)) * used
        table = Table(0, array("B", bytes((used >> self._shift) + 1)))
        self.fill(table, 0, used, 1)
        return table.entries

    def get(self, block: Table, index: int) -> int:
        if self.order >= 3:
            return block.entries[index]
        return block.entries[index >> self._shift] >> ((index & self._inside) << self.order) & self.highest

    def put(self, block: Table, index: int, value: int) -> None:
        if self.order >= 3:
            block.put(index, value)
            return
        at, shift = index >> self._shift, (index & self._inside) << self.order
        block.put(at, block.entries[at] & ~(self.highest << shift) | value << shift)

    def fill(self, block: Table, index: int, count: int, value: int) -> None:
        """Set (count) counts from (index) on."""
        if self.order >= 3:
            block.put_run(index, array(self.code, (value,)) * count)
            return
        end = index + count
        whole = range(index + self._inside >> self._shift, end >> self._shift)  # bytes
        if len(whole) > 1:
            byte = sum(value << (at << self.order) for at in range(self._inside + 1))
            block.put_run(whole.start, array("B", (byte,)) * len(whole))
            parts = [*range(index, whole.start << self._shift), *range(whole.stop << self._shift, end)]
        else:
            parts = [*range(index, end)]
        for each in parts:
            self.put(block, each, value)

    def values(self, block: Table, index: int, count: int) -> Sequence[int]:
        """(count) counts from (index) on."""
        if self.order >= 3:
            return block.entries[index : index + count]
        return [self.get(block, at) for at in range(index, index + count)]

    def first_free(self, block: Table, start: int) -> int | None:
        """The first index from (start) on whose count is zero."""
        if self.order >= 3:
            try:
                return block.entries.index(0, start)
            except ValueError:
                return None
        full = 0xFF if self.order == 0 else None
        while start < self.per_block:
            if full is not None and not start & 7 and block.entries[start >> 3] == full:
                start += 8
            elif self.get(block, start):
                start += 1
            else:
                return start
        return None

    def free_run(self, block: Table, start: int, most: int) -> int:
        """How many counts from (start) on are zero, up to (most)."""
        end = min(start + most, self.per_block)
        if self.order >= 3 and not any(block.entries[start:end]):
            return end - start
        at = start
        while at < end and not self.get(block, at):
            at += 1
        return at - start
