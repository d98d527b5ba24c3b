"""Types on a machine's keyboard: key after key, as fast as the guest takes them, each held for its time.

The times are the guest's: while the machine stands still nothing is typed. What is typed has a bound; a guest without a
keyboard driver leaves it full, and whoever types more is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from aioemu.bus.wires import Timers
from aioemu.devices.ps2 import BUFFER_BYTES, Keyboard
from aioemu.devices.scancodes import key_bytes
from aioemu.errors import EmuError

QUEUE_LIMIT = 1024  # keys going down or up, and pauses
RETRY_NS = 5_000_000  # until a full keyboard is looked at again
MS = 1_000_000


class Typist:
    """Whoever presses the keys of one keyboard."""

    def __init__(self, keyboard: Keyboard, timers: Timers) -> None:
        self._keyboard = keyboard
        self._timers = timers
        self._timer = timers.timer(self._go_on)
        self._queue: deque[bytes | int] = deque()  # what to send, or how many nanoseconds to wait
        self._waiting = False

    def press(self, numbers: Sequence[int], hold_ms: int) -> None:
        """Press the keys in this order, hold them, let go in reverse order. EmuError when too much waits."""
        down = [_known(number, True) for number in numbers]
        up = [_known(number, False) for number in reversed(numbers)]
        self._add([*down, hold_ms * MS, *(each for each in up if each), hold_ms * MS])

    def move(self, keys: Sequence[tuple[int, bool]]) -> None:
        """Let each key go down (True) or up."""
        self._add([codes for number, down in keys if (codes := _known(number, down))])

    def reset(self) -> None:
        """The machine starts over: nobody waits for what was to be typed."""
        self._queue.clear()
        self._timer.cancel()
        self._waiting = False

    def _add(self, work: Sequence[bytes | int]) -> None:
        if len(self._queue) + len(work) > QUEUE_LIMIT:
            raise EmuError("the keyboard is full: the guest does not take its keys")
        self._queue.extend(work)
        if not self._waiting:
            self._go_on()

    def _go_on(self) -> None:
        self._waiting = False
        while self._queue:
            first = self._queue[0]
            if isinstance(first, int):
                self._queue.popleft()
                return self._wait(first)
            if len(self._keyboard.keys) + len(first) >= BUFFER_BYTES:
                return self._wait(RETRY_NS)
            self._queue.popleft()
            self._keyboard.type(first)

    def _wait(self, delay_ns: int) -> None:
        self._waiting = True
        self._timer.arm(self._timers.now_ns() + delay_ns)


def _known(number: int, down: bool) -> bytes:
    codes = key_bytes(number, down)
    if codes is None:
        raise EmuError(f"no key has the number {number}")
    return codes
