"""The driver `file`: a regular file of the host. Every range of it is an extent; calls that block run on other threads.

The file may be changed, cut off or removed by others: what is missing of it within the size it had is an error (EIO),
never silence. Not here: block devices of the host (host_device).
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import mmap
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar, Generic, TypeVar

from aioemu._core import lib
from aioemu.blockdev.direct import fill, probe_alignment
from aioemu.blockdev.gate import Gate
from aioemu.blockdev.imagelock import ImageLock, can_lock
from aioemu.blockdev.newfile import ZEROES, FileCreateOptions, create_file
from aioemu.blockdev.node import SECTOR, SIZE_LIMIT, Creator, Extent, ExtentKind, Node, Opener
from aioemu.blockdev.options import NodeOptions, choice, number, text
from aioemu.blockdev.permissions import Permission
from aioemu.errors import ConfigError, HostError

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10  # linux/falloc.h
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENODEV, errno.ENOSYS, errno.EINVAL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions(NodeOptions):
    """`-blockdev driver=file`."""

    filename: str = text()
    locking: str = choice(("on", "off", "auto"), "auto")
    aio: str = choice(("threads", "native", "io_uring"), "threads")
    aio_max_batch: int = number(0, 0)


T = TypeVar("T", bound=FileOptions)
R = TypeVar("R")


class HostFile(Node[T], Generic[T]):
    """What a file and a host device have in common: a descriptor, and calls on it that do not block the loop."""

    grows: ClassVar[bool] = True

    def __init__(self, name: str, options: T) -> None:
        super().__init__(name, options)
        self.fd = -1
        self._end = 0  # of what the file has; `size` is in whole sectors, as devices see it
        self._discards = [0, 0, 0]  # done, not done, bytes
        self._lock: ImageLock | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._calls: set[Future[Any]] = set()
        self._flush_failed = False
        self._open_file: Callable[[str, int], int] = os.open
        self._gate = Gate()  # to reads and writes, closed while the descriptor is exchanged
        self._unaligned = asyncio.Lock()  # a part of a block is written by one at a time
        self._lengthening = threading.Lock()  # nobody cuts off what another thread has just put behind the end

    @property
    def filename(self) -> str:
        return self.options.filename.removeprefix("file:")

    # ---- life --------------------------------------------------------------------------------------------------------

    async def open(self, graph: Opener) -> None:
        if self.options.aio == "native" and not self.options.cache.direct:
            raise ConfigError(
                "aio=native was specified, but it requires cache.direct=on, which was not specified.", "aio"
            )
        self._open_file = graph.open_file
        self._threads = graph.threads
        await self._call(self._open_first)
        self.check_kind(os.fstat(self.fd))
        if self.options.locking == "on" or (self.options.locking == "auto" and can_lock(self.fd)):
            self._lock = ImageLock(self.fd, self.filename)
        self._end = await self._call(self.probe_size)
        self.size = _whole_sectors(self._end)
        if self.options.cache.direct:
            self.request_alignment = await self._call(probe_alignment, self.fd)

    def _open_first(self) -> None:
        """On another thread, which may be done when nobody waits for it any more: `close` finds the descriptor."""
        self.fd = self._open_fd(not self.read_only)

    def check_kind(self, status: os.stat_result) -> None:
        """ConfigError when what was opened is not this driver's."""
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("'file' driver requires '" + self.filename + "' to be a regular file", "filename")

    def probe_size(self) -> int:
        """The size, of the host; may block."""
        return os.fstat(self.fd).st_size

    async def close(self) -> None:
        if self.blocking:
            wait(tuple(self._calls))
        else:
            await self._idle()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def take(self, used: Permission, shared: Permission) -> None:
        if self._lock is not None:
            self._lock.take(used, shared)

    def settle(self, used: Permission, shared: Permission) -> None:
        if self._lock is not None and self.fd >= 0:
            self._lock.settle(used, shared)

    def check_reopen(self, options: T) -> None:
        """The file stays; how it is opened may change."""
        if options.filename != self.options.filename:
            raise ConfigError("Cannot change the option 'filename'", "filename")
        if options.locking != self.options.locking:
            raise ConfigError("Cannot change the option 'locking'", "locking")

    async def reopen(self, options: T) -> None:
        """Open the file again in the new way and put that in the place of the descriptor: extents stay as they are."""
        if options.cache.direct != self.options.cache.direct or options.read_only != self.options.read_only:
            before, self.options = self.options, options
            try:
                fd = await self._call(self._open_fd, not options.read_only)
            except BaseException:
                self.options = before
                raise
            try:
                alignment = await self._call(probe_alignment, fd) if options.cache.direct else 1
                async with self._unaligned:
                    with self._gate.closed():
                        await self._idle()  # what was prepared for one descriptor does not reach another kind of one
                        self._exchange(fd, alignment)
            finally:
                os.close(fd)
        await super().reopen(options)

    def _exchange(self, fd: int, alignment: int) -> None:
        self.changed(0, self.size)  # whoever was told of the descriptor asks how it is now
        if self._lock is not None:
            self._lock.move_to(fd)
        os.dup2(fd, self.fd, inheritable=False)
        self.request_alignment = alignment

    async def _idle(self) -> None:
        """Until the calls that are under way are done."""
        await asyncio.gather(*map(asyncio.wrap_future, tuple(self._calls)), return_exceptions=True)

    def _open_fd(self, writable: bool) -> int:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        if self.options.cache.direct:
            flags |= os.O_DIRECT
        try:
            return self._open_file(self.filename, flags)
        except OSError as exc:
            if writable and self.options.auto_read_only and exc.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
                self.read_only = True
                self.read_only_because = f"Could not open '{self.filename}': {exc.strerror}"
                return self._open_fd(False)
            if exc.errno == errno.EISDIR:
                raise ConfigError(f"'{self.driver}' driver requires '{self.filename}' to be a regular file") from exc
            raise HostError(f"Could not open '{self.filename}'", exc.errno) from exc

    # ---- data --------------------------------------------------------------------------------------------------------

    async def read(self, offset: int, size: int) -> bytes:
        await self._gate.enter()
        if self.request_alignment > 1:
            return await self._call(self._read_aligned, offset, size)
        return await self._call(self._read, offset, size)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_writable()
        view = memoryview(data).cast("B")  # not released here: a call that nobody waits for any more goes on with it
        length = len(view)
        if offset + length > SIZE_LIMIT:
            raise HostError(f"write {self.filename}", errno.EFBIG)
        await self._gate.enter()
        beyond = offset + length > self._end
        if self.request_alignment > 1:
            async with self._unaligned:
                await self._call(self._lengthen if beyond else self._write_aligned, offset, view)
        else:
            await self._call(self._lengthen if beyond else self._write, offset, view)
        self._grown(offset + length)

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        self._check_writable()
        modes = [PUNCH_HOLE | KEEP_SIZE] if unmap and self.options.discard == "unmap" else []
        modes.append(ZERO_RANGE)
        done = await self._allocate(modes, offset, size)
        if not done and offset + size <= self._end:  # what is not known of one is known of two
            done = await self._allocate([PUNCH_HOLE | KEEP_SIZE], offset, size) and await self._allocate(
                [0], offset, size
            )
        if not done:
            for at in range(offset, offset + size, len(ZEROES)):
                await self.write(at, memoryview(ZEROES)[: min(len(ZEROES), offset + size - at)])
        if offset + size > self._end:
            await self.grow(offset + size)

    async def discard(self, offset: int, size: int) -> None:
        if self.options.discard == "unmap" and not self.read_only:
            self._discarded(size, await self._allocate([PUNCH_HOLE | KEEP_SIZE], offset, size))

    async def flush(self) -> None:
        if self.options.cache.no_flush or self.read_only:
            return
        if self._flush_failed:  # the host has forgotten what it could not write: a second try would lie
            raise HostError(f"flush {self.filename}", errno.EIO)
        try:
            await self._call(os.fdatasync, self.fd)
        except HostError:
            self._flush_failed = True
            raise

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        """All of the file is one extent, holes too: the host reads them as zeroes and fills them when written.

        A last sector that is not whole is asked for: it reads as zeroes beyond its end, and grows when it is written.
        """
        whole = self._end - self._end % SECTOR
        if offset >= whole:
            return Extent(whole, self.size - whole, ExtentKind.ASK)
        return Extent(0, whole, ExtentKind.DATA, self.fd, 0, not self.read_only)

    async def resize(self, size: int) -> None:
        self._check_writable()
        await self._call(self._truncate, size)
        self._end = size
        self._set_size(_whole_sectors(size))

    async def grow(self, size: int) -> None:
        self._check_writable()
        await self._call(self._reach, size)
        self._grown(size)

    async def next_data(self, offset: int) -> tuple[int, int]:
        """The next range from `offset` on that is no hole, as start and end; both the size where none follows."""
        return await self._call(self._next_data, offset)

    async def allocated_bytes(self) -> int | None:
        return os.fstat(self.fd).st_blocks * 512

    def driver_figures(self) -> dict[str, Any] | None:
        names = ("discard-nb-ok", "discard-nb-failed", "discard-bytes-ok")
        return {"driver": self.driver, **dict(zip(names, self._discards, strict=True))}

    def _discarded(self, size: int, done: bool) -> None:
        self._discards[not done] += 1
        self._discards[2] += size if done else 0

    # ---- on other threads --------------------------------------------------------------------------------------------

    async def _call(self, call: Callable[..., R], *args: Any) -> R:
        """Run a call on another thread; `close` waits for it, whoever gave up waiting meanwhile."""
        if self.blocking:
            return self._named(call, *args)
        assert self._threads is not None
        future = self._threads.submit(self._named, call, *args)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return await asyncio.shield(asyncio.wrap_future(future))

    def _named(self, call: Callable[..., R], *args: Any) -> R:
        """Make a call; its error names the file."""
        try:
            return call(*args)
        except OSError as exc:
            raise HostError(f"{getattr(call, '__name__', 'access').strip('_')} {self.filename}", exc.errno) from exc

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self.fd, size, offset)
        if len(data) == size:
            return data
        pieces = [data]
        got = len(data)
        while got < size and data:
            data = os.pread(self.fd, size - got, offset + got)
            pieces.append(data)
            got += len(data)
        if offset + got < min(offset + size, self._end):
            raise OSError(errno.EIO, "the file has become shorter")
        return b"".join(pieces) + bytes(size - got)

    def _write(self, offset: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            count = os.pwrite(self.fd, data[done:], offset + done)
            if count == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += count

    def _lengthen(self, offset: int, data: memoryview) -> None:
        """Write beyond the end."""
        with self._lengthening:
            (self._write_aligned if self.request_alignment > 1 else self._write)(offset, data)

    def _truncate(self, size: int) -> None:
        with self._lengthening:
            os.ftruncate(self.fd, size)

    def _reach(self, size: int) -> None:
        with self._lengthening:
            if os.fstat(self.fd).st_size < size:
                os.ftruncate(self.fd, size)

    def _read_aligned(self, offset: int, size: int) -> bytes:
        start, end = self._around(offset, size)
        if start == end:
            return b""
        with mmap.mmap(-1, end - start) as block:
            got = fill(self.fd, block, start)
            if start + got < min(offset + size, self._end):
                raise OSError(errno.EIO, "the file has become shorter")
            return block[offset - start : offset - start + size]

    def _write_aligned(self, offset: int, data: memoryview) -> None:
        start, end = self._around(offset, len(data))
        if start == end:
            return
        with mmap.mmap(-1, end - start) as block:
            if start != offset or end != offset + len(data):
                fill(self.fd, block, start)
            block[offset - start : offset - start + len(data)] = data
            with memoryview(block) as whole:
                self._write(start, whole[: end - start])

    def _around(self, offset: int, size: int) -> tuple[int, int]:
        align = self.request_alignment
        return offset - offset % align, -(-(offset + size) // align) * align

    async def _allocate(self, modes: list[int], offset: int, size: int) -> bool:
        """The first of some ways of fallocate that the host knows; whether there was one."""
        for mode in modes:
            rc = await self._call(lib.core_file_allocate, self.fd, mode, offset, size) if size else 0
            if rc == 0:
                return True
            if -rc not in UNSUPPORTED:
                raise HostError(f"fallocate {self.filename}", -rc)
        return False

    def _next_data(self, offset: int) -> tuple[int, int]:
        size = os.fstat(self.fd).st_size
        try:
            start = os.lseek(self.fd, offset, os.SEEK_DATA)
            return start, os.lseek(self.fd, start, os.SEEK_HOLE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return size, size
            return offset, size  # the host cannot tell: all of it is data

    def _grown(self, end: int) -> None:
        """The file reaches at least this far now."""
        if end > self._end:
            ragged, self._end = self._end % SECTOR, end
            if ragged:
                self.changed(0, self.size)
            self._set_size(_whole_sectors(end))

    def _check_writable(self) -> None:
        if self.read_only:
            raise HostError(f"write {self.filename}", errno.EACCES)


class FileNode(HostFile[FileOptions]):
    """A regular file."""

    driver = "file"
    options_type = FileOptions
    create_type = FileCreateOptions

    def info(self) -> dict[str, Any]:
        return {**super().info(), "dirty-flag": False, "format-specific": {"type": "file", "data": {}}}

    @classmethod
    async def create(cls, graph: Creator, given: FileCreateOptions, progress: Any) -> None:
        """Make the file, or empty it; a file that a running guest has is locked, and stays as it is."""
        call = asyncio.get_running_loop().run_in_executor(None, create_file, given)
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            raise


def _whole_sectors(size: int) -> int:
    return -(-size // SECTOR) * SECTOR
