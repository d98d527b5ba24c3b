"""The filter `copy-on-read`: what is read from below an image is written into it, so that it is there the next time.

A range that the image has itself is not touched, and the request engine gets its place; every other request comes
through here. Copies go to the node below as writes that change nothing visible, whoever shares it. Where a copy cannot
be written the read fails, as in QEMU.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from aioemu.blockdev.node import Extent, ExtentKind, Node
from aioemu.blockdev.options import NodeOptions, child
from aioemu.blockdev.permissions import Permission, filter_wants

CHUNK = 1 << 20  # of one copy


@dataclass(frozen=True, kw_only=True)
class CopyOnReadOptions(NodeOptions):
    """`-blockdev driver=copy-on-read`."""

    file: Any = child()


class CopyOnReadNode(Node[CopyOnReadOptions]):
    """The filter."""

    driver = "copy-on-read"
    options_type = CopyOnReadOptions
    is_filter = True

    def __init__(self, name: str, options: CopyOnReadOptions) -> None:
        super().__init__(name, options)
        self._ranges = Ranges()

    @property
    def _has_below(self) -> bool:
        """Whether there is anything to copy from."""
        node = self.file
        while node.is_filter:
            node = node.file
        return node.backing is not None

    def wants(self, role: str, used: Permission, shared: Permission) -> tuple[Permission, Permission]:
        used, shared = filter_wants(used, shared)
        if used & Permission.CONSISTENT_READ and not self.read_only:
            used |= Permission.WRITE_UNCHANGED
        return used, shared

    async def read(self, offset: int, size: int) -> bytes:
        pieces = []
        at, end = offset, offset + size
        while at < end:
            step = min(CHUNK, end - at)
            pieces.append(await self._read(at, step))
            at += step
        return b"".join(pieces)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        async with self._ranges.hold(offset, len(data)):
            await self.file.write(offset, data)

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        async with self._ranges.hold(offset, size):
            await self.file.write_zeroes(offset, size, unmap=unmap)

    async def discard(self, offset: int, size: int) -> None:
        async with self._ranges.hold(offset, size):
            await self.file.discard(offset, size)

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        """What the image has in place; a request elsewhere must not pass a copy that is under way."""
        found = await self.file.extent(offset, size, write=write and not self._has_below)
        if self.read_only or not self._has_below or (found.kind is ExtentKind.DATA and found.writable):
            return found
        return Extent(offset, min(size, found.end - offset), ExtentKind.ASK)

    async def _read(self, offset: int, size: int) -> bytes:
        """One piece: the parts that are not in the image are written into it."""
        if self.read_only:
            return await self.file.read(offset, size)
        async with self._ranges.hold(offset, size):
            data = await self.file.read(offset, size)
            at, end = offset, offset + size
            while at < end:
                found = await self.file.extent(at, end - at)
                stop = min(found.end, end)
                if found.kind is not ExtentKind.ZERO and not found.writable and self._has_below:
                    self.file.debug_event("cor_write")
                    await self.file.write(at, memoryview(data)[at - offset : stop - offset])
                at = stop
            return data


class Ranges:
    """Ranges that requests hold: one that overlaps another waits for it. In the order they came."""

    def __init__(self) -> None:
        self._held: list[_Range] = []

    def hold(self, start: int, size: int) -> _Range:
        """Use with `async with`."""
        return _Range(self._held, start, start + size)


class _Range:
    """One request's range."""

    def __init__(self, held: list[_Range], start: int, end: int) -> None:
        self._all, self._start, self._end = held, start, end
        self._done = asyncio.Event()

    async def __aenter__(self) -> None:
        before = [each for each in self._all if each._start < self._end and self._start < each._end]
        self._all.append(self)
        try:
            for each in before:
                await each._done.wait()
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._all.remove(self)
        self._done.set()
