"""Limits on disks: groups that share them (`-object throttle-group`), and the filter `throttle`.

Buckets and turns are in the core (throttle.c), which the request engine asks without Python. Names, limits and words
are QEMU's. A limit is a rate in a second; with a maximum, bursts at that rate may last `length` seconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aioemu._core import ffi, lib
from aioemu.blockdev.node import Extent, ExtentKind, Node, Opener
from aioemu.blockdev.options import NodeOptions, child, text
from aioemu.config.grammar import did_you_mean, parse_number
from aioemu.errors import ConfigError, EmuError, HostError

KINDS = ("bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write")  # in the core's order
SHORT = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")  # the same in query-block
NAMES = (*KINDS, *(f"{kind}{tail}" for kind in KINDS for tail in ("-max", "-max-length")), "iops-size")
VALUE_MAX = 10**15
FOREVER_NS = (1 << 63) - 1


class ThrottleGroup:
    """Limits that some disks share."""

    def __init__(self, name: str, limits: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.users: list[str] = []  # disks and nodes
        self.limits: dict[str, int] = {}
        self.ptr = lib.core_throttle_new()
        if self.ptr == ffi.NULL:
            raise HostError(f"throttle group {name}", 12)
        try:
            self.set(limits or {})
        except BaseException:
            self.close()
            raise

    def set(self, limits: Mapping[str, Any]) -> None:
        """Have these limits, and no others, from now on. ConfigError when they contradict each other."""
        read = read_limits(limits)
        rates: Any = ffi.new("core_throttle_limits *")
        for at, kind in enumerate(KINDS):
            rates.average[at] = read.get(kind, 0)
            rates.maximum[at] = read.get(f"{kind}-max", 0)
            rates.burst_length[at] = read.get(f"{kind}-max-length", 1)
        rates.request_size = read.get("iops-size", 0)
        if lib.core_throttle_set(self.ptr, rates) < 0:
            raise ConfigError("bps/iops/max values must be within [0, 1000000000000000]")
        self.limits = read

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return any(self.limits.get(kind) for kind in KINDS)

    def told(self) -> dict[str, int]:
        """By the names of query-block, what is not set left out but for the six rates."""
        found = {short: self.limits.get(kind, 0) for kind, short in zip(KINDS, SHORT, strict=True)}
        for kind, short in zip(KINDS, SHORT, strict=True):
            if self.limits.get(f"{kind}-max"):
                found[f"{short}_max"] = self.limits[f"{kind}-max"]
                found[f"{short}_max_length"] = self.limits.get(f"{kind}-max-length", 1)
        return {**found, **({"iops_size": self.limits["iops-size"]} if self.limits.get("iops-size") else {})}

    def whole(self) -> dict[str, int]:
        """Every limit by its own name (QAPI's ThrottleLimits)."""
        return {name: self.limits.get(name, 1 if name.endswith("-length") else 0) for name in NAMES}

    def close(self) -> None:
        """Free it; nobody uses it any more."""
        if self.ptr != ffi.NULL:
            lib.core_throttle_free(self.ptr)
            self.ptr = ffi.NULL


class Throttles:
    """All groups of a machine by name: those of `-object`, and those that drives made."""

    def __init__(self) -> None:
        self._all: dict[str, ThrottleGroup] = {}
        self._objects: set[str] = set()

    def add(self, name: str, limits: Mapping[str, Any]) -> ThrottleGroup:
        """`-object throttle-group`."""
        if name in self._all:
            raise ConfigError(f"A group with this name already exists: {name}")
        group = self._all[name] = ThrottleGroup(name, limits)
        self._objects.add(name)
        return group

    def end(self, name: str) -> None:
        """The object goes. It is in nobody's use."""
        self._objects.discard(name)
        self._drop(name)

    def find(self, name: str) -> ThrottleGroup:
        """The group that a `throttle` node names."""
        if name not in self._all:
            raise ConfigError(f"Throttle group '{name}' does not exist{did_you_mean(name, self._all)}")
        return self._all[name]

    def join(self, name: str, user: str) -> ThrottleGroup:
        """A drive comes to a group, which is made if it is not there."""
        if name not in self._all:
            self._all[name] = ThrottleGroup(name)
        self._all[name].users.append(user)
        return self._all[name]

    def leave(self, group: ThrottleGroup, user: str) -> None:
        """A drive leaves; a group that only drives had goes with the last."""
        group.users.remove(user)
        self._drop(group.name)

    def close(self) -> None:
        """Free all; the disks are closed."""
        for group in self._all.values():
            group.close()
        self._all.clear()

    def _drop(self, name: str) -> None:
        group = self._all.get(name)
        if group is not None and not group.users and name not in self._objects:
            del self._all[name]
            group.close()


class Gate:
    """One disk's place in a group, for requests that go through Python."""

    def __init__(self, group: ThrottleGroup) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._member = lib.core_throttle_join_fd(group.ptr, self._fd)
        self._turns = (asyncio.Lock(), asyncio.Lock())  # reads and writes, each in the order they came
        self._rung = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._ring)

    async def enter(self, size: int, *, write: bool) -> None:
        """Return when a request of this size may go."""
        async with self._turns[write]:
            try:
                while wait_ns := lib.core_throttle_take(self._member, write, size, time.monotonic_ns()):
                    self._rung.clear()
                    timeout = None if wait_ns == FOREVER_NS else wait_ns / 1e9
                    try:
                        await asyncio.wait_for(self._rung.wait(), timeout)
                    except TimeoutError:
                        continue
            except asyncio.CancelledError:
                lib.core_throttle_give_up(self._member, write)
                raise

    def close(self) -> None:
        """Leave the group."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            lib.core_throttle_leave(self._member)
            os.close(self._fd)
            self._fd = -1

    def _ring(self) -> None:
        os.eventfd_read(self._fd)
        self._rung.set()


@dataclass(frozen=True, kw_only=True)
class ThrottleOptions(NodeOptions):
    """`-blockdev driver=throttle`."""

    throttle_group: str = text()
    file: Any = child()


class ThrottleNode(Node[ThrottleOptions]):
    """A filter whose requests wait for their group.

    Where a device is on top of it the request engine does the waiting; below another node all comes through here.
    """

    driver = "throttle"
    options_type = ThrottleOptions
    is_filter = True

    def __init__(self, name: str, options: ThrottleOptions) -> None:
        super().__init__(name, options)
        self.group: ThrottleGroup | None = None
        self._gate: Gate | None = None

    async def open(self, graph: Opener) -> None:
        await super().open(graph)
        self._use(graph.throttles.find(self.options.throttle_group))
        self._throttles = graph.throttles

    def check_reopen(self, options: ThrottleOptions) -> None:
        self._throttles.find(options.throttle_group)

    async def reopen(self, options: ThrottleOptions) -> None:
        await super().reopen(options)
        if self.group is not None and options.throttle_group != self.group.name:
            self._leave()
            self._use(self._throttles.find(options.throttle_group))
            self.changed(0, self.size)

    async def close(self) -> None:
        self._leave()

    async def read(self, offset: int, size: int) -> bytes:
        await self._enter(size, write=False)
        return await self.file.read(offset, size)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        await self._enter(len(data), write=True)
        await self.file.write(offset, data)

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        await self._enter(size, write=True)
        await self.file.write_zeroes(offset, size, unmap=unmap)

    async def discard(self, offset: int, size: int) -> None:
        await self._enter(size, write=True)
        await self.file.discard(offset, size)

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        return Extent(0, self.size, ExtentKind.ASK)

    async def _enter(self, size: int, *, write: bool) -> None:
        if self._gate is not None and not self.blocking:
            await self._gate.enter(size, write=write)

    def _use(self, group: ThrottleGroup) -> None:
        group.users.append(self.name)
        self.group, self._gate = group, Gate(group)

    def _leave(self) -> None:
        group, gate, self.group, self._gate = self.group, self._gate, None, None
        if gate is not None:
            gate.close()
        if group is not None:
            group.users.remove(self.name)


def read_limits(given: Mapping[str, Any]) -> dict[str, int]:
    """Limits by name, those that are not zero. ConfigError in QEMU's words when they cannot be."""
    limits: dict[str, int] = {}
    for name, value in given.items():
        if name not in NAMES:
            raise ConfigError(f"Parameter 'limits.{name}' is unexpected{did_you_mean(name, NAMES)}")
        number = parse_number(value) if isinstance(value, str) else value
        if not isinstance(number, int) or isinstance(number, bool):
            raise ConfigError(f"Parameter 'throttling.{name}' expects a number")
        limits[name] = number
    _check(limits)
    return {name: value for name, value in limits.items() if value}


def _check(limits: Mapping[str, int]) -> None:
    for family in ("bps", "iops"):
        for tail in ("", "-max"):
            if limits.get(f"{family}-total{tail}") and any(
                limits.get(f"{family}-{d}{tail}") for d in ("read", "write")
            ):
                raise ConfigError("bps/iops/max total values and read/write values cannot be used at the same time")
    if limits.get("iops-size") and not any(limits.get(kind) for kind in KINDS[3:]):
        raise ConfigError("iops size requires an iops value to be set")
    for kind in KINDS:
        average, maximum = limits.get(kind, 0), limits.get(f"{kind}-max", 0)
        length = limits.get(f"{kind}-max-length", 1)
        if not 0 <= average <= VALUE_MAX or not 0 <= maximum <= VALUE_MAX:
            raise ConfigError(f"bps/iops/max values must be within [0, {VALUE_MAX}]")
        if length < 1:
            raise ConfigError("the burst length cannot be 0")
        if length > 1 and not maximum:
            raise ConfigError("burst length set without burst rate")
        if maximum and length > VALUE_MAX // maximum:
            raise ConfigError("burst length too high for this burst rate")
        if maximum and not average:
            raise ConfigError("bps_max/iops_max require corresponding bps/iops values")
        if maximum and maximum < average:
            raise ConfigError("bps_max/iops_max cannot be lower than bps/iops")
    if not 0 <= limits.get("iops-size", 0) <= VALUE_MAX:
        raise EmuError(f"bps/iops/max values must be within [0, {VALUE_MAX}]")
