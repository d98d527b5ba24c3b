"""A machine's console for the program that runs it: every byte since the first, for any number of readers.

`Console` keeps the output and lets readers look at it from any point; `ConsoleChardev` is the back end that fills it
and carries input the other way. A reader never slows the guest: what is older than the bound is dropped and counted.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator

from aioemu.chardev.base import Chardev
from aioemu.config import ConsoleOptions
from aioemu.errors import EmuError

CONSOLE_LIMIT_BYTES = 16 << 20  # a verbose Linux boot prints under 1 MiB: this holds a day's log, not a disk's dump
EXPECT_SPAN_BYTES = 64 << 10  # a match may be this long: what is older is not searched again at each new byte
TAIL_BYTES = 2048  # what a failure shows: the last screen
TEXT = "utf-8"


class ConsoleError(EmuError):
    """The console did not say what was expected; `tail` is the last it said."""

    def __init__(self, message: str, tail: str) -> None:
        super().__init__(f"{message}; the console ends with:\n{tail}" if tail else f"{message}; the console is empty")
        self.tail = tail


class ConsoleTimeoutError(ConsoleError, TimeoutError):
    """It did not say so in time."""


class ConsoleClosedError(ConsoleError):
    """It cannot say so any more: the machine's side is closed."""


class Console:
    """Output from byte 0 and input to the guest. `expect` and `async for` here read with a place of their own."""

    def __init__(self, limit_bytes: int = CONSOLE_LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._held = bytearray()
        self._start = 0  # the position of the first byte that is still held
        self._changed: set[asyncio.Future[None]] = set()
        self._to_guest: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._chardev: Chardev | None = None
        self._own = ConsoleReader(self)
        self.closed = False

    # what was said

    @property
    def end(self) -> int:
        """How many bytes the guest has written so far."""
        return self._start + len(self._held)

    @property
    def lost(self) -> int:
        """How many of them are no longer held."""
        return self._start

    def read(self, since: int = 0) -> bytes:
        """The bytes from position `since` on, as far as they are held."""
        return bytes(self._held[max(0, since - self._start) :])

    @property
    def text(self) -> str:
        """Everything held, as text."""
        return self.read().decode(TEXT, "replace")

    def tail(self, size: int = TAIL_BYTES) -> str:
        """The last bytes, as text."""
        return bytes(self._held[-size:]).decode(TEXT, "replace")

    def reader(self, since: int = 0) -> ConsoleReader:
        """A reader with its own place, by default at byte 0."""
        return ConsoleReader(self, since)

    async def expect(self, pattern: str | re.Pattern[str], timeout: float | None = None) -> re.Match[str]:
        """Wait until the output after the last match matches; see `ConsoleReader.expect`."""
        return await self._own.expect(pattern, timeout)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Output in pieces as it comes, from byte 0, until the machine's side closes."""
        return self.reader().__aiter__()

    # what is said to the guest

    async def send(self, data: str | bytes) -> None:
        """Type `data`; returns when the guest's port has taken all of it."""
        raw = data.encode(TEXT) if isinstance(data, str) else data
        if self.closed:
            raise ConsoleClosedError("cannot send", self.tail())
        if not raw:
            return
        done = asyncio.get_running_loop().create_future()
        self._to_guest.append((raw, done))
        self.pump()
        await done

    # the back end's side

    def attach(self, chardev: Chardev) -> None:
        """Carry input by way of `chardev`."""
        self._chardev = chardev

    def put(self, data: bytes) -> None:
        """The guest wrote `data`."""
        self._held += data
        excess = len(self._held) - self._limit
        if excess > self._limit >> 3:  # in large steps: moving what stays is what costs
            del self._held[:excess]
            self._start += excess
        self._wake()

    def close(self) -> None:
        """The machine's side is gone: readers read to the end, senders fail."""
        self.closed = True
        while self._to_guest:
            done = self._to_guest.popleft()[1]
            if not done.done():
                done.set_exception(ConsoleClosedError("the machine went away before it took the input", self.tail()))
        self._wake()

    def pump(self) -> None:
        """Give the guest's port as much input as it has room for."""
        while self._to_guest and self._chardev is not None and self._chardev.frontend is not None:
            data, done = self._to_guest[0]
            if done.cancelled():  # what was not taken yet of a cancelled send is not sent
                self._to_guest.popleft()
                continue
            room = self._chardev.frontend.can_receive()
            if room <= 0:
                return
            self._to_guest.popleft()  # before the guest's side is called: it may call back
            if len(data) > room:
                self._to_guest.appendleft((data[room:], done))
            else:
                done.set_result(None)
            self._chardev.frontend.receive(data[:room])

    async def wait_change(self) -> None:
        """Wait for more output, or for the end."""
        changed = asyncio.get_running_loop().create_future()
        self._changed.add(changed)
        try:
            await changed
        finally:
            self._changed.discard(changed)

    def _wake(self) -> None:
        for changed in self._changed:
            if not changed.done():
                changed.set_result(None)


class ConsoleReader:
    """A place in a console's output."""

    def __init__(self, console: Console, since: int = 0) -> None:
        self._console = console
        self.position = since

    async def expect(self, pattern: str | re.Pattern[str], timeout: float | None = None) -> re.Match[str]:
        """Wait until the output from here on contains `pattern`, and go on behind it.

        The pattern is searched in text, over lines; `timeout` is in seconds, None waits as long as the machine runs.
        """
        compiled = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
        try:
            async with asyncio.timeout(timeout):
                return await self._search(compiled)
        except TimeoutError as exc:
            message = f"no match for {compiled.pattern!r} in {timeout:g} s"
            raise ConsoleTimeoutError(message, self._console.tail()) from exc

    async def _search(self, pattern: re.Pattern[str]) -> re.Match[str]:
        start = max(self.position, self._console.lost)
        while True:
            end = self._console.end
            match = pattern.search(self._console.read(start).decode(TEXT, "surrogateescape"))
            if match is not None:
                self.position = start + len(match.string[: match.end()].encode(TEXT, "surrogateescape"))
                return match
            if self._console.closed:
                raise ConsoleClosedError(f"the console closed without {pattern.pattern!r}", self._console.tail())
            start = max(start, end - EXPECT_SPAN_BYTES, self._console.lost)
            if self._console.end == end:
                await self._console.wait_change()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The output since the last piece; waits for some."""
        while True:
            data = self._console.read(self.position)
            if data:
                self.position = self._console.end
                return data
            if self._console.closed:
                raise StopAsyncIteration
            await self._console.wait_change()


class ConsoleChardev(Chardev):
    """The back end: output goes to `console`, input comes from its `send`."""

    def __init__(self, options: ConsoleOptions, console: Console | None = None) -> None:
        super().__init__(options)
        self.console = console if console is not None else Console()
        self.console.attach(self)

    @property
    def filename(self) -> str:
        return "console"

    def close(self) -> None:
        super().close()
        self.console.close()

    def accept_input(self) -> None:
        self.console.pump()

    def _send(self, data: bytes) -> int:
        self.console.put(data)
        return len(data)
