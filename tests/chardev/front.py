"""A front end that keeps what it gets and can be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aioemu.chardev import Chardev, Event

PATIENCE_S = 10.0  # far beyond any honest delay: only a lost event takes this long


class Front:
    """Receives with a given room (None: endless), sends with back-pressure from an own queue."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.data = bytearray()
        self.events: list[Event] = []
        self.queue = b""
        self.chardev: Chardev | None = None
        self._changed = asyncio.Event()

    def on(self, chardev: Chardev) -> Front:
        """Connect to `chardev`."""
        self.chardev = chardev
        chardev.connect(self)
        return self

    def receive(self, data: bytes) -> None:
        assert len(data) <= self.can_receive()
        self.data += data
        if self.room is not None:
            self.room -= len(data)
        self._changed.set()

    def can_receive(self) -> int:
        return 1 << 20 if self.room is None else self.room

    def event(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def writable(self) -> None:
        self._changed.set()
        if self.queue and self.chardev is not None:
            self.send(b"")

    def send(self, data: bytes) -> None:
        """Write, and keep what is not accepted for `writable`."""
        assert self.chardev is not None
        self.queue += data
        self.queue = self.queue[self.chardev.write(self.queue) :]

    def give_room(self, room: int) -> None:
        """Take this much more."""
        assert self.chardev is not None
        self.room = (self.room or 0) + room
        self.chardev.accept_input()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def gets(self, data: bytes) -> None:
        """Wait for exactly this input, all in all."""
        await self.until(lambda: len(self.data) >= len(data))
        assert bytes(self.data) == data
