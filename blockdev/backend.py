"""What a device has of the block graph: the node on top, what it may do there, and what happens when the disk fails.

A backend comes from `-drive` (with a name) or is made for a device whose `drive=` names a node. Requests of the guest
that the request engine does not answer come through it as coroutines; each is checked against the disk's size here.
Not here: which device has which backend (machine), the engine, limits (throttle).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from aioemu.blockdev.node import Extent, ExtentKind, Node, check_range
from aioemu.blockdev.permissions import Edge, Permission
from aioemu.blockdev.throttle import KINDS, ThrottleGroup, ThrottleNode, read_limits
from aioemu.errors import ConfigError, EmuError, HostError

if TYPE_CHECKING:
    from aioemu.blockdev.graph import Graph

ErrorPolicy = Literal["report", "ignore", "enospc", "stop"]
POLICIES = ("report", "ignore", "enospc", "stop")


def _nothing(*args: Any) -> None:
    """Nobody listens."""


class Backend:
    """A device's side of a node. `name` is the drive's id, empty where a node was named."""

    def __init__(self, graph: Graph, name: str = "") -> None:
        self.graph = graph
        self.name = name
        self._joined = ""  # how the group knows it
        self.device: str | None = None  # path of the device that has it
        self.rerror: ErrorPolicy = "report"
        self.werror: ErrorPolicy = "enospc"
        self.writeback = True  # what the device tells the guest of a write cache, unless told otherwise
        self.edge: Edge | None = None
        self.on_changed: Callable[[int, int], None] = _nothing  # extents told earlier are void (start, length)
        self.on_resized: Callable[[int], None] = _nothing
        self.tells_status = False  # the device stops the machine at some errors
        self.io_status = "ok"  # or "nospace", "failed": of the last error that stopped the machine
        self.group: ThrottleGroup | None = None  # of the drive itself
        self.on_limits: Callable[[], None] = _nothing  # `throttles` has others now
        self.figures: Callable[[], Mapping[str, int]] = dict  # what was done, by the names of QAPI's BlockDeviceStats

    # ---- life --------------------------------------------------------------------------------------------------------

    def insert(self, node: Node[Any]) -> None:
        """Put a node into the drive: it lives as long as the backend, and bars nobody while no device has the drive."""
        self.edge = self.graph.attach(self, "root", node, Permission.NONE)

    def attach(self, device: str, *, share_rw: bool = False, resizable: bool = True) -> None:
        """A device takes the disk: nobody else writes, unless all agree to share."""
        if self.device is not None:
            raise ConfigError(f"Drive '{self.name}' is already in use by another device")
        if self.edge is None:
            raise ConfigError("Device needs media, but drive is empty")
        self.device = device
        shared = Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED
        shared |= Permission.RESIZE if resizable else Permission.NONE
        shared |= Permission.WRITE if share_rw else Permission.NONE
        used = Permission.CONSISTENT_READ | (Permission.NONE if self.read_only else Permission.WRITE)
        try:
            self.graph.permit(self.edge, used, shared)
        except BaseException:
            self.device = None
            raise

    def detach(self) -> None:
        """The device is gone: what it told of itself is forgotten."""
        self.device = None
        self.tells_status = False
        self.on_changed = self.on_resized = self.on_limits = _nothing
        if self.edge is not None:
            self.graph.permit(self.edge, Permission.NONE, Permission.ALL)

    def eject(self) -> Node[Any] | None:
        """Let go of the node; whoever calls this releases it."""
        self.leave_group()
        edge, self.edge = self.edge, None
        if edge is None:
            return None
        self.graph.detach(edge)
        return edge.child

    def describe(self) -> str:
        who = self.name or self.device
        return f"block device '{who}'" if who else "an unnamed block device"

    def child_changed(self, role: str, start: int, length: int) -> None:
        self.on_changed(start, length)

    def child_resized(self, role: str, size: int) -> None:
        self.on_resized(size)

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node[Any]:
        """The node on top. EmuError where there is none."""
        if self.edge is None:
            raise EmuError(f"{self.describe()} has no medium")
        return self.edge.child

    @property
    def size(self) -> int:
        return self.node.size

    @property
    def read_only(self) -> bool:
        return self.node.read_only

    @property
    def request_alignment(self) -> int:
        return self.node.request_alignment

    def limits(self) -> dict[str, Any]:
        """What is allowed in a second, by the names of QAPI's BlockDeviceInfo; empty without limits."""
        if self.group is None or not self.group.limited:
            return {}
        return {**self.group.told(), "group": self.group.name}

    def set_limits(self, group_name: str | None, limits: Mapping[str, Any]) -> None:
        """Have other limits (block_set_io_throttle): all zero is none, and leaves the group."""
        read = read_limits(limits)
        throttles = self.graph.throttles
        if not any(read.get(kind) for kind in KINDS):
            self.leave_group()
            return
        name = group_name or (self.group.name if self.group is not None else self.name or self.device or "")
        if self.group is not None and self.group.name != name:
            self.leave_group()
        if self.group is None:
            self.group = throttles.join(name, self.describe())
            self._joined = self.describe()
            self.on_limits()
        self.group.set(limits)

    def leave_group(self) -> None:
        """No limits any more."""
        group, self.group = self.group, None
        if group is not None:
            self.on_limits()
            self.graph.throttles.leave(group, self._joined)

    @property
    def throttles(self) -> list[ThrottleGroup]:
        """The groups that every request has to pass, those of `throttle` nodes on top included."""
        found = [] if self.group is None else [self.group]
        node = self.node
        while isinstance(node, ThrottleNode) and node.group is not None:
            found.append(node.group)
            node = node.file
        return found

    @property
    def _top(self) -> Node[Any]:
        """Where requests go: below the limits, which are the device's to keep."""
        node = self.node
        while isinstance(node, ThrottleNode):
            node = node.file
        return node

    # ---- requests ----------------------------------------------------------------------------------------------------

    async def read(self, offset: int, size: int) -> bytes:
        check_range(self.node, offset, size)
        return await self._top.read(offset, size)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_write(offset, len(data))
        options = self.node.options
        if options.detect_zeroes != "off" and _all_zeroes(data):
            await self._top.write_zeroes(offset, len(data), unmap=options.detect_zeroes == "unmap")
        else:
            await self._top.write(offset, data)

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        self._check_write(offset, size)
        await self._top.write_zeroes(offset, size, unmap=unmap)

    async def discard(self, offset: int, size: int) -> None:
        self._check_write(offset, size)
        await self._top.discard(offset, size)

    async def flush(self) -> None:
        await self._top.flush()

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        """Where a range sits, for the request engine; ASK where each request has to come through here."""
        node = self.node
        check_range(node, offset, 1)
        if node.options.detect_zeroes != "off" and not self.read_only:
            return Extent(0, node.size, ExtentKind.ASK)
        return await self._top.extent(offset, size, write=write)

    def _check_write(self, offset: int, size: int) -> None:
        check_range(self.node, offset, size)
        if self.read_only:
            raise HostError(f"{self.describe()}: write to a read-only disk", errno.EPERM)


def _all_zeroes(data: bytes | bytearray | memoryview) -> bool:
    """Whether there is nothing but zeroes."""
    return not bytes(data).strip(b"\0")
