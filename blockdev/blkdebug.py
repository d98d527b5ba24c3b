"""The filter `blkdebug`: requests that fail or take their time on purpose, for tests of what is above it.

`inject-error` and `set-state` are QEMU's: rules that events of the parents make active, for a sector and kinds of
requests, once or always. `aioemu-faults` are our own: by the number of a request and by the time since the node was
opened, errors or delays. Every request comes through here; events that no driver here fires are refused by name.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aioemu.blockdev.node import SECTOR, Extent, ExtentKind, Node, Opener
from aioemu.blockdev.options import NodeOptions, anything, child, choice, flag, number, read_options, text
from aioemu.blockdev.patience import in_own_thread
from aioemu.config.grammar import did_you_mean
from aioemu.config.inifile import Group, read_groups
from aioemu.errors import ConfigError, HostError

READ, WRITE, ZEROES, DISCARD, FLUSH = IOTYPES = ("read", "write", "write-zeroes", "discard", "flush")
EVENTS = (  # of QAPI's BlkdebugEvent, those that happen: here, in raw and copy-on-read, in qcow2
    *("none", "pwritev", "pwritev_zero", "pwritev_done", "flush_to_os", "flush_to_disk"),
    *("read_aio", "write_aio", "cor_write"),
    *("read_backing_aio", "read_compressed", "cow_read", "cow_write", "cluster_alloc", "cluster_alloc_space"),
    *("cluster_free", "l1_update", "l2_load", "l2_update", "l2_alloc_cow_read", "l2_alloc_write"),
    *("l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table"),
    *("l1_shrink_write_table", "l1_shrink_free_l2_clusters", "reftable_load", "reftable_grow"),
    *("refblock_load", "refblock_update_part", "refblock_alloc", "refblock_alloc_hookup"),
    *("refblock_alloc_write_blocks", "refblock_alloc_write_table", "refblock_alloc_switch_table"),
)
MS = 1000


@dataclass(frozen=True, kw_only=True)
class ErrorRule:
    """`inject-error`: once `event` happened in `state`, requests fail."""

    event: str = choice(EVENTS)
    state: int = number(0)
    iotype: str | None = choice(IOTYPES, None)
    errno: int = number(errno.EIO, 1, 4095)
    sector: int = number(-1)
    once: bool = flag()
    immediately: bool = flag()


@dataclass(frozen=True, kw_only=True)
class StateRule:
    """`set-state`: when `event` happens in `state`, the state is another."""

    event: str = choice(EVENTS)
    state: int = number(0)
    new_state: int = number(name="new_state")


@dataclass(frozen=True, kw_only=True)
class FaultRule:
    """`aioemu-faults`: of the requests that match, those after the first `after`, `times` of them (0: all)."""

    iotype: str | None = choice(IOTYPES, None)
    sector: int = number(-1)
    sectors: int = number(1, 1)
    after: int = number(0, 0)
    times: int = number(0, 0)
    from_ms: int = number(0, 0)
    until_ms: int | None = number(None, 0)
    errno: int = number(0, 0, 4095)
    delay_ms: int = number(0, 0)


@dataclass(frozen=True, kw_only=True)
class BlkdebugOptions(NodeOptions):
    """`-blockdev driver=blkdebug`."""

    image: Any = child()
    inject_error: Any = anything(shape=[[ErrorRule]])
    set_state: Any = anything(shape=[[StateRule]])
    aioemu_faults: Any = anything(shape=[[FaultRule]])
    align: int = number(0, 0)
    config: str | None = text(None)


class BlkdebugNode(Node[BlkdebugOptions]):
    """The filter; its child is called `image`."""

    driver = "blkdebug"
    options_type = BlkdebugOptions
    is_filter = True
    file_role = "image"

    def __init__(self, name: str, options: BlkdebugOptions) -> None:
        super().__init__(name, options)
        self.errors = _rules("inject-error", ErrorRule, options.inject_error)
        self.states = _rules("set-state", StateRule, options.set_state)
        self.faults = [Fault(rule) for rule in _rules("aioemu-faults", FaultRule, options.aioemu_faults)]
        self.state = 1
        self._active: list[ErrorRule] = []
        self._opened_at = time.monotonic()

    @property
    def filename(self) -> str:
        return f"blkdebug::{self.file.filename}"

    async def open(self, graph: Opener) -> None:
        if self.options.config is not None:  # a FIFO holds up this command alone
            try:
                groups = await in_own_thread(lambda path: list(read_groups(path)), self.options.config)
            except HostError as exc:
                raise HostError("Could not read blkdebug config file", exc.errno) from exc
            self._take_rules(groups)
        await super().open(graph)
        if self.options.align:
            if self.options.align & (self.options.align - 1):
                raise ConfigError("Cannot meet constraints with align " + str(self.options.align), "align")
            self.request_alignment = max(self.request_alignment, self.options.align)
        self._opened_at = time.monotonic()
        self.debug_event("none")

    def _take_rules(self, groups: list[Group]) -> None:
        """The rules of a `config` file: groups called as the options are."""
        for group in groups:
            if group.name == "inject-error":
                self.errors += _rules(group.name, ErrorRule, [dict(group.pairs)])
            elif group.name == "set-state":
                self.states += _rules(group.name, StateRule, [dict(group.pairs)])
            else:
                raise ConfigError(f"{group.where}: there is no group '{group.name}'", "config")

    def debug_event(self, event: str) -> None:
        state = self.state
        found = [rule for rule in self.errors if rule.event == event and rule.state in (0, state)]
        if found:
            self._active = found
        for rule in self.states:
            if rule.event == event and rule.state in (0, state):
                self.state = rule.new_state

    async def read(self, offset: int, size: int) -> bytes:
        await self._check(READ, offset, size)
        return await self.file.read(offset, size)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.debug_event("pwritev")
        await self._check(WRITE, offset, len(data))
        await self.file.write(offset, data)
        self.debug_event("pwritev_done")
        if self.file.size > self.size:
            self._set_size(self.file.size)

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        self.debug_event("pwritev_zero")
        await self._check(ZEROES, offset, size)
        await self.file.write_zeroes(offset, size, unmap=unmap)
        self.debug_event("pwritev_done")

    async def discard(self, offset: int, size: int) -> None:
        await self._check(DISCARD, offset, size)
        await self.file.discard(offset, size)

    async def flush(self) -> None:
        self.debug_event("flush_to_os")
        self.debug_event("flush_to_disk")
        await self._check(FLUSH, 0, 0)
        await self.file.flush()

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        return Extent(0, max(self.size, offset + 1), ExtentKind.ASK)

    async def _check(self, iotype: str, offset: int, size: int) -> None:
        """Hold a request up, or fail it, where a rule says so."""
        now_ms = (time.monotonic() - self._opened_at) * MS
        hit = [fault.rule for fault in self.faults if fault.hits(iotype, offset, size, now_ms)]
        if delay := sum(rule.delay_ms for rule in hit):
            await asyncio.sleep(delay / MS)
        for rule in self._active:
            if _matches(rule.iotype, rule.sector, 1, iotype, offset, size):
                if rule.once:
                    self._active.remove(rule)
                    self.errors.remove(rule)
                raise HostError(f"{self.describe()}: injected error for {iotype}", rule.errno)
        for fault in hit:
            if fault.errno:
                raise HostError(f"{self.describe()}: injected error for {iotype}", fault.errno)


class Fault:
    """A rule of ours, and how often it matched."""

    def __init__(self, rule: FaultRule) -> None:
        self.rule = rule
        self.seen = 0

    def hits(self, iotype: str, offset: int, size: int, now_ms: float) -> bool:
        """Whether this request is one of those; it is counted."""
        rule = self.rule
        if not _matches(rule.iotype, rule.sector, rule.sectors, iotype, offset, size):
            return False
        if now_ms < rule.from_ms or (rule.until_ms is not None and now_ms >= rule.until_ms):
            return False
        self.seen += 1
        return self.seen > rule.after and (not rule.times or self.seen <= rule.after + rule.times)


def _matches(wanted: str | None, sector: int, sectors: int, iotype: str, offset: int, size: int) -> bool:
    if wanted is not None and wanted != iotype:
        return False
    return sector < 0 or (sector * SECTOR < offset + size and offset < (sector + sectors) * SECTOR)


def _rules(name: str, kind: type[Any], given: Any) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise ConfigError(f"Invalid parameter type for '{name}', expected: array", name)
    rules = []
    for at, each in enumerate(given):
        path = f"{name}[{at}]"
        if not isinstance(each, Mapping):
            raise ConfigError(f"Invalid parameter type for '{path}', expected: object", name)
        event = each.get("event")
        if kind is not FaultRule and isinstance(event, str) and event not in EVENTS:
            raise ConfigError(
                f"{path}: event '{event}' never happens in this version{did_you_mean(event, EVENTS)}", name
            )
        rules.append(read_options(kind, each, path=f"{path}."))
    return rules
