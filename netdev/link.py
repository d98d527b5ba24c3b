"""A link: two ends in one process that can be cut, impaired and captured, each direction by itself.

    link = Link("a-b", clockwork); link.a.join(one); link.b.join(other)
    await link.a_to_b.impair(delay_ms=20, loss=0.01)   # in force when the await returns; other values stay
    await link.down()                                  # both ends have lost their carrier

Frames pass natively (`core/link.h`). Each end's carrier is the other end's peer: up while that is joined and up, and
the link is not down. Not trusted: what the frames hold. Reactor thread only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from aioemu._core import ffi, lib
from aioemu.errors import EmuError, HostError
from aioemu.log import Log
from aioemu.netdev.impair import DROPS, SEEDS, Impairment
from aioemu.netdev.port import Port

THREAD_NAME = b"links"
# how long the thread looks for more before it sleeps; with few processors the one it takes is that of whom it waits for
POLL_NS = 20_000 if (os.cpu_count() or 1) > 2 else 5_000


class Clockwork:
    """The native thread that sends delayed frames on when they are due; any number of links share one."""

    def __init__(self) -> None:
        self.io = lib.core_io_new()
        if self.io == ffi.NULL:
            raise HostError("make an io context for links")
        lib.core_io_set_poll(self.io, POLL_NS, 0, 0, 0)
        rc = lib.core_io_thread_start(self.io, THREAD_NAME)
        if rc < 0:
            lib.core_io_free(self.io)
            raise HostError("start the thread of the links", -rc)

    def close(self) -> None:
        """End the thread; no link uses it any more."""
        if self.io != ffi.NULL:
            lib.core_io_thread_stop(self.io)
            lib.core_io_free(self.io)
            self.io = ffi.NULL


class HasIo(Protocol):
    """Whatever has an io context that a link may work in: a `Clockwork`, an iothread."""

    @property
    def io(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class LinkStats:
    """One direction so far: what its sender offered, what came out of it, and what became of the rest, by reason."""

    frames: int
    bytes: int
    delivered: int
    delivered_bytes: int
    duplicated: int
    corrupted: int
    reordered: int
    waiting: int
    waiting_bytes: int
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """All that were lost."""
        return sum(self.dropped.values())


COUNTS = tuple(each.name for each in fields(LinkStats) if each.name != "dropped")


class Direction:
    """One way of a link."""

    def __init__(self, link: Link, index: int, name: str, seed: int) -> None:
        self._link = link
        self.index = index
        self.name = name
        self.impairment = Impairment(seed=seed)
        self._apply(self.impairment, replay=True)

    async def impair(self, **changes: Any) -> None:
        """Change some values of the `Impairment`, in force when this returns. A `seed` replays from its start."""
        self.set(self.impairment.changed(changes), replay="seed" in changes)

    async def clear(self) -> None:
        """Frames pass as they are again; what is on its way arrives when it was to."""
        self.set(Impairment(seed=self.impairment.seed))

    def set(self, impairment: Impairment, *, replay: bool = False) -> None:
        """The same as a whole, without waiting: nothing of it blocks."""
        self._apply(impairment, replay=replay)
        self._link.tell("link-impaired", direction=self.name)

    def _apply(self, impairment: Impairment, *, replay: bool) -> None:
        self._link.check_open()
        rc = lib.core_link_impair(self._link.ptr, self.index, impairment.native(replay=replay))
        if rc < 0:
            raise HostError(f"impair {self._link.name}", -rc)
        self.impairment = impairment

    @property
    def is_direct(self) -> bool:
        """Frames pass without being copied or looked at: not impaired, not captured, nothing on its way."""
        return self._link.ptr != ffi.NULL and bool(lib.core_link_is_direct(self._link.ptr, self.index))

    @property
    def stats(self) -> LinkStats:
        """The counters so far; of a closed link, as they were."""
        if self._link.ptr == ffi.NULL:
            return self._link.last_stats[self.index]
        counts: Any = ffi.new("core_link_counts *")
        lib.core_link_get_counts(self._link.ptr, self.index, counts)
        dropped = {name: int(counts.drops[i]) for i, name in enumerate(DROPS) if counts.drops[i]}
        return LinkStats(**{name: int(getattr(counts, name)) for name in COUNTS}, dropped=dropped)


class Link:
    """Two ends and two directions. `seed` decides which frames are hit; a random one is kept to be read afterwards."""

    def __init__(self, name: str, clockwork: HasIo, *, seed: int | None = None, log: Log | None = None) -> None:
        self.name = name
        self.ptr = lib.core_link_new(clockwork.io)
        if self.ptr == ffi.NULL:
            raise HostError(f"make the link {name}")
        self._log = log
        self.last_stats: tuple[LinkStats, ...] = ()
        self.closers: list[Callable[[], None]] = []  # of who taps it
        self.a = Port(lib.core_link_end(self.ptr, 0), self)
        self.b = Port(lib.core_link_end(self.ptr, 1), self)
        self.seed = int.from_bytes(os.urandom(7), "little") if seed is None else seed
        self.a_to_b = Direction(self, 0, "a-to-b", self.seed * 2 % SEEDS)
        self.b_to_a = Direction(self, 1, "b-to-a", (self.seed * 2 + 1) % SEEDS)

    def insert(self, port: Port) -> None:
        """Put this link between a port and its peer, `a` at the port: neither sees anything, and nothing is lost."""
        self.check_open()
        port.check_open()
        peer = port.peer
        rc = lib.core_link_insert(self.ptr, port.ptr)
        if rc < 0 or peer is None:
            raise EmuError(f"{self.name}: {port.kind} has no peer, or this link is in use")
        self.a.peer, port.peer = port, self.a
        self.b.peer, peer.peer = peer, self.b

    @property
    def directions(self) -> tuple[Direction, Direction]:
        return self.a_to_b, self.b_to_a

    async def impair(self, **changes: Any) -> None:
        """Change some values of both directions; a `seed` gives each its own stream of decisions."""
        seed = changes.pop("seed", None)
        for direction in self.directions:
            own = {} if seed is None else {"seed": (seed * 2 + direction.index) % SEEDS}
            await direction.impair(**changes, **own)
        self.seed = self.seed if seed is None else seed

    async def clear(self) -> None:
        """No impairment either way."""
        for direction in self.directions:
            await direction.clear()

    # ---- carrier -----------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Not taken down, nor closed."""
        return self.ptr != ffi.NULL and bool(lib.core_link_is_up(self.ptr))

    async def down(self) -> None:
        """Pull the cable: both ends have lost their carrier when this returns, and what was on its way is lost."""
        self.set_up(False)

    async def up(self) -> None:
        """Plug it in again."""
        self.set_up(True)

    def set_up(self, up: bool) -> None:
        """The same without waiting: nothing of it blocks."""
        self.check_open()
        if up != self.is_up:
            lib.core_link_set_up(self.ptr, up)
            self.tell("link-up" if up else "link-down")

    def set_alive(self, end: Port, alive: bool) -> None:
        """Whether what is joined to an end is switched on: the other end has no carrier while it is not."""
        if self.ptr != ffi.NULL:
            lib.core_link_set_alive(self.ptr, 0 if end is self.a else 1, alive)

    async def flap(self, *, down_ms: float, up_ms: float, times: int) -> None:
        """Lose the carrier and get it back, so many times; takes as long. Cancelled, it leaves the link up."""
        try:
            for _ in range(times):
                self.set_up(False)
                await asyncio.sleep(down_ms / 1000)
                self.set_up(True)
                await asyncio.sleep(up_ms / 1000)
        finally:
            if self.ptr != ffi.NULL:  # it may have gone meanwhile
                self.set_up(True)

    # ---- life --------------------------------------------------------------------------------------------------------

    def tell(self, event: str, **fields: object) -> None:
        """Record an event of this link."""
        if self._log is not None:
            self._log.event(event, link=self.name, **fields)

    def close(self) -> None:
        """Part both ends and free everything; frames on their way are lost. May be called twice."""
        if self.ptr == ffi.NULL:
            return
        while self.closers:
            self.closers.pop()()
        self.last_stats = tuple(direction.stats for direction in self.directions)
        self.a.close()
        self.b.close()
        lib.core_link_free(self.ptr)
        self.ptr = ffi.NULL

    def check_open(self) -> None:
        """EmuError when it was closed."""
        if self.ptr == ffi.NULL:
            raise EmuError(f"the link {self.name} was closed")
