"""The driver `raw`: the bytes of its file as they are, or a window of them (`offset`, `size`).

A raw image that was guessed and not asked for must stay one: a guest that could write another format's header into its
first block would have the host read any file as its backing file at the next start. Such a write is refused (EPERM).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from aioemu.blockdev.node import SECTOR, Extent, ExtentKind, Node, Opener
from aioemu.blockdev.options import NodeOptions, child, size
from aioemu.blockdev.permissions import Permission, data_wants, filter_wants
from aioemu.blockdev.probe import PROBE_BYTES, probe
from aioemu.errors import ConfigError, HostError


@dataclass(frozen=True, kw_only=True)
class RawOptions(NodeOptions):
    """`-blockdev driver=raw`."""

    offset: int = size(0)
    size: int | None = size(None)
    file: Any = child()


class RawNode(Node[RawOptions]):
    """A raw image. The graph sets `probed` where the format was guessed."""

    driver = "raw"
    options_type = RawOptions
    is_format = True

    def __init__(self, name: str, options: RawOptions) -> None:
        super().__init__(name, options)
        self.offset = options.offset
        self.probed = False

    @property
    def has_window(self) -> bool:
        return self.options.offset != 0 or self.options.size is not None

    async def open(self, graph: Opener) -> None:
        self.size = self._window(self.options)
        self.request_alignment = self.file.request_alignment
        if self.probed and not self.read_only:
            graph.warn(
                "Image format was not specified for '%s' and probing guessed raw: write operations on block 0 will be "
                "restricted, because a guest could make it another format. Specify the 'raw' format explicitly to "
                "remove the restrictions.",
                self.filename,
            )

    def info(self) -> dict[str, Any]:
        known = self.file.info()
        return {**super().info(), **({"dirty-flag": False} if "dirty-flag" in known else {})}

    def check_reopen(self, options: RawOptions) -> None:
        self._window(options)

    async def reopen(self, options: RawOptions) -> None:
        await super().reopen(options)
        size, self.offset = self._window(options), options.offset
        self.changed(0, self.size)
        self._set_size(size)

    def wants(self, role: str, used: Permission, shared: Permission) -> tuple[Permission, Permission]:
        return data_wants(used, shared) if self.has_window else filter_wants(used, shared)

    async def read(self, offset: int, size: int) -> bytes:
        self.file.debug_event("read_aio")
        return await self.file.read(offset + self.offset, size)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if self.probed and offset < PROBE_BYTES and len(data):
            await self._keep_raw(offset, data)
        self.file.debug_event("write_aio")
        await self.file.write(offset + self.offset, data)

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        unmap = unmap and self.options.discard == "unmap"
        await self.file.write_zeroes(offset + self.offset, size, unmap=unmap)

    async def discard(self, offset: int, size: int) -> None:
        if self.options.discard == "unmap":
            await self.file.discard(offset + self.offset, size)

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        if self.probed and offset < PROBE_BYTES and not self.read_only:
            return Extent(0, min(PROBE_BYTES, self.size), ExtentKind.ASK)
        low = PROBE_BYTES if self.probed and not self.read_only else 0
        found = await self.file.extent(offset + self.offset, size, write=write)
        return found.shifted(-self.offset).within(low, self.size)

    async def resize(self, size: int) -> None:
        if self.has_window:
            raise ConfigError("Cannot resize fixed-size raw disks")
        await self.file.resize(size)
        self._set_size(self.file.size)

    async def grow(self, size: int) -> None:
        if self.has_window:
            await super().grow(size)
        else:
            await self.file.grow(size)
            self._set_size(self.file.size)

    def highest_below(self, highest: int) -> int:
        return highest + self.offset if highest else 0

    def child_changed(self, role: str, start: int, length: int) -> None:
        first, last = max(start - self.offset, 0), min(start - self.offset + length, self.size)
        if first < last:
            self.changed(first, last - first)

    def child_resized(self, role: str, size: int) -> None:
        if not self.has_window:
            self._set_size(size)

    def _window(self, options: RawOptions) -> int:
        """The size of what the options show of the file. ConfigError when the file does not have it."""
        available = self.file.size
        if options.offset > available:
            raise ConfigError(
                f"Offset ({options.offset}) cannot be greater than size of the containing file ({available})"
            )
        if options.size is None:
            return available - options.offset
        if options.offset + options.size > available:
            raise ConfigError(
                f"The sum of offset ({options.offset}) and size ({options.size}) has to be smaller or equal to the "
                f" actual size of the containing file ({available})"
            )
        if options.size % SECTOR:
            raise ConfigError("Specified size is not multiple of 512")
        return options.size

    async def _keep_raw(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Refuse a write that would make this another format."""
        head = bytearray(await self.file.read(self.offset, min(PROBE_BYTES, self.size)))
        with memoryview(data) as view:
            piece = bytes(view.cast("B")[: PROBE_BYTES - offset])
        head[offset : offset + len(piece)] = piece
        if probe(bytes(head)) != "raw":
            raise HostError(f"{self.filename}: write of another format's header to a guessed raw image", errno.EPERM)
