"""Who has more to do than is done at once waits here: in turn, a millisecond of it between two looks at the sockets.

So a client that asks for one thing waits that long, and not for all that thousands of others have sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

SLICE_NS = 1_000_000


class Waiting(Protocol):
    """Somebody with work left."""

    def turn(self) -> None:
        """Do a bounded part of it; `Turns.take` again if something is left."""


class Turns:
    """A round robin on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Waiting] = deque()
        self._members: set[Waiting] = set()
        self._scheduled = False

    def take(self, waiting: Waiting) -> None:
        """Give (waiting) a turn after those who came before."""
        if waiting in self._members:
            return
        self._members.add(waiting)
        self._waiting.append(waiting)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        end = time.monotonic_ns() + SLICE_NS
        while self._waiting:
            waiting = self._waiting.popleft()
            self._members.discard(waiting)
            waiting.turn()
            if time.monotonic_ns() >= end:
                break
        if self._waiting:
            self._schedule()
