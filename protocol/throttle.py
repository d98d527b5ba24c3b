"""The clock that keeps frequent events from flooding clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL_S = 1.0  # between two events of a limited kind


class Throttle:
    """Lets one event of a kind through and holds those that follow within a second, of which the last is sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held: dict[tuple[str, object], Callable[[], None] | None] = {}
        self._timers: dict[tuple[str, object], asyncio.TimerHandle] = {}

    def pass_on(self, key: tuple[str, object], send: Callable[[], None]) -> None:
        """Call (send) now, or later unless a newer one takes its place."""
        if key in self._held:
            self._held[key] = send
            return
        send()
        self._arm(key)

    def close(self) -> None:
        """Forget what is held."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._held.clear()

    def _arm(self, key: tuple[str, object]) -> None:
        self._held[key] = None
        self._timers[key] = self._loop.call_later(INTERVAL_S, self._expire, key)

    def _expire(self, key: tuple[str, object]) -> None:
        send = self._held.pop(key)
        del self._timers[key]
        if send is not None:
            send()
            self._arm(key)
