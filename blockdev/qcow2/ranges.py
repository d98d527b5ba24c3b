"""Who may touch which range of a disk at the same time: many that leave the mapping alone, or one that changes it.

First come, first served where ranges overlap; ranges apart never wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _Hold:
    __slots__ = ("end", "gone", "shared", "start")

    def __init__(self, start: int, end: int, shared: bool, gone: asyncio.Future[None]) -> None:
        self.start, self.end = start, end
        self.shared = shared
        self.gone = gone


class RangeLock:
    """Holds of ranges, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._holds: list[_Hold] = []

    def is_free(self, start: int, end: int) -> bool:
        """Whether nobody holds or waits for any part of a range."""
        return not any(other.start < end and start < other.end for other in self._holds)

    @asynccontextmanager
    async def hold(self, start: int, end: int, shared: bool = False) -> AsyncIterator[None]:
        """Hold [start, end) until the block ends, after all that overlap and came before."""
        mine = _Hold(start, end, shared, asyncio.get_running_loop().create_future())
        before = [
            other.gone
            for other in self._holds
            if other.start < end and start < other.end and not (shared and other.shared)
        ]
        self._holds.append(mine)
        try:
            for gone in before:
                await asyncio.shield(gone)
            yield
        finally:
            self._holds.remove(mine)
            mine.gone.set_result(None)
