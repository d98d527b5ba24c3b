"""The request engine as the block graph sees it: native code runs a disk's requests, and asks here what it cannot know.

It asks where a range sits, once; what has to pass through Python (compressed clusters, copy-on-read, discards) goes
through the backend, a request at a time. An answer that comes after a reset is refused by number. Not here: rings and
requests (`core/blk*.c`), the device around it, and what the machine does when a disk fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioemu._core import ffi, lib
from aioemu.blockdev.file import HostFile
from aioemu.blockdev.node import ExtentKind
from aioemu.errors import EmuError, HostError
from aioemu.log import Log

if TYPE_CHECKING:
    from aioemu.blockdev.backend import Backend
    from aioemu.blockdev.node import Node

PYTHON_FLUSHES, NOTHING_TO_FLUSH = -1, -2
LOG = Log("block")
TRIES, AT_ONCE = 10_000, 8  # of an answer that was void before it arrived; without letting others go on
AT_A_TURN = 64  # questions answered before others on the loop have their turn
AT_ONCE_IN_PYTHON = 64  # requests: bounds what a guest with many queues can make the loop hold, a MiB each
ACTIONS = {"report": 0, "ignore": 1, "stop": 2, "enospc": 3}  # core_blk_action
NAMES = tuple(ACTIONS)
EXTENTS = (lib.CORE_BLK_ASK_EXTENT, lib.CORE_BLK_ASK_AHEAD)
KINDS = ("rd", "wr", "flush", "unmap")  # of requests, as they are counted


class DiskShape(Struct, frozen=True):
    """What a device says of its disk beyond the backend's size."""

    block_size: int = 512
    max_discard: int = 0  # sectors of one request; 0: not offered
    max_zeroes: int = 0
    serial: bytes = b""
    rerror: str = "report"
    werror: str = "enospc"


class DiskError(Struct, frozen=True):
    """A request that failed, and what was done about it: report, ignore or stop."""

    is_write: bool
    errno: int
    action: str
    offset: int


class Engine:
    """The engine of one virtio chip over one backend, in the I/O context `io`. Made and used on the loop's thread."""

    def __init__(self, chip: Any, io: Any, backend: Backend, shape: DiskShape) -> None:
        self.backend = backend
        self.shape = shape
        self.on_error: Callable[[DiskError], None] = lambda error: None
        made = lib.core_blk_new(chip, io)
        if made == ffi.NULL:
            raise HostError("a disk's request engine: no more descriptors or memory")
        self.ptr = made
        self._ask: Any = ffi.new("core_blk_ask *")
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_full = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = lib.core_blk_ask_fd(made)
        self._limits: list[Any] = []
        self._mistakes: set[type[Exception]] = set()
        backend.on_changed = self._changed
        backend.on_limits = self._limit
        backend.figures = self._figures
        backend.tells_status = shape.werror in ("enospc", "stop") or shape.rerror == "stop"
        self.refresh()

    # ---- for the device ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The driver drives the device."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._fd, self._asked)
        rc = lib.core_blk_start(self.ptr)
        if rc < 0:
            raise HostError("serve a disk's queues", -rc)

    def stop(self) -> None:
        """Forget every request; no guest memory is touched any more when this returns."""
        if self.ptr != ffi.NULL:
            lib.core_blk_stop(self.ptr)

    def queue_off(self, index: int, reset: bool) -> None:
        """The driver takes a queue back: forget its requests; none of them touches guest memory any more."""
        if self.ptr != ffi.NULL:
            lib.core_blk_queue_off(self.ptr, index, reset)

    def hold(self) -> None:
        """The machine stands still: what is with the kernel comes back first, the rest waits."""
        lib.core_blk_hold(self.ptr, 1)

    def go_on(self) -> None:
        """The machine goes on; what failed and stopped it is tried again."""
        self.backend.io_status = "ok"
        lib.core_blk_hold(self.ptr, 0)

    def set_writethrough(self, on: bool) -> None:
        """Whether each write is on the disk for good before the guest hears of it."""
        lib.core_blk_set_writethrough(self.ptr, on)

    def bell(self, queue: int) -> int:
        """The eventfd for a queue's notifications."""
        return int(lib.core_blk_bell_fd(self.ptr, queue))

    def stats(self) -> dict[str, list[int]]:
        """Operations, bytes and nanoseconds of reads, writes, flushes, others; failures of reads and writes."""
        counts: Any = ffi.new("core_blk_counts *")
        lib.core_blk_stats(self.ptr, counts)
        found = {name: list(getattr(counts, name)) for name in ("ops", "bytes", "ns", "failed")}
        return {**found, **{name: [int(getattr(counts, name))] for name in ("refused", "highest", "last_ns")}}

    def refresh(self) -> None:
        """Take on the backend's size, files and policies as they are now."""
        disk: Any = ffi.new("core_blk_disk *")
        disk.size = self.backend.size
        disk.block_size = self.shape.block_size
        disk.max_discard, disk.max_zeroes = self.shape.max_discard, self.shape.max_zeroes
        disk.read_only = self.backend.read_only
        disk.on_read_error, disk.on_write_error = ACTIONS[self.shape.rerror], ACTIONS[self.shape.werror]
        disk.flush_fd = flush_fd(self.backend.node)
        disk.use_uring = wants_uring(self.backend.node)
        disk.serial = self.shape.serial[:20].ljust(20, b"\0")
        lib.core_blk_set_disk(self.ptr, disk)
        self._limit()

    def close(self) -> None:
        """Free it; may be called twice."""
        if self.ptr == ffi.NULL:
            return
        for task in tuple(self._tasks):
            task.cancel()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        lib.core_blk_free(self.ptr)
        self.ptr = ffi.NULL

    # ---- what the native part asks -----------------------------------------------------------------------------------

    def _changed(self, start: int, length: int) -> None:
        """The graph: extents told earlier are void. Nothing uses them any more when this returns."""
        if self.ptr != ffi.NULL:
            lib.core_blk_void(self.ptr, start, length)
            if self.backend.edge is not None:
                self.refresh()

    def _limit(self) -> None:
        """The groups that limit the disk may be others now."""
        groups = [group.ptr for group in self.backend.throttles] if self.backend.edge is not None else []
        if self.ptr == ffi.NULL or groups == self._limits:
            return
        rc = lib.core_blk_set_limits(self.ptr, ffi.new("core_throttle *[]", groups), len(groups))
        if rc < 0:
            raise HostError(f"limits of {self.backend.describe()}", -rc)
        self._limits = groups

    def _figures(self) -> dict[str, int]:
        """What was done, by the names of QAPI's BlockDeviceStats."""
        if self.ptr == ffi.NULL:
            return {}
        stats = self.stats()
        found = {f"{kind}_operations": stats["ops"][at] for at, kind in enumerate(KINDS)}
        found |= {f"{kind}_total_time_ns": stats["ns"][at] for at, kind in enumerate(KINDS)}
        found |= {f"{kind}_bytes": stats["bytes"][at] for at, kind in enumerate(KINDS) if kind != "flush"}
        found |= {"failed_rd_operations": stats["failed"][0], "failed_wr_operations": stats["failed"][1]}
        if stats["last_ns"][0]:
            found["idle_time_ns"] = max(time.monotonic_ns() - stats["last_ns"][0], 0)
        return found | {"wr_highest_offset": stats["highest"][0]}

    def _asked(self) -> None:
        with contextlib.suppress(BlockingIOError):  # rung once, and looked at already
            os.eventfd_read(self._fd)
        for _ in range(AT_A_TURN):
            self._is_full = len(self._tasks) >= AT_ONCE_IN_PYTHON
            if self._is_full or self.ptr == ffi.NULL or lib.core_blk_next_ask(self.ptr, self._ask) != 1:
                return
            ask = self._ask
            if ask.kind == lib.CORE_BLK_ASK_ERROR:
                self._failed(DiskError(bool(ask.write), int(ask.error), NAMES[ask.action], int(ask.offset)))
                continue
            work = self._serve(int(ask.id), int(ask.kind), int(ask.offset), int(ask.size), bool(ask.write), ask.unmap)
            if ask.kind in EXTENTS:
                try:
                    waits_for = work.send(None)  # most need not wait: a task would cost as much as the answer
                except StopIteration:
                    continue
                work = _go_on(work, waits_for)
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._answered)
        if self.ptr != ffi.NULL:
            os.eventfd_write(self._fd, 1)  # there may be more

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._is_full and self.ptr != ffi.NULL:
            self._asked()

    def _failed(self, error: DiskError) -> None:
        if error.action == "stop":
            self.backend.io_status = "nospace" if error.errno == errno.ENOSPC else "failed"
        self.on_error(error)

    async def _serve(self, number: int, kind: int, offset: int, size: int, write: bool, unmap: int) -> None:
        data = b""
        failed = 0
        try:
            data = await self._do(number, kind, offset, size, write, bool(unmap))
        except HostError as exc:
            failed = exc.errno or errno.EIO
        except (EmuError, OSError):
            failed = errno.EIO
        except Exception as exc:  # a mistake here is no reason for a guest to wait for ever
            failed = errno.EIO
            self._mistaken(exc)
        if self.ptr != ffi.NULL:
            lib.core_blk_answer(self.ptr, number, failed, data, len(data))

    def _mistaken(self, exc: Exception) -> None:
        """Say once where something went wrong that should not have."""
        if type(exc) not in self._mistakes:
            self._mistakes.add(type(exc))
            LOG.exception("%s: %r", self.backend.describe(), exc)

    async def _do(self, number: int, kind: int, offset: int, size: int, write: bool, unmap: bool) -> bytes:
        backend = self.backend
        if kind in EXTENTS:
            await self._find(offset, size, write, kind == lib.CORE_BLK_ASK_AHEAD)
        elif kind == lib.CORE_BLK_ASK_READ:
            return await backend.read(offset, size)
        elif kind == lib.CORE_BLK_ASK_WRITE:
            data = ffi.new("uint8_t[]", size)
            if lib.core_blk_ask_data(self.ptr, number, data, size) == 0:
                await backend.write(offset, ffi.buffer(data, size)[:])
        elif kind == lib.CORE_BLK_ASK_FLUSH:
            await backend.flush()
        elif kind == lib.CORE_BLK_ASK_DISCARD:
            await backend.discard(offset, size)
        else:
            await backend.write_zeroes(offset, size, unmap=unmap)
        return b""

    async def _find(self, offset: int, size: int, write: bool, ahead: bool) -> None:
        """Learn where a range sits. What was voided while the graph answered is asked for again."""
        for tries in range(TRIES):
            if tries >= AT_ONCE:  # others change their ranges all the time: they come to an end
                await asyncio.sleep(0)
                if self.ptr == ffi.NULL:
                    return
            voids = lib.core_blk_voids(self.ptr)
            e = await self.backend.extent(offset, size, write=write)
            if self.ptr == ffi.NULL or (ahead and e.kind is ExtentKind.ASK):
                return
            kind, place = int(e.kind), (e.fd, e.host_offset) if e.kind is ExtentKind.DATA else (-1, 0)
            rc = lib.core_blk_extent(self.ptr, voids, kind, e.start, e.length, *place, e.writable)
            if rc != -errno.EAGAIN:
                if rc < 0:
                    raise HostError(f"{self.backend.describe()}: extent at {offset}", -rc)
                return
        raise HostError(f"{self.backend.describe()}: extent at {offset}", errno.EIO)


async def _go_on(work: Coroutine[Any, Any, None], waits_for: Any) -> None:
    """What is left of a coroutine that was begun without a task and waits for something."""
    await _steps(work, waits_for)


@coroutine
def _steps(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    while True:
        try:
            got = yield waits_for
        except BaseException as exc:
            step: Callable[[Any], Any] = work.throw
            given: Any = exc
        else:
            step, given = work.send, got
        try:
            waits_for = step(given)
        except StopIteration:
            return


def flush_fd(node: Node[Any]) -> int:
    """The one file whose fdatasync is all that a flush of this node is, where there is one."""
    while node.driver in ("raw", "throttle"):
        node = node.file
    if not isinstance(node, HostFile):
        return PYTHON_FLUSHES
    return NOTHING_TO_FLUSH if node.options.cache.no_flush or node.read_only else node.fd


def wants_uring(node: Node[Any]) -> bool:
    """Whether the file below is to be accessed by io_uring where a call would wait (aio=io_uring or native)."""
    while "file" in node.children:
        node = node.file
    return getattr(node.options, "aio", "threads") != "threads"
