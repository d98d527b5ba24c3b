"""A virtqueue as a device in Python sees it: chains to take, read, write and give back.

The engine is native (`core/vring.c`): it checks and copies a chain's descriptors before anything here sees them. Data
is copied in pieces with a bound, so nothing points into guest memory; a chain that outlives a reset of its queue reads
nothing, writes nothing and completes into nothing. Not here: transports, and devices whose data path is in C.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aioemu._core import ffi, lib
from aioemu.errors import GuestError

COPY_BYTES = 1 << 20  # one copy's bound: a chain may be 4 GiB long, and the host's memory is not the guest's
IN_FLIGHT = 1024  # chains: the longest ring of the engine
SEGMENTS = 1024  # of one chain: the engine's bound
TURN_CHAINS = 64  # then the program's other business has its turn, however fast a driver puts more in


class Chain:
    """One request: bytes that the device may read, then room that it may write. Complete it once."""

    __slots__ = ("_epoch", "_queue", "_slot", "_written", "completed", "readable_bytes", "writable_bytes")

    def __init__(self, queue: Queue, info: Any) -> None:
        self._queue = queue
        self._slot, self._epoch = int(info.slot), int(info.epoch)
        self._written = 0
        self.completed = False
        self.readable_bytes = int(info.readable)
        self.writable_bytes = int(info.writable)

    @property
    def readable(self) -> memoryview:
        """A copy of the readable part, as far as the bound of one copy goes."""
        return memoryview(self.read())

    @property
    def room(self) -> int:
        """Bytes that `write` still takes."""
        return self.writable_bytes - self._written

    def read(self, size: int = COPY_BYTES, offset: int = 0) -> bytes:
        """Copy up to `size` bytes out of the readable part, at most COPY_BYTES at once."""
        size = max(0, min(size, self.readable_bytes - offset, COPY_BYTES))
        buffer = ffi.new("uint8_t[]", size or 1)
        queue = self._queue
        got = lib.core_vq_read(queue.chip, queue.index, self._slot, self._epoch, offset, buffer, size)
        return bytes(ffi.buffer(buffer, max(0, got)))

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append to what the driver gets; how much fitted."""
        size = min(len(data), self.room)
        if size <= 0:
            return 0
        queue, source = self._queue, ffi.from_buffer("uint8_t[]", data)
        done = lib.core_vq_write(queue.chip, queue.index, self._slot, self._epoch, self._written, source, size)
        self._written += max(0, done)
        return max(0, int(done))

    def segments(self) -> list[tuple[int, int, bool]]:
        """Guest address, size and whether the device may write, of each piece: for devices about memory itself."""
        queue, found = self._queue, ffi.new("core_vseg[]", SEGMENTS)
        count = lib.core_vq_segments(queue.chip, queue.index, self._slot, self._epoch, found, SEGMENTS)
        return [(int(s.gpa), int(s.size), bool(s.writable)) for s in (found[i] for i in range(max(0, count)))]

    def complete(self, written: int | None = None) -> None:
        """Give the chain back with as many bytes as were written, and interrupt the driver if it wants that."""
        if self.completed:
            raise RuntimeError("this chain was completed already")
        self.completed = True
        count = self._written if written is None else written
        self._queue._push(self._slot, self._epoch, count)


class Queue:
    """One virtqueue. `async for chain in queue` waits for chains, across resets, until its task is cancelled."""

    def __init__(self, chip: Any, index: int) -> None:
        self.chip = chip
        self.index = index
        self.on_kick: Callable[[], None] | None = None  # for devices that answer at once instead of iterating
        self._info: Any = ffi.new("core_vchain_info *")
        self._left: int | None = None  # chains in the turn that this is; None: it is none
        self._run = 0  # chains that came to an iteration without waiting
        self._waiters: set[asyncio.Future[None]] = set()

    def begin_turn(self) -> None:
        """The driver rang: TURN_CHAINS come out until `end_turn`, however fast it puts more in."""
        self._left = TURN_CHAINS

    def end_turn(self) -> bool:
        """Whether more were asked for than the turn had: there may be more in it."""
        left, self._left = self._left, None
        return left is not None and left < 0

    def pop(self) -> Chain | None:
        """The next chain; None when there is none now, and the driver, or the next turn, will say when there is."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                return None
        return Chain(self, self._info) if lib.core_vq_pop(self.chip, self.index, self._info) == 1 else None

    def __aiter__(self) -> Queue:
        return self

    async def __anext__(self) -> Chain:
        self._run += 1
        if self._run > TURN_CHAINS:
            self._run = 1
            await asyncio.sleep(0)
        while True:
            chain = self.pop()
            if chain is not None:
                return chain
            self._run = 0
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def kicked(self) -> None:
        """There may be something: wake who waits."""
        if self.on_kick is not None:
            self.on_kick()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def in_flight(self) -> list[dict[str, Any]]:
        """The chains that are out, as plain values for a saved state."""
        found = ffi.new("core_vchain_info[]", IN_FLIGHT)
        count = max(0, lib.core_vq_in_flight(self.chip, self.index, found, IN_FLIGHT))
        chains = [(found[i], Chain(self, found[i])) for i in range(count)]
        return [
            {"id": int(info.id), "descriptors": int(info.descriptors), "segments": [list(s) for s in chain.segments()]}
            for info, chain in chains
        ]

    def restore(self, chain: dict[str, Any]) -> None:
        """Take back a chain of a saved state; it comes out of the queue again. GuestError when it cannot be."""
        pieces = chain["segments"]
        made = ffi.new("core_vseg[]", len(pieces) or 1)
        for place, (gpa, size, writable) in zip(made, pieces, strict=False):
            place.gpa, place.size, place.writable = gpa, size, writable
        rc = lib.core_vq_restore(self.chip, self.index, chain["id"], chain["descriptors"], made, len(pieces))
        if rc < 0:
            raise GuestError(f"queue {self.index} had a chain that cannot be")

    def _push(self, slot: int, epoch: int, written: int) -> None:
        if lib.core_vq_push(self.chip, self.index, slot, epoch, written) == 0:
            lib.core_vq_flush(self.chip, self.index)
            for waiter in self._waiters:  # a full ring has a place again
                if not waiter.done():
                    waiter.set_result(None)
