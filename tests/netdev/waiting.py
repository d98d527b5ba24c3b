"""Waiting for what the loop brings about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aioemu.netdev.port import Box

WAIT_S = 10.0


async def settled(condition: Callable[[], bool]) -> None:
    """Until that is so."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0)


async def frame_from(box: Box) -> bytes:
    """The next frame in the box."""
    async with asyncio.timeout(WAIT_S):
        while (frame := box.take()) is None:
            await asyncio.sleep(0)
    return frame


async def frames_from(box: Box, count: int) -> list[bytes]:
    """The next (count) frames in the box."""
    return [await frame_from(box) for _ in range(count)]
