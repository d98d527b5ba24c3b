"""A block node: bytes by offset, on top of other nodes, and where those bytes sit in a file of the host.

A request is answered by coroutines here, or, for the request engine, not at all: `extent` tells it once which file and
offset a range has, until `changed` says that it is no longer so. A node trusts no image: what it reads there may be
anything. Not here: who may use a node for what (permissions), names and the graph (graph), one driver each elsewhere.
"""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from aioemu.blockdev.options import NodeOptions
from aioemu.blockdev.permissions import Edge, Permission, filter_wants
from aioemu.errors import ConfigError, HostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from aioemu.blockdev.throttle import Throttles

SECTOR = 512
REQUEST_LIMIT = (1 << 31) - SECTOR  # of one read or write, as QEMU's: what an int holds, in whole sectors
SIZE_LIMIT = (1 << 63) - (1 << 30)  # of a node: offsets stay below what an off_t holds, with room to align


class ExtentKind(IntEnum):
    """What a range is, in the numbers that the request engine uses."""

    DATA = 0  # at a host offset of a file
    ZERO = 1  # reads as zeroes; to write there, ask for the extent again with write=True
    NONE = 2  # in this node nothing: what is below shows through, or zeroes where nothing is below
    ASK = 3  # every request has to come through read, write, ...


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of a node's bytes that are all alike; it holds `offset` of the question, and may begin before it."""

    start: int
    length: int
    kind: ExtentKind
    fd: int = -1
    host_offset: int = 0  # of `start`
    writable: bool = False  # DATA may be written there too; else ask again with write=True before a write

    @property
    def end(self) -> int:
        return self.start + self.length

    def shifted(self, by: int) -> Extent:
        """The same bytes, as a parent sees them that has them `by` later."""
        return Extent(self.start + by, self.length, self.kind, self.fd, self.host_offset, self.writable)

    def within(self, start: int, end: int) -> Extent:
        """The part of it between two offsets, of which at least one byte must be in it."""
        first, last = max(start, self.start), min(end, self.end)
        host = self.host_offset + (first - self.start) if self.kind is ExtentKind.DATA else 0
        return Extent(first, last - first, self.kind, self.fd, host, self.writable)


class Parent(Protocol):
    """Who sits on a node: another node, or a device."""

    def describe(self) -> str:
        """Who this is, for messages: `node 'x'`, `block device 'y'`."""

    def child_changed(self, role: str, start: int, length: int) -> None:
        """Extents of the child that were told earlier are void in this range."""

    def child_resized(self, role: str, size: int) -> None:
        """The child has another size now."""


class Opener(Protocol):
    """What a node may ask of the graph while it opens."""

    @property
    def warn(self) -> Callable[..., None]:
        """Say something to the user (a format and its arguments)."""

    @property
    def event(self) -> Callable[..., None]:
        """Tell programs that something happened: its name and its fields."""

    @property
    def open_file(self) -> Callable[[str, int], int]:
        """Open a file of the host, or `/dev/fdset/N`: as os.open. Any thread."""

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Where calls go that may block: the disks of one machine share them, and no other's wait for them."""

    @property
    def throttles(self) -> Throttles:
        """The groups that limit disks."""

    def open_child(self, node: Node[Any], role: str, given: Any) -> Awaitable[Node[Any]]:
        """Open options (or find a node by its name) as a child of `node`, for what `node.wants(role)` says."""

    def open_backing(self, node: Node[Any], filename: str, driver: str | None) -> Awaitable[Node[Any]]:
        """Open the image that a header names, as the child `backing`: read-only, a relative name beside the image."""


class Creator(Protocol):
    """What an image that is being made may ask of the graph."""

    def find(self, name: str) -> Node[Any]:
        """A node by its name."""

    def open(self, given: Any) -> Awaitable[Node[Any]]:
        """Open options as a node of nobody: `release` it."""

    def release(self, node: Node[Any]) -> Awaitable[None]:
        """Close a node that nobody holds."""

    def attach(self, parent: Parent, role: str, child: Node[Any], used: Permission, shared: Permission) -> Edge:
        """Put a parent on a node. ConfigError when others do not allow what it does."""

    def detach(self, edge: Edge) -> None:
        """Take a parent away."""


T = TypeVar("T", bound=NodeOptions)


class Node(Generic[T]):
    """Base of all drivers, and a filter that passes everything to its child `file`.

    Offsets and sizes given to `read`, `write` and so on lie within `size` (whoever asks checks that: `check_range`);
    only a node that `grows` takes writes beyond it. Bytes of a node that grows read as zeroes beyond its size.
    `children` is filled by the graph from the options before `open`; the graph closes children after `close`.
    """

    driver: ClassVar[str]
    options_type: ClassVar[type[NodeOptions]] = NodeOptions
    is_filter: ClassVar[bool] = False  # shows its child's bytes as they are
    is_format: ClassVar[bool] = False  # an image format: its bytes are not its child's
    grows: ClassVar[bool] = False  # writes beyond the end make it longer
    file_role: ClassVar[str] = "file"  # what the child called `file` here is called in the options
    create_type: ClassVar[type[Any] | None] = None  # what `create` takes, where images can be made

    def __init__(self, name: str, options: T) -> None:
        self.name = name
        self.options = options
        self.read_only = options.read_only
        self.read_only_because = ""  # the host's reason, where it was not asked for
        self.inherits_from: Node[Any] | None = None  # the parent whose options held this node's own, and ...
        self.explicit: Mapping[str, Any] = {}  # ... what they said of it: the rest follows the parent
        self.children: dict[str, Node[Any]] = {}
        self.parents: list[Edge] = []
        self.size = 0
        self.request_alignment = 1  # of offset, length and memory, where the host insists on it (O_DIRECT)
        self.opened = False
        self.implicit = False  # made by an option of a drive: not what the user calls the disk
        self.blocking = False  # the end, which nobody can wait for: calls block the loop

    # ---- life --------------------------------------------------------------------------------------------------------

    async def open(self, graph: Opener) -> None:
        """Get ready; the children are open. HostError or ConfigError when that cannot be."""
        self.size = self.file.size
        self.request_alignment = self.file.request_alignment

    async def close(self) -> None:
        """Write back what is held and let go of everything. Called once, also after an `open` that failed."""

    @classmethod
    async def create(cls, graph: Creator, given: Any, progress: Any) -> None:
        """Make an image (`given` is a `create_type`); `progress` has `current` and `total` to set."""
        raise ConfigError("Driver does not support blockdev-create")

    def check_reopen(self, options: T) -> None:
        """ConfigError when the node cannot change to these options while it is in use."""

    async def reopen(self, options: T) -> None:
        """Take on the checked options (read-only, cache mode, the driver's own)."""
        self.options = options
        self.read_only = options.read_only

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """No change of this node is under way, and none begins, until the block ends."""
        yield

    def wants(self, role: str, used: Permission, shared: Permission) -> tuple[Permission, Permission]:
        """What this node does with a child and lets others do, when its own parents do `used` and let do `shared`.

        The base is a filter's answer; the others are in `permissions`: metadata_wants, data_wants, backing_wants.
        """
        return filter_wants(used, shared)

    def take(self, used: Permission, shared: Permission) -> None:
        """The parents will do this with the node, and let others do that: lock what is needed beyond what is held."""

    def settle(self, used: Permission, shared: Permission) -> None:
        """This is how it stays: let go of locks that are not needed."""

    # ---- data --------------------------------------------------------------------------------------------------------

    async def read(self, offset: int, size: int) -> bytes:
        """The bytes of a range. HostError(errno)."""
        return await self.file.read(offset, size)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put bytes there; on the disk for good after the next `flush`."""
        await self.file.write(offset, data)

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        """Make a range read as zeroes; with `unmap` its space may be given back."""
        await self.file.write_zeroes(offset, size, unmap=unmap)

    async def discard(self, offset: int, size: int) -> None:
        """The contents of a range do not matter any more: advice, never an error where it cannot be taken."""
        await self.file.discard(offset, size)

    async def flush(self) -> None:
        """All that was written is on the disk when this returns."""
        await self.file.flush()

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        """Where the byte at `offset` sits, and as much around it as is alike (`size` is how much would be useful).

        With `write` a range without a place of its own is given one first: the answer is writable DATA, or ASK.
        """
        return await self.file.extent(offset, size, write=write)

    async def resize(self, size: int) -> None:
        """Cut off, or grow with zeroes."""
        await self.file.resize(size)
        self._set_size(self.file.size)

    async def grow(self, size: int) -> None:
        """Be this long at least; what others write behind the end meanwhile stays, as it would not with `resize`."""
        if self.is_filter:
            await self.file.grow(size)
            self._set_size(self.file.size)
        elif size > self.size:
            await self.resize(size)

    def debug_event(self, event: str) -> None:
        """A parent is about to do what QAPI's BlkdebugEvent calls so; only `blkdebug` listens."""

    # ---- looking -----------------------------------------------------------------------------------------------------

    @property
    def file(self) -> Node[Any]:
        return self.children[self.file_role]

    @property
    def backing(self) -> Node[Any] | None:
        return self.children.get("backing")

    @property
    def filename(self) -> str:
        """What a user calls the image: a path, or `json:{...}` where no path says it."""
        return self.file.filename if self.file_role in self.children else ""

    def info(self) -> dict[str, Any]:
        """Facts about the image by the names of QAPI's ImageInfo, its own ones under `format-specific`."""
        return {"virtual-size": self.size}

    def driver_figures(self) -> dict[str, Any] | None:
        """What it has done, by the names of QAPI's BlockStatsSpecific for this driver."""
        return None

    def highest_below(self, highest: int) -> int:
        """How far `file` was written, where this node was written up to (highest)."""
        return highest

    async def allocated_bytes(self) -> int | None:
        """How much of the host's disk it takes, where that can be known."""
        return await self.file.allocated_bytes() if self.file_role in self.children else None

    # ---- towards the parents -----------------------------------------------------------------------------------------

    def describe(self) -> str:
        return f"node '{self.name}'"

    def changed(self, start: int, length: int) -> None:
        """Extents told earlier are void in this range of this node: every parent learns it, at once."""
        for edge in tuple(self.parents):
            edge.parent.child_changed(edge.role, start, length)

    def child_changed(self, role: str, start: int, length: int) -> None:
        """Extents of a child are void: by default those of the same range here."""
        self.changed(start, length)

    def child_resized(self, role: str, size: int) -> None:
        """A child's size is another: a filter's is the same."""
        if self.is_filter and role == self.file_role:
            self._set_size(size)

    def _set_size(self, size: int) -> None:
        """Have another size, and tell the parents."""
        if size == self.size:
            return
        low, high = sorted((size, self.size))
        self.size = size
        self.changed(low, high - low)
        for edge in tuple(self.parents):
            edge.parent.child_resized(edge.role, size)


def check_range(node: Node[Any], offset: int, size: int) -> None:
    """HostError(EIO) unless a request lies within the node, in the words of QEMU's block layer."""
    if not 0 <= offset <= node.size or not 0 <= size <= node.size - offset:
        raise HostError(f"{node.describe()}: {size} bytes at {offset} are beyond its end at {node.size}", errno.EIO)
