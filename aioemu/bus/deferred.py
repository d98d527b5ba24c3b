"""An answer that a device gives later: the vCPU sleeps until `complete` is called.

One Deferred belongs to one access. A device may keep it as long as it likes: the machine abandons what is still open
when it resets or goes away, and the guest then reads all ones, as from a device that does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

ALL_ONES = (1 << 64) - 1


class Deferred:
    """The promise of a value. Reactor thread only."""

    __slots__ = ("_abandoned", "_callback", "_mask", "_shift", "_value")

    def __init__(self) -> None:
        self._value: int | None = None
        self._callback: Callable[[int], None] | None = None
        self._abandoned = False
        self._shift = 0
        self._mask = ALL_ONES

    @property
    def done(self) -> bool:
        return self._value is not None

    @property
    def value(self) -> int:
        """The answer, cut to the bytes that were asked for."""
        if self._value is None:
            raise RuntimeError("this access has no answer yet")
        return (self._value >> self._shift) & self._mask

    def complete(self, value: int = 0) -> None:
        """Answer the access. A second answer is a mistake of the device; one after `abandon` is merely late."""
        if self._abandoned:
            return
        if self._value is not None:
            raise RuntimeError("this access was answered already")
        self._settle(value)

    def abandon(self) -> None:
        """Answer all ones, unless answered: the machine resets or goes away."""
        if self._value is None:
            self._abandoned = True
            self._settle(ALL_ONES)

    def then(self, callback: Callable[[int], None]) -> None:
        """Call back with the answer, at once if it is there. For the one who holds the vCPU."""
        if self._value is not None:
            callback(self.value)
        elif self._callback is not None:
            raise RuntimeError("somebody waits for this access already")
        else:
            self._callback = callback

    def narrow(self, shift_bits: int, mask: int) -> None:
        """Only these bits of the register were asked for."""
        self._shift, self._mask = shift_bits, mask

    def _settle(self, value: int) -> None:
        self._value = value
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self.value)


Answer = int | Deferred | Coroutine[Any, Any, int | None]
