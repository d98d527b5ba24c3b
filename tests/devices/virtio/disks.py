"""A disk on a board without a processor, and a driver that asks it for sectors in whatever framing a test likes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aioemu.blockdev.backend import Backend
from aioemu.blockdev.engine import DiskError
from aioemu.blockdev.graph import Graph
from aioemu.devices.virtio.blk import VirtioBlk
from aioemu.devices.virtio.blk_properties import BlkProperties
from aioemu.devices.virtio.device import INDIRECT_DESC
from aioemu.machine.iothread import IoThread, IoThreadProperties, ReactorIo
from tests.devices.virtio.driver import (
    ACKNOWLEDGE,
    BUFFERS_AT,
    DRIVER,
    DRIVER_OK,
    FEATURES_OK,
    STATUS,
    Board,
    Ring,
    drive,
    features_of,
    negotiate,
    set_up_queue,
)

READ, WRITE, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
STATUS_UNTOUCHED = 0xEE
LIMIT_S = 20.0
GIVEN = BlkProperties(rerror="report", werror="enospc")
NO_SPLIT = 1 << 30


class Disk:
    """One disk under a driver. Each request takes its buffers anew from the start of the board's buffer memory."""

    def __init__(self, device: VirtioBlk, board: Board, rings: Sequence[Ring]) -> None:
        self.device = device
        self.board = board
        self.rings = rings
        self.errors: list[DiskError] = []
        device.engine.on_error = self.errors.append
        self._at = BUFFERS_AT
        self.lengths: list[dict[int, int]] = [{} for _ in rings]

    def take(self, size: int) -> int:
        """Room for a buffer; it wraps around, as nobody looks at old ones."""
        if self._at + size > BUFFERS_AT + 0x70000:
            self._at = BUFFERS_AT
        self._at += size
        return self._at - size

    def pieces(self, size: int, cut: int, writable: bool) -> list[tuple[int, int, bool]]:
        """Room of `size` bytes in pieces of `cut`."""
        at = self.take(size)
        return [(at + n, min(cut, size - n), writable) for n in range(0, size, cut)]

    def put(self, kind: int, sector: int, data: bytes = b"", room: int = 0, *, cut: int = NO_SPLIT, q: int = 0) -> Any:
        """Offer a request without ringing; what `result` wants."""
        out = struct.pack("<IIQ", kind, 0, sector) + data
        readable = self.pieces(len(out), cut, False)
        for (at, size, _), start in zip(readable, range(0, len(out), cut), strict=True):
            self.board.memory.write(at, out[start : start + size])
        writable = self.pieces(room + 1, cut, True)
        self.board.memory.write(writable[-1][0] + writable[-1][1] - 1, bytes([STATUS_UNTOUCHED]))
        table = self.take(16 * (len(readable) + len(writable)) + 16) if self.device.features & INDIRECT_DESC else None
        table = None if table is None else -(-table // 16) * 16
        return self.rings[q].add([*readable, *writable], table), writable, room

    def back(self, writable: list[tuple[int, int, bool]], room: int) -> tuple[int, bytes]:
        """Status and data of a request."""
        read = b"".join(self.board.memory.read(at, size) for at, size, _ in writable)
        return read[room], read[:room]

    async def wait(self, number: int, q: int = 0) -> int:
        """Until that request is given back; its length."""
        await self.until(lambda: self._is_back(number, q))
        return self.lengths[q].pop(number)

    def _is_back(self, number: int, q: int) -> bool:
        self.lengths[q] |= dict(self.rings[q].used())
        return number in self.lengths[q]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Give the loop its turns until something is so."""
        deadline = asyncio.get_running_loop().time() + LIMIT_S
        while not is_so():
            assert asyncio.get_running_loop().time() < deadline, "it never came to be"
            await asyncio.sleep(0)

    def again(self) -> None:
        """A driver begins anew after a reset."""
        accepted = features_of(self.board)
        assert negotiate(self.board, accepted)
        self.rings = [set_up_queue(self.board, ring.index, features=accepted) for ring in self.rings]
        self.lengths = [{} for _ in self.rings]
        self.board.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)

    async def ask(self, kind: int, sector: int, data: bytes = b"", room: int = 0, **how: Any) -> tuple[int, bytes]:
        """One request, waited for."""
        number, writable, room = self.put(kind, sector, data, room, **how)
        self.rings[how.get("q", 0)].kick()
        await self.wait(number, how.get("q", 0))
        return self.back(writable, room)


@asynccontextmanager
async def disk(
    image: Path | dict[str, Any], *, features: int | None = None, thread: bool = False, queues: int = 1, **given: Any
) -> AsyncIterator[Disk]:
    """A disk of a raw image, or of a node's options, driven over virtio-mmio."""
    options = (
        {"driver": "raw", "file": {"driver": "file", "filename": str(image)}} if isinstance(image, Path) else image
    )
    graph = Graph(lambda *words: None)
    backend = Backend(graph, "d")
    backend.insert(await graph.open({"node-name": "n", **options}))
    backend.attach("disk")
    io = IoThread("t", IoThreadProperties()) if thread else ReactorIo()
    device = VirtioBlk(backend, io.ptr, replace(GIVEN, **given), queues)
    board, rings = drive(device, features)
    try:
        yield Disk(device, board, rings)
    finally:
        device.close()
        io.close()
        backend.detach()
        await graph.close()
        board.close()
