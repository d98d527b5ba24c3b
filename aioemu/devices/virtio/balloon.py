"""virtio-balloon (Virtio 1.2, 5.5): memory that the guest gives back, on demand or as it frees it, and its figures.

Pages that come in are holes in the host's memory at once; one that leaves reads zero until it is written. Only whole
pages of guest memory are taken, anything else that a driver names is ignored. Left out: hinting for migration, and
poisoned pages (a guest that poisons does not report).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from aioemu._core import lib
from aioemu.bus.virtqueue import Chain, Queue
from aioemu.bus.wires import Timers
from aioemu.devices.properties import Live
from aioemu.devices.virtio.device import RingProperties, VirtioDevice
from aioemu.errors import ConfigError

F_MUST_TELL_HOST, F_STATS, F_DEFLATE_ON_OOM, F_REPORTING = 1 << 0, 1 << 1, 1 << 2, 1 << 5
PAGE_BYTES = 4096  # of a page frame number, whatever the guest's pages are
MAX_PAGES = 0xFFFFFFFF
CONFIG = struct.Struct("<II")  # num_pages, actual
QUEUE_SIZE, REPORT_QUEUE_SIZE = 128, 32
INFLATE, DEFLATE, STATS, REPORT = range(4)  # what the queues are for, in their order
PFNS = 4 << 10  # page frame numbers looked at in one go
STAT = struct.Struct("<HQ")
STATS_MAX = 64
UNKNOWN = (1 << 64) - 1
MAX_PERIOD_S = (1 << 32) - 1
STAT_NAMES = (
    "stat-swap-in stat-swap-out stat-major-faults stat-minor-faults stat-free-memory stat-total-memory"
    " stat-available-memory stat-disk-caches stat-htlb-pgalloc stat-htlb-pgfail"
).split()


class VirtioBalloon(VirtioDevice):
    """The device. `memory_bytes` is what the guest has when the balloon is empty."""

    device_id = 5

    def __init__(
        self,
        memory_bytes: int,
        timers: Timers,
        *,
        deflate_on_oom: bool = False,
        reporting: bool = False,
        ring: RingProperties | None = None,
    ) -> None:
        features = F_STATS | (F_DEFLATE_ON_OOM if deflate_on_oom else 0) | (F_REPORTING if reporting else 0)
        self.uses = (INFLATE, DEFLATE, STATS, REPORT) if reporting else (INFLATE, DEFLATE, STATS)
        sizes = [REPORT_QUEUE_SIZE if use == REPORT else QUEUE_SIZE for use in self.uses]
        super().__init__(sizes, features=features, config=CONFIG.pack(0, 0), ring=ring)
        self.memory_bytes = memory_bytes
        self.on_actual: Callable[[int], None] = lambda actual_bytes: None
        self.stats: dict[str, int] = {}
        self.stats_time_ns = -1  # when they came
        self.stats_unix_s = 0  # the same, by the host's calendar
        self.polling_ns = 0
        self.discarded_bytes = 0
        self._timers = timers
        self._timer = timers.timer(self.ask_stats)
        self._stats_chain: Chain | None = None
        self._target_pages = 0

    # ---- for the machine ---------------------------------------------------------------------------------------------

    @property
    def actual_bytes(self) -> int:
        """What the guest has now, as it says: never less than nothing."""
        in_balloon = int(CONFIG.unpack(self.config)[1]) * PAGE_BYTES  # which may be more than there is
        return max(0, self.memory_bytes - in_balloon)

    def set_target(self, target_bytes: int) -> None:
        """Ask the guest to keep this much and give the rest back (the command `balloon`)."""
        if target_bytes <= 0:
            raise ConfigError(f"balloon: a guest cannot have {target_bytes} bytes")
        pages = (self.memory_bytes - min(target_bytes, self.memory_bytes)) // PAGE_BYTES
        self._target_pages = min(pages, MAX_PAGES)
        self.set_config(0, self._target_pages.to_bytes(4, "little"))

    def live(self) -> Mapping[str, Live]:
        """The guest's figures and how often they are asked for, by QEMU's names."""
        return {
            "guest-stats": Live("guest statistics", self._report, None, "what the guest says about its memory"),
            "guest-stats-polling-interval": Live(
                "int", lambda: self.polling_ns // 1_000_000_000, self._set_polling, "seconds, 0: never"
            ),
        }

    def _report(self) -> dict[str, Any]:
        """Every figure, with all ones for those that the guest does not give."""
        figures = {name: self.stats.get(name, UNKNOWN) for name in STAT_NAMES}
        return {"stats": figures, "last-update": self.stats_unix_s}

    def _set_polling(self, period_s: int) -> None:
        if period_s < 0:
            raise ConfigError("timer value must be greater than zero")
        if period_s > MAX_PERIOD_S:
            raise ConfigError("timer value is too big")
        self.poll_stats(period_s)

    def poll_stats(self, period_s: int) -> None:
        """Ask for figures every `period_s` seconds, 0: no more."""
        self.polling_ns = period_s * 1_000_000_000
        self._timer.cancel()
        if self.polling_ns:
            self.ask_stats()

    def ask_stats(self) -> None:
        """Give the driver its buffer back, so that it fills it anew."""
        chain, self._stats_chain = self._stats_chain, None
        if chain is not None:
            chain.complete(0)
        if self.polling_ns and self.running:
            self._timer.arm(self._timers.now_ns() + self.polling_ns)

    # ---- the driver --------------------------------------------------------------------------------------------------

    def started(self) -> None:
        if self.polling_ns:
            self._timer.arm(self._timers.now_ns() + self.polling_ns)

    def stopped(self) -> None:
        self._timer.cancel()
        self._stats_chain = None
        self.stats = {}

    def queue_lost(self, queue: Queue) -> None:
        if self.uses[queue.index] == STATS:
            self._stats_chain = None

    def reset(self) -> None:
        """Empty; what the user asked for still holds."""
        super().reset()
        if not self.closed and self._target_pages:
            self.set_config(0, self._target_pages.to_bytes(4, "little"), tell=False)

    def config_written(self, offset: int, data: bytes) -> None:
        """The driver says how much is in the balloon."""
        if offset >= 4 and offset + len(data) <= CONFIG.size:
            self.set_config(offset, data, tell=False)
            self.on_actual(self.actual_bytes)

    def kicked(self, queue: Queue) -> None:
        use = self.uses[queue.index]
        while (chain := queue.pop()) is not None:
            if use == STATS:
                self._take_stats(chain)
                continue
            if use == INFLATE:
                self._take_pages(chain)
            elif use == REPORT:
                self._take_report(chain)
            chain.complete(0)

    def _take_pages(self, chain: Chain) -> None:
        """Page frame numbers, 32 bits each: runs of them become holes."""
        for offset in range(0, chain.readable_bytes, 4 * PFNS):
            data = chain.read(4 * PFNS, offset)
            numbers = struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
            for first, count in runs(sorted(set(numbers))):
                self._discard(first * PAGE_BYTES, count * PAGE_BYTES)

    def _take_report(self, chain: Chain) -> None:
        """Free pages are the buffers themselves."""
        for address, size, writable in chain.segments():
            start, end = -(-address // PAGE_BYTES) * PAGE_BYTES, (address + size) // PAGE_BYTES * PAGE_BYTES
            if writable and end > start:
                self._discard(start, end - start)

    def _discard(self, address: int, size: int) -> None:
        self.discarded_bytes += max(0, lib.core_virtio_discard(self.chip, address, size))

    def _take_stats(self, chain: Chain) -> None:
        data = chain.read(STAT.size * STATS_MAX)
        found = STAT.iter_unpack(data[: len(data) // STAT.size * STAT.size])
        self.stats = {STAT_NAMES[tag]: value for tag, value in found if tag < len(STAT_NAMES)}
        self.stats_time_ns = self._timers.now_ns()
        self.stats_unix_s = int(time.time())
        if self._stats_chain is not None:  # a driver has one such buffer
            self._stats_chain.complete(0)
        self._stats_chain = chain


def runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Adjacent numbers together: the first and how many; (numbers) ascend."""
    start = 0
    for at, (before, after) in enumerate(pairwise(numbers), 1):
        if after != before + 1:
            yield numbers[start], at - start
            start = at
    if numbers:
        yield numbers[start], len(numbers) - start
