"""The driver `qcow2`: a guest's disk in an image file that holds only what was written, over a backing file or none.

Ranges that are allocated are told to the request engine as extents of the host's file, and it needs this code for them
no more; everything else comes through here. Changes of one range take turns, those of different ranges do not wait for
each other. Neither the image nor its guest is trusted: see `image` for what happens to one that does not hold together.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aioemu.blockdev.node import Creator, Extent, ExtentKind, Node, Opener, check_range
from aioemu.blockdev.permissions import Permission, backing_wants, data_wants, metadata_wants
from aioemu.blockdev.qcow2 import header as fields
from aioemu.blockdev.qcow2.compressed import Decompressor
from aioemu.blockdev.qcow2.create import Qcow2CreateOptions, create
from aioemu.blockdev.qcow2.entries import OFFSET_MASK, Kind, Run
from aioemu.blockdev.qcow2.erase import Eraser
from aioemu.blockdev.qcow2.extents import Places
from aioemu.blockdev.qcow2.facts import describe_image
from aioemu.blockdev.qcow2.header import Header
from aioemu.blockdev.qcow2.image import Image
from aioemu.blockdev.qcow2.opening import open_backing, open_data_file, read_header, tell_corrupt
from aioemu.blockdev.qcow2.options import Qcow2Options, check_options, is_lazy, limits, refuse_corrupt
from aioemu.blockdev.qcow2.repair import repair
from aioemu.blockdev.qcow2.resize import check_resize, finish_growth, make_room, shrink
from aioemu.blockdev.qcow2.write import Writer
from aioemu.errors import HostError

ZEROES = bytes(1 << 20)


class Qcow2Node(Node[Qcow2Options]):
    """One qcow2 image."""

    driver = "qcow2"
    options_type = Qcow2Options
    is_format = True
    create_type = Qcow2CreateOptions

    def __init__(self, name: str, options: Qcow2Options) -> None:
        super().__init__(name, options)
        self._image: Image | None = None
        self._file_end = 0
        self._places = Places(self)

    @property
    def image(self) -> Image:
        if self._image is None:
            raise HostError(f"{self.describe()} is not open", errno.EBADF)
        return self._image

    @property
    def header(self) -> Header:
        return self.image.header

    @classmethod
    async def create(cls, graph: Creator, given: Qcow2CreateOptions, progress: Any) -> None:
        await create(graph, given, progress)

    async def preallocate(self, start: int, length: int, keep: bool) -> None:
        """Map a range that has no clusters; (keep): as an external data file holds it, not as zeros."""
        image = self.image
        await self._begin(image)
        await self._writer.map_all(start, start + length + image.layout.mask & ~image.layout.mask, keep)

    # ---- life --------------------------------------------------------------------------------------------------------

    async def open(self, graph: Opener) -> None:
        header = await read_header(self.file)
        check_options(self.options, header)
        refuse_corrupt(header, self.read_only)
        image = Image(self.filename or self.name, self.file, header, limits(self.options))
        image.tell_corrupt = partial(tell_corrupt, graph, self)
        image.data = await open_data_file(self, graph, header)
        await image.load()
        self._decompressor = Decompressor(image)
        self._image = image
        self._file_end = self.file.size
        if not self.read_only:
            await self._prepare_writes(image)
        await open_backing(self, graph, header)
        self.size = header.size
        self.request_alignment = max(child.request_alignment for child in self.children.values())

    async def _prepare_writes(self, image: Image) -> None:
        """What must be so before the image can change: repaired counts, and the rules of this node's options."""
        if image.header.incompatible & fields.DIRTY:
            await repair(image)
        image.lazy = is_lazy(self.options, image.header)
        request = self.options.pass_discard_request
        by_guest = self.options.discard == "unmap" if request is None else request
        image.allocator.discard_freed = {True: by_guest, False: self.options.pass_discard_other}
        self._writer = Writer(image, self.read, self._beneath)
        self._eraser = Eraser(image, self.void, self.options.discard_no_unref)

    async def close(self) -> None:
        image, self._image = self._image, None
        if image is not None and not self.read_only:
            await image.finish()

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        async with self.image.ranges.hold(0, 1 << 64):
            yield

    async def reopen(self, options: Qcow2Options) -> None:
        image = self.image
        async with self.quiet():
            if not self.read_only:
                await image.finish()
            await super().reopen(options)
            image.set_limits(limits(options))
            if not self.read_only:
                await self._prepare_writes(image)
        self.changed(0, self.size)

    def check_reopen(self, options: Qcow2Options) -> None:
        check_options(options, self.header)
        refuse_corrupt(self.header, options.read_only)

    def wants(self, role: str, used: Permission, shared: Permission) -> tuple[Permission, Permission]:
        if role == "backing":
            return backing_wants(used, shared)
        return metadata_wants(used, shared, writable=not self.read_only) if role == "file" else data_wants(used, shared)

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def read(self, offset: int, size: int) -> bytes:
        image = self.image
        pieces: list[bytes] = []
        end = offset + size
        while offset < end:
            run = await image.lookup(offset, end - offset)
            piece = await self._read_run(image, run, offset)
            if len(piece) == size:
                return piece
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    async def _read_run(self, image: Image, run: Run, offset: int) -> bytes:
        """The bytes of one run."""
        if run.kind is Kind.DATA:
            image.data.debug_event("read_aio")
            return await image.data.read(run.host, run.length)
        if run.kind is Kind.COMPRESSED:
            cluster = await self._decompressor.cluster(run.host)
            inside = offset & image.layout.mask
            return cluster[inside : inside + run.length]
        while run.kind is Kind.NONE and (backing := self.backing) is not None and offset < backing.size:
            image.store.debug_event("read_backing_aio")
            try:
                return await backing.read(offset, min(run.length, backing.size - offset))
            except HostError:
                if self.backing is backing:  # else it was taken away meanwhile
                    raise
        return bytes(run.length)

    async def _beneath(self, offset: int, size: int) -> int:
        """How much from (offset) on reads as zeros below this image."""
        backing = self.backing
        if backing is None or offset >= backing.size:
            return size
        found = await backing.extent(offset, min(size, backing.size - offset))
        if found.kind not in (ExtentKind.ZERO, ExtentKind.NONE):
            return 0
        return size if found.end >= backing.size else min(size, found.end - offset)

    # ---- extents -----------------------------------------------------------------------------------------------------

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        image = self.image
        check_range(self, offset, 1)
        if not write:
            return await self._places.for_read(image, offset, size)
        await self._begin(image)
        return await self._places.for_write(image, self._writer, offset, min(size, self.size - offset))

    def void(self, start: int, length: int) -> None:
        """Whole clusters are elsewhere now."""
        if start < self.size:
            self.changed(start, min(length, self.size - start))

    # ---- writing -----------------------------------------------------------------------------------------------------

    async def _begin(self, image: Image) -> None:
        if self.read_only:
            raise HostError(f"write {image.name}", errno.EACCES)
        await image.begin_changes()

    @asynccontextmanager
    async def changing(self, start: int, end: int, shared: bool = False) -> AsyncIterator[None]:
        """Hold a range of an image that may be changed, which it may not be any more when others had it before."""
        image = self.image
        async with image.ranges.hold(start, end, shared):
            await self._begin(image)
            yield

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        image = self.image
        await self._begin(image)
        view = memoryview(data).cast("B")
        while view:
            done = await self._write_in_place(image, offset, view) or await self._write_new(image, offset, view)
            offset += done
            view = view[done:]

    async def _write_in_place(self, image: Image, offset: int, view: memoryview) -> int:
        """Write the first bytes where the disk has a place of its own for them; how many those were."""
        async with self.changing(offset, offset + len(view), shared=True):
            run = await image.lookup(offset, len(view))
            if run.kind is not Kind.DATA or not run.owned:
                return 0
            await image.check_data(run.host, run.length)
            image.data.debug_event("write_aio")
            await image.data.write(run.host, view[: run.length])
            return run.length

    async def _write_new(self, image: Image, offset: int, view: memoryview) -> int:
        """Write the first bytes to a new place, or make one to write to; how many were written."""
        mask, cluster = image.layout.mask, image.layout.cluster
        start = offset & ~mask
        async with self.changing(start, offset + len(view) + mask & ~mask):
            run = await image.lookup(offset, len(view))
            if run.kind is Kind.DATA and run.owned:
                return 0
            placed = run.kind in (Kind.ZERO, Kind.NONE) and run.host & OFFSET_MASK
            if offset == start and len(view) >= cluster and not placed:
                touched = done = await self._writer.write_new(start, view[: max(run.length & ~mask, cluster)])
            elif await self._writer.clear_run(start, cluster):
                touched, done = await self._writer.allocate_clear(start, cluster), 0
            else:
                touched, done = cluster, await self._writer.own(offset, len(view), view)
            if run.kind is Kind.COMPRESSED:
                self._decompressor.forget()
            self.void(start, touched)
            return done

    # ---- zeros and discards ------------------------------------------------------------------------------------------

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        image = self.image
        await self._begin(image)
        low, high = self._whole(image, offset, offset + size)
        backed = self.backing is not None
        if low < high and (image.layout.zeroes or not backed):
            if offset < low:
                await self._zero_part(image, offset, low)
            async with self.changing(low, high):
                await self._eraser.zero(low, high, unmap, backed)
            offset, size = high, offset + size - high
        if size > 0:
            await self._zero_part(image, offset, offset + size)

    def _whole(self, image: Image, start: int, end: int) -> tuple[int, int]:
        """The whole clusters of a range; the last cluster of the disk counts as one however short it is."""
        mask = image.layout.mask
        return start + mask & ~mask, (end + mask if end == self.size else end) & ~mask

    async def _zero_part(self, image: Image, start: int, end: int) -> None:
        """Make less than a cluster zero, or what cannot be marked as zero."""
        while start < end:
            run = await image.lookup(start, end - start)
            length = run.length
            if run.kind is Kind.NONE:
                clear = min(await self._beneath(start, length), length)
                length = clear or length
                if clear:
                    start += length
                    continue
            if run.kind is not Kind.ZERO:
                length = min(length, len(ZEROES))
                await self.write(start, memoryview(ZEROES)[:length])
            start += length

    async def discard(self, offset: int, size: int) -> None:
        image = self.image
        await self._begin(image)
        low, high = self._whole(image, offset, offset + size)
        backed = self.backing is not None
        if low >= high or (backed and not image.layout.zeroes):
            return
        async with self.changing(low, high):
            await self._eraser.discard(low, high, backed)
            self._decompressor.forget()

    async def flush(self) -> None:
        if not self.read_only:
            await self.image.flush()

    async def resize(self, size: int) -> None:
        image = self.image
        check_resize(image, size)
        await self._begin(image)
        old = self.size
        async with self.changing(min(size, old) & ~image.layout.mask, 1 << 64):
            if size < old:
                self._set_size(size)
                await shrink(image, size, self._eraser)
                return
            await make_room(image, size)
        await self._clear_growth(image, old, size)
        await finish_growth(image, size)
        self._set_size(size)

    async def _clear_growth(self, image: Image, old: int, size: int) -> None:
        """What a longer disk shows beyond its old end is zeros, whatever the last cluster or the backing holds."""
        if old & image.layout.mask:
            await self._zero_part(image, old, min(size, old + image.layout.mask & ~image.layout.mask))
        below = min(self.backing.size, size) if self.backing is not None else 0
        if below > old:
            await self.write_zeroes(old, below - old)

    # ---- looking -----------------------------------------------------------------------------------------------------

    def highest_below(self, highest: int) -> int:
        return self.image.allocator.used_end if highest else 0

    def info(self) -> dict[str, Any]:
        told = {**super().info(), **describe_image(self.image)}
        if "backing-filename" in told and self.filename:
            from aioemu.blockdev.graph import beside

            told["full-backing-filename"] = beside(self, told["backing-filename"])
        return told

    def child_changed(self, role: str, start: int, length: int) -> None:
        if role == "backing":
            first, last = start, min(start + length, self.size)
            if first < last:
                self.changed(first, last - first)
        elif start < self._file_end:  # a file that grows moves nothing
            self.changed(0, self.size)

    def child_resized(self, role: str, size: int) -> None:
        if role == "file":
            self._file_end = size
