"""The drivers `null-co` and `null-aio`: a disk that takes everything and keeps nothing, for measuring what is above it.

Reads are zeroes, with `read-zeroes=on` and without (QEMU leaves the buffer as it was then).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aioemu.blockdev.node import SECTOR, Extent, ExtentKind, Node, Opener
from aioemu.blockdev.options import NodeOptions, flag, number, size
from aioemu.errors import ConfigError

DEFAULT_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class NullOptions(NodeOptions):
    """`-blockdev driver=null-co`."""

    size: int = size(DEFAULT_BYTES)
    latency_ns: int = number(0)
    read_zeroes: bool = flag()


class NullNode(Node[NullOptions]):
    """Nothing behind it; an answer takes `latency_ns`."""

    driver = "null-co"
    options_type = NullOptions

    async def open(self, graph: Opener) -> None:
        if self.options.latency_ns < 0:
            raise ConfigError("latency-ns is invalid", "latency-ns")
        self.size = -(-self.options.size // SECTOR) * SECTOR

    @property
    def filename(self) -> str:
        return f"{self.driver}://"

    async def read(self, offset: int, size: int) -> bytes:
        await self._wait()
        return bytes(size)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        await self._wait()

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        await self._wait()

    async def discard(self, offset: int, size: int) -> None:
        await self._wait()

    async def flush(self) -> None:
        await self._wait()

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        return Extent(0, self.size, ExtentKind.ASK)

    async def resize(self, size: int) -> None:
        raise ConfigError("Image format driver does not support resize")

    async def allocated_bytes(self) -> int | None:
        return 0

    async def _wait(self) -> None:
        if self.options.latency_ns:
            await asyncio.sleep(self.options.latency_ns / 1e9)


class NullAioNode(NullNode):
    """The same under another name."""

    driver = "null-aio"
