"""The bus: places devices at addresses, and brings what the core hands over to the device that answers.

One router a machine, on the reactor thread. A device that raises is stopped (it reads all ones from then on) and
reported once by name; one that keeps the loop for more than SLOW_NS is reported once. The machine goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aioemu._core import ffi, lib
from aioemu.bus.deferred import ALL_ONES, Answer, Deferred
from aioemu.bus.wires import Placeable
from aioemu.errors import ConfigError, EmuError, HostError
from aioemu.log import Log

SLOW_NS = 100_000_000  # a callback longer than this starves every other machine in the loop
SPACES = ("port", "memory")


@dataclass(slots=True)
class Region:
    """One device at one place; `tag` is its number in the core's events."""

    tag: int
    space: int
    base: int
    size: int
    device: Placeable
    name: str
    stopped: bool = False
    reported_slow: bool = False

    @property
    def last(self) -> int:
        return self.base + self.size - 1


class Router:
    """Address ranges of one machine, and the way from an event to its device."""

    def __init__(self, machine: Any, log: Log) -> None:
        self.log = log
        self.slow_ns = SLOW_NS
        self._machine = machine
        self._regions: dict[int, Region] = {}
        self._notified: dict[int, tuple[str, Callable[[], None]]] = {}
        self._notifiers: dict[Any, int] = {}  # tags by chip
        self._next_tag = 1
        self._open: set[Deferred] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[Any, asyncio.TimerHandle] = {}

    @property
    def regions(self) -> list[Region]:
        """Every range, in address order within its space."""
        return sorted(self._regions.values(), key=lambda r: (r.space, r.base))

    def place(self, device: Placeable, space: int, base: int, *, size: int = 0, name: str = "") -> Region:
        """Put a device at `base`; in force when this returns. ConfigError when the range is taken."""
        size = size or device.size
        region = Region(self._take_tag(), space, base, size, device, name or type(device).__name__)
        rc = lib.core_map(self._machine, space, base, size, device.chip, region.tag)
        where = f"{region.name} at {SPACES[space]} {base:#x}"
        if rc == -17:
            raise ConfigError(f"{where}: overlaps {self._holder(space, base, size)}")
        if rc < 0:
            raise HostError(where, -rc)
        self._regions[region.tag] = region
        return region

    def remove(self, region: Region) -> None:
        """Take a device off the bus; no vCPU is inside it any more when this returns."""
        if self._regions.pop(region.tag, None) is not None:
            lib.core_unmap(self._machine, region.space, region.base)

    def notify(self, chip: Any, callback: Callable[[], None], name: str, gather_s: float = 0.0) -> None:
        """Call back on the loop when a native chip has news: the first at once, then at most every `gather_s`."""
        tag = self._take_tag()
        if gather_s:
            callback = self._gathered(chip, callback, gather_s)
        rc = lib.core_notify_bind(self._machine, chip, tag)
        if rc < 0:
            raise HostError(f"notifications of {name}", -rc)
        self._notified[tag] = (name, callback)
        self._notifiers[chip] = tag

    def forget(self, chip: Any) -> None:
        """The chip goes: nobody is called for its news any more, and another one may have its notifier."""
        lib.core_notify_unbind(chip)
        held = self._held.pop(chip, None)
        if held is not None:
            held.cancel()
        self._notified.pop(self._notifiers.pop(chip, 0), None)

    def _gathered(self, chip: Any, callback: Callable[[], None], gather_s: float) -> Callable[[], None]:
        def news() -> None:
            lib.core_notify_hold(chip, 1)
            self._held[chip] = asyncio.get_running_loop().call_later(gather_s, release)
            callback()

        def release() -> None:
            self._held.pop(chip, None)
            lib.core_notify_hold(chip, 0)

        return news

    def hits(self, region: Region) -> tuple[int, int]:
        """How often the guest read and wrote there."""
        reads, writes = (lib.core_region_hits(self._machine, region.space, region.base, w) for w in (0, 1))
        return reads, writes

    # ---- accesses from the host: tests, debuggers, a client that plays the processor ---------------------------------

    def read(self, space: int, address: int, size: int) -> int:
        """Read as the guest does. A device that answers later cannot be asked this way."""
        return self._access(space, address, size, False, 0)

    def write(self, space: int, address: int, size: int, value: int) -> None:
        """Write as the guest does."""
        self._access(space, address, size, True, value)

    def _access(self, space: int, address: int, size: int, is_write: bool, value: int) -> int:
        part, data = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        event: Any = ffi.new("core_event *")
        total = done = 0
        while done < size:
            part[0] = min(8, size - done)
            data[0] = (value >> (8 * done)) & ALL_ONES
            rc = lib.core_access(self._machine, space, address + done, part, is_write, data, event)
            if rc < 0:
                raise EmuError(f"{SPACES[space]} {address:#x}: no access of {size} bytes")
            got = int(data[0])
            if rc == 1:
                got = self._at_once(self._ask(self._regions[event.tag], event, is_write))
            total |= (got & ((1 << (8 * part[0])) - 1)) << (8 * done)
            done += part[0]
        return 0 if is_write else total

    def _at_once(self, answer: Answer) -> int:
        if isinstance(answer, Deferred):
            return answer.value
        if isinstance(answer, int):
            return answer
        answer.close()
        raise EmuError("this access is answered by a coroutine: only a vCPU can wait for it")

    # ---- what the core hands over ------------------------------------------------------------------------------------

    def handle(self, event: Any) -> None:
        """One event of kind read, write, posted or notify."""
        kind = event.kind
        if kind == lib.CORE_EVENT_NOTIFY:
            self._notice(event.tag)
            return
        region = self._regions.get(event.tag)
        waits = kind != lib.CORE_EVENT_POSTED
        if region is None:  # taken off the bus while the access was on its way
            if waits:
                lib.core_answer(self._machine, event.thread, event.seq, ALL_ONES)
            return
        answer = self._ask(region, event, kind != lib.CORE_EVENT_READ)
        if isinstance(answer, int):
            if waits:
                lib.core_answer(self._machine, event.thread, event.seq, answer)
        else:
            self._answer_later(region, answer, (event.thread, event.seq) if waits else None)

    def _ask(self, region: Region, event: Any, is_write: bool) -> Answer:
        if region.stopped:
            return ALL_ONES
        start = time.monotonic_ns()
        try:
            answer = region.device.handle(event.reg, event.offset, event.size, is_write, event.value)
        except Exception as exc:
            self._stop(region, exc)
            return ALL_ONES
        self._check_pace(region, time.monotonic_ns() - start)
        return answer

    def _notice(self, tag: int) -> None:
        if tag not in self._notified:  # the chip went while its news were on their way
            return
        name, callback = self._notified[tag]
        try:
            callback()
        except Exception as exc:
            self.log.event("device-error", device=name, error=repr(exc))
            self.log.error("%s: failed while it told the host its news: %r", name, exc)

    def _answer_later(
        self, region: Region, answer: Deferred | Coroutine[Any, Any, int | None], to: tuple[int, int] | None
    ) -> None:
        if not isinstance(answer, Deferred):
            answer = self._run(region, answer)
        deferred = answer
        self._open.add(deferred)

        def settle(value: int) -> None:
            self._open.discard(deferred)
            if to is not None:
                lib.core_answer(self._machine, *to, value & ALL_ONES)

        deferred.then(settle)

    def _run(self, region: Region, coroutine: Coroutine[Any, Any, int | None]) -> Deferred:
        deferred = Deferred()

        async def answer() -> None:
            try:
                deferred.complete((await coroutine) or 0)
            except Exception as exc:
                self._stop(region, exc)
            finally:
                deferred.abandon()

        task = asyncio.ensure_future(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return deferred

    def abandon(self) -> None:
        """Answer everything that still waits with all ones and end the devices' coroutines: reset or teardown."""
        for task in tuple(self._tasks):
            task.cancel()
        for deferred in tuple(self._open):
            deferred.abandon()
        for region in self._regions.values():
            region.stopped = False

    def close(self) -> None:
        """Take everything off the bus."""
        self.abandon()
        for held in self._held.values():
            held.cancel()
        for region in tuple(self._regions.values()):
            self.remove(region)

    def _stop(self, region: Region, exc: Exception) -> None:
        region.stopped = True
        self.log.event("device-error", device=region.name, error=repr(exc))
        self.log.error("%s: stopped until the next reset: %r", region.name, exc)

    def _check_pace(self, region: Region, took_ns: int) -> None:
        if took_ns > self.slow_ns and not region.reported_slow:
            region.reported_slow = True
            self.log.event("device-slow", device=region.name, took_ms=took_ns // 1_000_000)
            self.log.warning("%s: kept the event loop busy for %d ms", region.name, took_ns // 1_000_000)

    def _take_tag(self) -> int:
        self._next_tag += 1
        return self._next_tag - 1

    def _holder(self, space: int, base: int, size: int) -> str:
        for region in self._regions.values():
            if region.space == space and region.base < base + size and base <= region.last:
                return f"{region.name} at {region.base:#x}"
        return "another device"


class RawRange:
    """A range without declared registers: every access, of any size and place, goes to `on_read` and `on_write`."""

    def __init__(
        self, size: int, on_read: Callable[[int, int], Answer], on_write: Callable[[int, int, int], Any]
    ) -> None:
        self.size = size
        self.chip = ffi.gc(lib.core_raw_new(), lib.core_chip_free)
        self._on_read = on_read
        self._on_write = on_write

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        if not is_write:
            return self._on_read(offset, size)
        answer = self._on_write(offset, size, value & ((1 << (8 * size)) - 1))
        return 0 if answer is None else answer


class IrqSource:
    """One source of a machine's interrupt line `gsi`; sources of one line are ORed by the core."""

    def __init__(self, machine: Any, gsi: int) -> None:
        self._machine = machine
        self.gsi = gsi
        self.level = False

    def set(self, level: bool) -> None:
        """Drive the line."""
        if level != self.level:
            self.level = level
            lib.core_irq_set(self._machine, self.gsi, level)

    def wire(self, chip: Any) -> None:
        """Let a native chip drive the line from any thread, in this source's place."""
        rc = lib.core_chip_wire(chip, self._machine, self.gsi)
        if rc < 0:
            raise HostError(f"interrupt {self.gsi}", -rc)


class MessageSignals:
    """Sends message signalled interrupts into the machine's interrupt controllers."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine

    def send(self, address: int, data: int) -> None:
        lib.core_msi_send(self._machine, address, data)
