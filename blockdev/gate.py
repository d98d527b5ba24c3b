"""A gate that is open but for moments: who comes while it is closed waits until it opens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """For one loop. Whoever closes it waits himself for those who are inside."""

    def __init__(self) -> None:
        self._opens: asyncio.Future[None] | None = None  # while it is closed

    async def enter(self) -> None:
        """Pass; at once where it is open."""
        while self._opens is not None:
            await asyncio.shield(self._opens)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody passes meanwhile."""
        opens = self._opens = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            self._opens = None
            opens.set_result(None)
