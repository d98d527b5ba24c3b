"""What time a machine's clock chip starts with, and what makes it go on: `-rtc base=,clock=`.

`host` and `rt` follow the host's clock, so a guest that was paused finds the right time; `vm` follows the machine's, so
its time stands still with it. Nanoseconds since 1970, in the time zone that the guest expects.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from aioemu.bus.wires import Timers
from aioemu.errors import ConfigError

WallClock = Callable[[], int]
SOURCES = ("host", "rt", "vm")
NS = 1_000_000_000


def make_clock(base: str, source: str, timers: Timers, host: WallClock = time.time_ns) -> WallClock:
    """The clock that `-rtc base=BASE,clock=SOURCE` asks for."""
    if source not in SOURCES:
        raise ConfigError(f"-rtc clock={source}: not one of {', '.join(SOURCES)}", option="rtc")
    running = timers.now_ns if source == "vm" else host
    start = base_ns(base, host()) - running()
    return lambda: start + running()


def base_ns(base: str, now_ns: int) -> int:
    """The time to start with."""
    if base == "utc":
        return now_ns
    if base == "localtime":
        return now_ns + time.localtime(now_ns // NS).tm_gmtoff * NS
    try:
        moment = datetime.fromisoformat(base)
    except ValueError:
        raise ConfigError(f"-rtc base={base}: neither utc, localtime nor a date like 2024-02-29T12:00:00") from None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * NS
