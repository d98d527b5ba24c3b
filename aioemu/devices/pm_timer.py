"""The ACPI power management timer (ACPI 4.8.3.3): the face of `core/pmtimer.c`, which answers every read itself."""

from __future__ import annotations

from typing import Any

from aioemu._core import ffi, lib
from aioemu.bus.deferred import ALL_ONES, Answer
from aioemu.bus.state import State, parse_fields
from aioemu.errors import EmuError

HZ = 3579545
PORTS = 4


class PmTimer:
    """A free counter of 24 or 32 bits on the machine's clock. It has no state of its own."""

    size = PORTS

    def __init__(self, counter_bits: int = 24) -> None:
        self.counter_bits = counter_bits
        self.chip = ffi.gc(lib.core_pmtimer_new(counter_bits), lib.core_chip_free)
        if self.chip == ffi.NULL:
            raise EmuError(f"PM timer: {counter_bits} bits")

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        """The chip hands nothing over."""
        return ALL_ONES

    def reset(self) -> None:
        """The counter runs on."""

    def save(self) -> State:
        return {}

    def load(self, state: Any) -> None:
        parse_fields({}, state, "PM timer")


def ticks(now_ns: int) -> int:
    """The counter at a time of the machine's clock, not cut to its width."""
    return now_ns * HZ // 1_000_000_000


def next_overflow_ns(now_ns: int, counter_bits: int) -> int:
    """When the counter's top bit changes next: what sets TMR_STS (ACPI 4.8.3.1.1)."""
    half = 1 << (counter_bits - 1)
    target = (ticks(now_ns) // half + 1) * half
    return -(-target * 1_000_000_000 // HZ)
