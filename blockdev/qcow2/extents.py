"""Where ranges of a qcow2 disk are in the host's file, for the request engine; and a place for those that have none.

What is told may be used until it is voided, by a node's `changed`: whoever changes the mapping says so before anything
else can run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.blockdev.node import Extent, ExtentKind, Node
from aioemu.blockdev.qcow2.entries import Kind, Run

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.image import Image
    from aioemu.blockdev.qcow2.node import Qcow2Node
    from aioemu.blockdev.qcow2.write import Writer

LOOK_AHEAD = 1024  # clusters of a run that one answer covers


class Places:
    """What `Qcow2Node.extent` answers."""

    def __init__(self, node: Qcow2Node) -> None:
        self._node = node

    async def for_read(self, image: Image, offset: int, size: int) -> Extent:
        """Where the byte at (offset) is."""
        while True:
            mapping = image.mapping
            found = await self._find(image, offset, size)
            if mapping == image.mapping:  # nothing has moved while this was found out
                return found

    async def _find(self, image: Image, offset: int, size: int) -> Extent:
        """Where the byte at (offset) is now."""
        run = await image.lookup(offset, min(max(size, LOOK_AHEAD << image.layout.bits), self._node.size - offset))
        if run.kind is Kind.DATA:
            return await self._data_extent(image, run, offset)
        if run.kind is Kind.COMPRESSED:
            return Extent(offset, run.length, ExtentKind.ASK)
        backing = self._node.backing
        if run.kind is Kind.NONE and backing is not None and offset < backing.size:
            found = await backing.extent(offset, min(run.length, backing.size - offset))
            found = found.within(offset, min(offset + run.length, backing.size))
            kind = ExtentKind.ZERO if found.kind is ExtentKind.NONE else found.kind
            return Extent(found.start, found.length, kind, found.fd, found.host_offset)
        return Extent(offset, run.length, ExtentKind.ZERO)

    async def _data_extent(self, image: Image, run: Run, offset: int) -> Extent:
        """Where the bytes of a DATA run are in the host's file; beyond its end they are zeros."""
        room = image.data.size - run.host
        if room <= 0:
            return Extent(offset, run.length, ExtentKind.ZERO)
        length = min(run.length, room)
        found = await image.data.extent(run.host, length)
        if found.kind is not ExtentKind.DATA:
            return Extent(offset, min(length, found.end - run.host), found.kind)
        found = found.within(run.host, run.host + length)
        writable = run.owned and found.writable and not self._node.read_only and image.may_write(run)
        return Extent(offset, found.length, ExtentKind.DATA, found.fd, found.host_offset, writable)

    async def for_write(self, image: Image, writer: Writer, offset: int, size: int) -> Extent:
        """A place of its own for the byte at (offset) and what follows; ASK where whole clusters need no old bytes."""
        mask, cluster = image.layout.mask, image.layout.cluster
        if self._node.backing is None and (host := writer.place_now(offset & ~mask)) is not None:
            start = offset & ~mask
            found = await self._data_extent(
                image, Run(Kind.DATA, min(cluster, self._node.size - start), host, True), start
            )
            self._void_rest(start, start + found.length, found)
            return found
        low = high = offset  # what was given a place of zeros here
        while True:
            run = await image.lookup(low, min(max(size, LOOK_AHEAD * cluster, high - low), self._node.size - low))
            if run.kind is Kind.DATA and run.owned and low + run.length > offset:
                await image.check_data(run.host, run.length)
                if run.host + run.length <= image.data.size:
                    found = await self._data_extent(image, run, low)
                    self._void_rest(low, high, found)
                    return found
                await image.reach(run.host + run.length)
                continue
            if low < offset:  # given back meanwhile
                low = high = offset
                continue
            start = offset & ~mask
            wanted = writer.ahead(start, (offset + size + mask & ~mask) - start)
            wanted = min(wanted, (self._node.size + mask & ~mask) - start)
            async with self._node.changing(start, start + wanted):
                run = await image.lookup(offset, size)
                if run.kind is Kind.DATA and run.owned:
                    continue
                clear = await writer.clear_run(start, wanted)
                if clear:
                    done = await writer.allocate_clear(start, clear)
                    low, high = start, max(high, min(start + done, self._node.size))
                elif offset == start and size >= cluster:
                    return Extent(offset, max(run.length & ~mask, cluster), ExtentKind.ASK)
                else:
                    await writer.own(offset, size)
                    self._node.void(start, cluster)

    def _void_rest(self, low: int, high: int, told: Extent) -> None:
        """Void what got a place of zeros and is not in the answer; all of it, where others may hold it.

        Whoever asked holds nothing but zeros of it, should the answer be lost on its way: that stays right.
        """
        start = low if not self._has_one_user() else max(told.end, low)
        if start < high:
            self._node.changed(start, high - start)

    def _has_one_user(self) -> bool:
        """Whether all requests come from one place: then nobody else holds extents of this node."""
        node: Any = self._node
        while isinstance(node, Node) and node.parents:
            if len(node.parents) > 1:
                return False
            node = node.parents[0].parent
        return True
