"""The threads that a machine's disks make blocking calls on: gone when the graph's end has been awaited."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

THREADS = 8  # that calls of one machine's disks may block at a time
LOOK_S = 0.001


class BlockThreads(ThreadPoolExecutor):
    """At most THREADS of them, made when there is work."""

    def __init__(self) -> None:
        super().__init__(THREADS, thread_name_prefix="block")

    async def end(self) -> None:
        """Let them go, once nothing is called any more, and wait until they are gone; the loop goes on meanwhile."""
        self.shutdown(wait=False)
        while any(thread.is_alive() for thread in self._threads):  # noqa: ASYNC110  # a thread's end tells nobody
            await asyncio.sleep(LOOK_S)

    def end_now(self) -> None:
        """The same where nobody can wait: it blocks."""
        self.shutdown(wait=True)
