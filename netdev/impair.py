"""What one direction of a link does to its frames: plain values, checked, and how the core takes them.

Shares are 0 to 1, times milliseconds. Which frames are hit is decided by `seed` and by the number of the frame, never
by time: with the same seed the same frames are lost. Not here: when it comes into force (`link.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from aioemu._core import ffi, lib
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError

JITTERS = ("uniform", "normal", "pareto")  # by core_jitter
SHARES = ("loss", "burst_enter", "burst_leave", "burst_loss", "duplicate", "corrupt", "reorder")
TIMES_MS = ("delay_ms", "jitter_ms", "reorder_ms", "outage_up_ms", "outage_down_ms")
LONGEST_MS = 3_600_000.0  # an hour: what is meant to be for ever is `link.down()`
QUEUE_PACKETS = 1000
LONGEST_QUEUE = 1 << 16  # packets, IMPAIR_QUEUE_MAX
MOST_MBIT = 1e6
SEEDS = 1 << 64


@dataclass(frozen=True, slots=True)
class Impairment:
    """Nothing by default. Frames stay in order, whatever the jitter, but for those that `reorder` makes late."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0  # uniform: at most; normal, pareto (a long tail): standard deviation
    jitter: str = "uniform"
    loss: float = 0.0
    loss_every: int = 0  # each so many frames one
    burst_enter: float = 0.0  # Gilbert-Elliott: into the bad state, per frame
    burst_leave: float = 0.0  # out of it
    burst_loss: float = 1.0  # lost while in it; `loss` is what is lost outside
    duplicate: float = 0.0
    corrupt: float = 0.0  # one bit each
    reorder: float = 0.0  # this share comes late,
    reorder_ms: float = 10.0  # by so much
    rate_mbit: float = 0.0  # 0: no limit
    queue_packets: int = QUEUE_PACKETS  # that may wait for the rate
    queue_bytes: int = 0  # the same in bytes; 0: packets only
    outage_up_ms: float = 0.0  # nothing passes for (down) after each (up), though the link looks up
    outage_down_ms: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in SHARES:
            _check(name, getattr(self, name), 1.0)
        for name in TIMES_MS:
            _check(name, getattr(self, name), LONGEST_MS)
        _check("rate_mbit", self.rate_mbit, MOST_MBIT)
        _check_integer("loss_every", self.loss_every, 0, (1 << 32) - 1)
        _check_integer("queue_packets", self.queue_packets, 1, LONGEST_QUEUE)
        _check_integer("queue_bytes", self.queue_bytes, 0, (1 << 40) - 1)
        _check_integer("seed", self.seed, 0, SEEDS - 1)
        if self.jitter not in JITTERS:
            raise ConfigError(f"jitter is one of {', '.join(JITTERS)}, not {self.jitter!r}")

    def changed(self, changes: Mapping[str, Any]) -> Impairment:
        """The same with other values. ConfigError when there is no such thing."""
        for name in changes:
            if name not in NAMES:
                raise ConfigError(f"a link has no '{name}'{did_you_mean(name, NAMES)}")
        return replace(self, **changes)

    def native(self, *, replay: bool) -> Any:
        """As the core takes it; `replay` counts frames anew."""
        config: Any = ffi.new("core_impair *")
        for name in (*SHARES, "loss_every", "queue_packets", "queue_bytes", "seed"):
            setattr(config, name, getattr(self, name))
        for name in TIMES_MS:
            setattr(config, name.removesuffix("_ms") + "_ns", round(getattr(self, name) * 1e6))
        config.jitter_kind = JITTERS.index(self.jitter)
        config.rate_bps = round(self.rate_mbit * 1e6)
        config.replay = replay
        return config

    def fates(self, count: int, *, size: int = 100, gap_ms: float = 0.1) -> list[str | float]:
        """What would become of the next `count` frames of `size` bytes after a replay: why it is lost, or its delay."""
        drops, delays = ffi.new("int8_t[]", count), ffi.new("int64_t[]", count)
        rc = lib.core_impair_try(self.native(replay=True), count, size, round(gap_ms * 1e6), drops, delays)
        assert rc == 0, rc
        return [DROPS[drops[i]] if drops[i] >= 0 else delays[i] / 1e6 for i in range(count)]


def _text(string: Any) -> str:
    raw = ffi.string(string)
    return raw if isinstance(raw, str) else raw.decode("ascii")


NAMES = frozenset(field.name for field in fields(Impairment))
DROPS = tuple(_text(lib.core_link_drop_name(index)) for index in range(lib.CORE_LINK_DROP_COUNT))


def _check(name: str, value: object, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or not 0 <= value <= most:
        raise ConfigError(f"{name} is a number from 0 to {most:g}, not {value!r}")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} is a whole number from {least} to {most}, not {value!r}")
