"""The other end of a wire, in Python: an object whose `frame_received` is called with each frame, and that sends.

    class Echo:
        def wired(self, wire): self.wire = wire         # optional: once, before the first frame
        def frame_received(self, frame): self.wire.send(frame)

    wire = Wire(Echo()); link.b.join(wire)

Frames arrive a batch a turn of the loop, from a bounded box: a program that is too slow loses frames, by count, and
slows nobody. They are complete packets, checksums filled in, unless the program says what offloads it takes. An
exception in `frame_received` goes to the loop's exception handler, and the next frame is handed over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from aioemu._core import ffi
from aioemu.netdev.port import Box

BOX_FRAMES = 4096
BATCH = 256  # a turn: then the loop's other business has its turn
PENDING = 4096  # frames kept for a peer that takes none now


@runtime_checkable
class Peer(Protocol):
    """What a program is at least, to be the end of a wire."""

    def frame_received(self, frame: bytes) -> None: ...


class Wire(Box):
    """The port of a peer in Python; reactor thread only."""

    def __init__(self, peer: Peer, *, frames: int = BOX_FRAMES, takes: frozenset[str] = frozenset()) -> None:
        super().__init__(frames, takes=takes)
        self.program = peer
        self.lost = 0  # sent by the program while the other end took none for too long
        self._pending: deque[tuple[bytes, bytes | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.fd, self._rung)
        wired = getattr(peer, "wired", None)
        if wired is not None:
            wired(self)

    def send(self, frame: bytes | bytearray | memoryview, header: bytes | None = None) -> bool:
        """Send a frame; it is kept while the other end takes none. False: lost, too many are or the wire was closed."""
        if not self._pending and super().send(frame, header):
            return True
        if len(self._pending) >= PENDING or self.ptr == ffi.NULL:
            self.lost += 1
            return False
        self._pending.append((bytes(frame), header))
        return True

    def send_all(self, frames: Iterable[bytes]) -> None:
        """Send frames, one after the other."""
        for frame in frames:
            self.send(frame)

    def _rung(self) -> None:
        """Frames are there, or the other end takes again: it is asked last, so that no ring of its is missed."""
        self._collect()
        while self._pending and super().send(*self._pending[0]):
            self._pending.popleft()

    def _collect(self) -> None:
        for _ in range(BATCH):
            frame = self.take() if self.ptr != ffi.NULL else None
            if frame is None:
                return
            try:
                self.program.frame_received(frame)
            except Exception as exc:
                context = {"message": f"{type(self.program).__name__}.frame_received failed", "exception": exc}
                self._loop.call_exception_handler(context)

    def close(self) -> None:
        """Part and free; frames that were not sent are lost. May be called twice."""
        if self.ptr != ffi.NULL:
            self._loop.remove_reader(self.fd)
            self.lost += len(self._pending)
            self._pending.clear()
        super().close()
