"""A bounded cache of metadata tables: loads each once, drops the least recently used, never what the disk has not yet.

`room` is awaited when only dirty tables could go: it writes them (a commit), after which they can. It is not asked
while a commit itself loads tables. Whoever changes a table does so between two awaits, with the table just got.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from aioemu.blockdev.qcow2.tables import Table, Writeback


class TableCache:
    """Tables of one kind, by their offset in the image."""

    def __init__(
        self,
        load: Callable[[int], Awaitable[Table]],
        room: Callable[[], Awaitable[None]],
        size_max: int,
        table_size: int,
    ) -> None:
        self._load = load
        self._room = room
        self._table_size = table_size
        self.set_limit(size_max)
        self._tables: dict[int, Table] = {}
        self._loading: dict[int, asyncio.Task[Table]] = {}
        self._wanted: Counter[int] = Counter()  # by those who wait for it: it stays until they have seen it

    def set_limit(self, size_max: int) -> None:
        """Keep so many bytes of tables, two tables at least; more go when the next one comes."""
        self.tables_max = max(size_max // self._table_size, 2)

    def __len__(self) -> int:
        return len(self._tables)

    def __iter__(self) -> Iterator[Table]:
        return iter(tuple(self._tables.values()))

    def peek(self, offset: int) -> Table | None:
        """The table, if it is here."""
        table = self._tables.get(offset)
        if table is not None and len(self._tables) * 2 > self.tables_max:  # recency matters only near the bound
            del self._tables[offset]
            self._tables[offset] = table
        return table

    async def get(self, offset: int, committing: bool = False) -> Table:
        """The table at (offset), loaded at most once however many ask."""
        while True:
            table = self.peek(offset)
            if table is not None:
                return table
            if committing:  # at the end of all, when nothing else can run
                return self._tables.setdefault(offset, await self._load(offset))
            self._wanted[offset] += 1
            try:
                await self._bring(offset)
                if (table := self.peek(offset)) is not None:
                    return table
            finally:
                self._wanted[offset] -= 1
                if not self._wanted[offset]:
                    del self._wanted[offset]

    async def _bring(self, offset: int) -> None:
        """Wait until somebody has loaded the table."""
        await self.make_room()
        task = self._loading.get(offset)
        if task is None:
            task = self._loading[offset] = asyncio.get_running_loop().create_task(self._fetch(offset))
        # a waiter that is cancelled does not take the load from the others
        await asyncio.shield(task)

    async def _fetch(self, offset: int) -> Table:
        """Load one table and keep it."""
        try:
            table = await self._load(offset)
            return self._tables.setdefault(offset, table)
        finally:
            del self._loading[offset]

    def add(self, table: Table) -> None:
        """Keep a table that was made here; `make_room` comes before."""
        self._tables[table.offset] = table

    def drop(self, offset: int) -> None:
        """Forget a table whose cluster is no table any more, with what was dirty of it."""
        table = self._tables.pop(offset, None)
        if table is not None:
            table.live = False

    def take_dirty(self) -> list[Writeback]:
        """What must be written of every table, in the order of the disk."""
        taken = [write for table in self._tables.values() if (write := table.take()) is not None]
        taken.sort(key=lambda write: write.offset)
        return taken

    @property
    def dirty(self) -> bool:
        return any(table.dirty for table in self._tables.values())

    async def make_room(self) -> None:
        """Let clean tables go, the ones not used for longest first, until one more has room."""
        if len(self._tables) < self.tables_max:
            return
        if not self._evict():
            await self._room()
            self._evict()

    def _evict(self) -> bool:
        """Drop clean tables down to the bound; False where all of them were dirty."""
        for offset, table in tuple(self._tables.items()):
            if len(self._tables) < self.tables_max:
                break
            if not table.dirty and not table.writes and offset not in self._wanted:
                self.drop(offset)
        return len(self._tables) < self.tables_max
