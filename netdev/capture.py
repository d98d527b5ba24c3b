"""A capture: what passes any set of links, or of ends of links, as one pcapng file or as packets for the program.

    async with Capture("lab.pcapng") as capture:      # writes until the block is left
        capture.add(link)                             # both directions, as its senders offer them
        capture.add(link.a)                           # what that end's peer sends and what reaches it
    async for packet in capture: ...                  # also, or instead of the file

Recording is native, into a bounded buffer: what does not fit because the disk or the program is slow is counted and
lost, and no link waits for it. Links that are in no capture are not slowed. Not here: capture filters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aioemu._core import ffi, lib
from aioemu.errors import EmuError, HostError
from aioemu.netdev.impair import DROPS
from aioemu.netdev.link import Link
from aioemu.netdev.port import HasPort, Port

BUFFER_BYTES = 16 << 20  # a tenth of a second of 1 Gbit/s: what a disk needs to wake up
SNAP_BYTES = 1 << 17  # more than the longest frame
TAKE_BYTES = 1 << 20
HEAD = struct.Struct("<IIqqIIIHH")  # struct capture_record
ENTRY, EXIT = 0, 1  # places of a direction
DUPLICATE, CORRUPT, LATE, NO_CSUM = 4, 8, 16, 32  # core_captured
DROP_SHIFT = 8


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame as it passed. `fate` is what the link is going to do to it, where that is known."""

    interface: str
    time_ns: int  # since 1970
    data: bytes
    size: int  # of the frame; `data` may be less
    inbound: bool
    lost: str | None = None
    delay_ns: int = 0
    fate: frozenset[str] = frozenset()  # of "duplicated", "corrupted", "reordered"
    gso_size: int = 0  # bytes of each packet that is to be made of it; 0: it is one already
    checksum_missing: bool = False


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """Of one interface: frames that passed, and those of them that the buffer had no room for."""

    seen: int
    dropped: int


class _Sink:
    """One native capture: a file's or a program's."""

    def __init__(self, buffer_bytes: int, snap_bytes: int, *, for_program: bool) -> None:
        self.ptr = lib.core_capture_new(buffer_bytes, snap_bytes, for_program)
        if self.ptr == ffi.NULL:
            raise HostError(f"a capture buffer of {buffer_bytes} bytes")

    async def finish(self) -> int:
        """Write what is left and close the file, in a thread because a disk may be slow: 0 or -errno."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()

        def close() -> None:
            rc = lib.core_capture_close(self.ptr)
            loop.call_soon_threadsafe(done.set_result, rc)

        thread = threading.Thread(target=close, name="capture-close", daemon=True)
        thread.start()
        rc = await done
        thread.join()
        self.free()
        return rc

    def free(self) -> None:
        lib.core_capture_free(self.ptr)
        self.ptr = ffi.NULL


class Capture:
    """Records from when something is added until it is closed. Without a path only for `async for`."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        buffer_bytes: int = BUFFER_BYTES,
        snap_bytes: int = SNAP_BYTES,
    ) -> None:
        self.path = None if path is None else Path(path)
        self._sizes = buffer_bytes, snap_bytes
        self._interfaces: list[tuple[str, str, Link, tuple[tuple[int, int, int], ...]]] = []
        self._closers: dict[Link, Callable[[], None]] = {}  # of links that are recorded now
        self._file: _Sink | None = None
        self._stream: _Sink | None = None
        self._ended = asyncio.Event()
        self._last_stats: dict[str, CaptureStats] = {}
        if self.path is not None:
            self._open_file(self.path)

    def _open_file(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise HostError(f"create {path}", exc.errno) from exc
        self._file = _Sink(*self._sizes, for_program=False)
        rc = lib.core_capture_write(self._file.ptr, fd)
        if rc < 0:
            os.close(fd)
            self._file.free()
            raise HostError(f"write {path}", -rc)

    # ---- what is captured --------------------------------------------------------------------------------------------

    def add(self, place: Link | Port | HasPort, *, name: str | None = None, comment: str = "") -> None:
        """Record a link as a whole (each frame once, where it gets in), or what an end of it sends and receives.

        An end is also named by what is joined there: a NIC, a back end. What is recorded already is not added again.
        """
        if self._ended.is_set():
            raise EmuError("this capture has ended")
        if isinstance(place, Link):
            link, taps = place, ((0, ENTRY, 2), (1, ENTRY, 1))
            label = name or link.name
        else:
            link, end = _link_of(place)
            taps = (end, ENTRY, 2), (1 - end, EXIT, 1)
            label = name or f"{link.name}:{'ab'[end]}"
        link.check_open()
        if link in self._closers and any((label, link, taps) == (each[0], *each[2:]) for each in self._interfaces):
            return
        for sink in self._sinks():
            _tap(sink, link, taps, label, comment)
        self._interfaces.append((label, comment, link, taps))
        if link not in self._closers:
            self._closers[link] = partial(self._forget, link)
            link.closers.append(self._closers[link])

    def remove(self, link: Link) -> None:
        """Record nothing of a link any more."""
        self._forget(link)

    def _forget(self, link: Link) -> None:
        closer = self._closers.pop(link, None)
        if closer is not None:
            with contextlib.suppress(ValueError):  # the link is closing
                link.closers.remove(closer)
        for sink in self._sinks():
            if link.ptr != ffi.NULL:
                lib.core_link_untap(link.ptr, sink.ptr)

    @property
    def stats(self) -> dict[str, CaptureStats]:
        """By interface, of the file where there is one."""
        sink = self._file or self._stream
        return self._last_stats if sink is None else self._read_stats(sink)

    def _read_stats(self, sink: _Sink) -> dict[str, CaptureStats]:
        seen, dropped = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        stats: dict[str, CaptureStats] = {}
        for index, (label, *_) in enumerate(self._interfaces):
            lib.core_capture_get_counts(sink.ptr, index, seen, dropped)
            before = stats.get(label, CaptureStats(0, 0))  # recorded, removed and added again
            stats[label] = CaptureStats(before.seen + int(seen[0]), before.dropped + int(dropped[0]))
        return stats

    # ---- packets for the program -------------------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[Packet]:
        """Packets from now on, until the capture is closed. One reader at a time."""
        if self._stream is not None:
            raise EmuError("somebody reads this capture already")
        self._stream = sink = _Sink(*self._sizes, for_program=True)
        for label, comment, link, taps in self._interfaces:
            _tap(sink, link, taps if link in self._closers else (), label, comment)
        try:
            async for packet in self._read(sink):
                yield packet
        finally:
            for _, _, link, _ in self._interfaces:
                if link.ptr != ffi.NULL:
                    lib.core_link_untap(link.ptr, sink.ptr)
            self._stream = None
            sink.free()

    async def _read(self, sink: _Sink) -> AsyncIterator[Packet]:
        loop, fd = asyncio.get_running_loop(), int(lib.core_capture_fd(sink.ptr))
        news = asyncio.Event()
        buffer = ffi.new("uint8_t[]", TAKE_BYTES)
        loop.add_reader(fd, news.set)
        ended = loop.create_task(self._ended.wait())
        ended.add_done_callback(lambda _: news.set())
        try:
            while True:
                last = self._ended.is_set()
                news.clear()
                size = int(lib.core_capture_take(sink.ptr, buffer, TAKE_BYTES))
                for packet in _packets(memoryview(ffi.buffer(buffer, size)), self._interfaces):
                    yield packet
                if size == 0:
                    if last:
                        return
                    await news.wait()
        finally:
            loop.remove_reader(fd)
            ended.cancel()

    # ---- life --------------------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Ended, and its file is whole or being completed."""
        return self._ended.is_set() and self._file is None

    def _sinks(self) -> Iterator[_Sink]:
        return (sink for sink in (self._file, self._stream) if sink is not None)

    def end(self) -> None:
        """Record nothing any more; readers get what there is and end. `close` also completes the file."""
        for link in tuple(self._closers):
            self._forget(link)
        self._ended.set()

    async def close(self) -> None:
        """End it and wait until the file is whole. HostError when it could not be written."""
        self.end()
        sink, self._file = self._file, None
        if sink is None:
            return
        self._last_stats = self._read_stats(sink)
        rc = await asyncio.shield(asyncio.ensure_future(sink.finish()))
        if rc < 0:
            raise HostError(f"write {self.path}", -rc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _link_of(place: Port | HasPort) -> tuple[Link, int]:
    """The link and which end of it: the port itself, or what it is joined to."""
    port = place if isinstance(place, Port) else place.port
    for end in (port, port.peer):
        if end is not None and isinstance(end.owner, Link):
            return end.owner, 0 if end is end.owner.a else 1
    raise EmuError(f"capture: this {port.kind} is not on a link (Machine.link puts one there)")


def _tap(sink: _Sink, link: Link, taps: tuple[tuple[int, int, int], ...], name: str, comment: str) -> None:
    number = lib.core_capture_interface(sink.ptr, name.encode(), comment.encode())
    if number < 0:
        raise HostError(f"capture {name}", -number)
    for direction, place, sense in taps:
        rc = lib.core_link_tap(link.ptr, direction, place, sink.ptr, number, sense)
        if rc < 0:
            raise HostError(f"capture {name}: too many captures of one link", -rc)


def _packets(records: memoryview, interfaces: list[Any]) -> deque[Packet]:
    """The records of one take."""
    packets: deque[Packet] = deque()
    at = 0
    while at < len(records):
        total, interface, time_ns, delay_ns, size, kept, flags, gso_type, gso_size = HEAD.unpack_from(records, at)
        data = bytes(records[at + HEAD.size : at + HEAD.size + kept])
        drop = flags >> DROP_SHIFT
        fate = {"duplicated": flags & DUPLICATE, "corrupted": flags & CORRUPT, "reordered": flags & LATE}
        packets.append(
            Packet(
                interface=interfaces[interface][0],
                time_ns=time_ns,
                data=data,
                size=size,
                inbound=bool(flags & 1),
                lost=DROPS[drop - 1] if drop else None,
                delay_ns=delay_ns,
                fate=frozenset(name for name, hit in fate.items() if hit),
                gso_size=gso_size if gso_type else 0,
                checksum_missing=bool(flags & NO_CSUM),
            )
        )
        at += total
    return packets
