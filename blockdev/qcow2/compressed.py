"""Reads compressed clusters: raw deflate, or zstd where the Python at hand can; the last few stay decompressed.

The bytes are not trusted: output is bounded by the cluster, and what decompresses to anything but one cluster is EIO.
"""

from __future__ import annotations

import asyncio
import errno
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aioemu.blockdev.qcow2.header import ZSTD
from aioemu.errors import ConfigError, HostError

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.image import Image

KEPT_BYTES = 4 << 20  # decompressed clusters that are kept; at least two
INLINE_MAX = 64 << 10  # a cluster of this size is decompressed at once, a larger one on another thread


def _inflate(data: bytes, size: int) -> bytes:
    return zlib.decompressobj(-15).decompress(data, size)


def _zstd() -> Callable[[bytes, int], bytes]:
    """A decompressor of zstd. ConfigError where this Python has none."""
    try:
        module: Any = import_module("zstandard")
    except ImportError as exc:
        raise ConfigError("zstd-compressed images need the Python package zstandard") from exc

    def decompress(data: bytes, size: int) -> bytes:
        try:
            with module.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as reader:
                found = bytearray()
                while len(found) < size and (more := reader.read(size - len(found))):
                    found += more
                return bytes(found)
        except module.ZstdError as exc:
            raise ValueError(str(exc)) from exc

    return decompress


class Decompressor:
    """The compressed clusters of one image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._decompress = _zstd() if image.header.compression == ZSTD else _inflate
        self._kept: dict[int, bytes] = {}
        self._kept_max = max(KEPT_BYTES // image.layout.cluster, 2)

    async def cluster(self, entry: int) -> bytes:
        """The bytes of the cluster that an L2 entry says is compressed."""
        kept = self._kept.pop(entry, None)
        if kept is None:
            kept = await self._read(entry)
        self._kept[entry] = kept
        while len(self._kept) > self._kept_max:
            del self._kept[next(iter(self._kept))]
        return kept

    def forget(self) -> None:
        """Compressed bytes were given back: what an entry means may change."""
        self._kept.clear()

    async def _read(self, entry: int) -> bytes:
        image = self._image
        size = image.layout.cluster
        offset, length = image.layout.compressed(entry)
        image.store.debug_event("read_compressed")
        data = await image.store.read(offset, length)
        try:
            if size <= INLINE_MAX:
                found = self._decompress(data, size)
            else:
                found = await asyncio.get_running_loop().run_in_executor(None, self._decompress, data, size)
        except (zlib.error, ValueError) as exc:
            raise HostError(f"{image.name}: compressed cluster at {offset:#x} ({exc})", errno.EIO) from exc
        if len(found) != size:
            raise HostError(f"{image.name}: compressed cluster at {offset:#x} is too short", errno.EIO)
        return found
