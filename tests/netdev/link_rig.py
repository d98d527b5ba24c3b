"""A link with a box at either end, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aioemu.netdev.link import Clockwork, Link
from aioemu.netdev.port import Box

FRAME = bytes(range(60))
LIMIT_S = 10.0


class Rig:
    """A link with a box at either end."""

    def __init__(self, clockwork: Clockwork, frames: int = 1 << 16, *, waits: bool = False) -> None:
        self.link = Link("a-b", clockwork, seed=1)
        self.a, self.b = Box(frames, waits=waits), Box(frames, waits=waits)
        self.link.a.join(self.a)
        self.link.b.join(self.b)

    def close(self) -> None:
        self.link.close()
        self.a.close()
        self.b.close()

    async def arrive(self, count: int, at: Box | None = None) -> list[bytes]:
        """That many frames, at b unless said otherwise."""
        box = at or self.b
        found: list[bytes] = []
        news = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(box.fd, news.set)
        try:
            async with asyncio.timeout(LIMIT_S):
                while len(found) < count:
                    news.clear()
                    while (frame := box.take()) is not None:
                        found.append(frame)
                    if len(found) < count:
                        await news.wait()
        finally:
            loop.remove_reader(box.fd)
        return found


@contextmanager
def rig_of(clockwork: Clockwork, frames: int, *, waits: bool) -> Iterator[Rig]:
    made = Rig(clockwork, frames, waits=waits)
    try:
        yield made
    finally:
        made.close()


def numbered(count: int, size: int = 60) -> list[bytes]:
    return [bytes(12) + b"\x88\xb5" + index.to_bytes(4, "big") + bytes(size - 18) for index in range(count)]
