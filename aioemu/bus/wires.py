"""What a chip may be wired to: the seams between a device and the board that places it.

A chip knows these and nothing else: no address, no loop, no lock. Everything here is called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from aioemu.bus.deferred import Answer

Trigger = Callable[[], None]  # something happens once: reset, power off, a key press
PIO = 0  # the processor's port space (CORE_PIO)
MMIO = 1  # the physical address space (CORE_MMIO)


class IrqLine(Protocol):
    """One source of an interrupt line; the board ORs the sources that share one."""

    def set(self, level: bool) -> None: ...


class ByteSink(Protocol):
    """Takes one byte, never blocks and never refuses: who needs back-pressure uses the UART."""

    def put(self, value: int) -> None: ...


class Timer(Protocol):
    """One shot on the machine's clock; arming again replaces the deadline."""

    def arm(self, deadline_ns: int) -> None: ...
    def cancel(self) -> None: ...


class Timers(Protocol):
    """The machine's clock: it stands still while the machine is paused."""

    def now_ns(self) -> int: ...
    def timer(self, callback: Trigger) -> Timer: ...


class MsiSink(Protocol):
    """Carries a message signalled interrupt to the interrupt controllers."""

    def send(self, address: int, data: int) -> None: ...


class Placeable(Protocol):
    """What a bus can place: a native chip, and the Python that answers what the chip hands over."""

    @property
    def chip(self) -> Any:
        """The `core_chip *`; lives as long as this object."""

    @property
    def size(self) -> int:
        """Bytes of address space."""

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        """Answer what the chip handed over. `offset` counts from the region's base, `reg` is the chip's own number."""


class NotConnected:
    """A line, sink or timer that leads nowhere: what an unwired pin is."""

    def set(self, level: bool) -> None:
        """Nobody looks at this line."""

    def put(self, value: int) -> None:
        """Nobody reads this byte."""

    def send(self, address: int, data: int) -> None:
        """Nobody hears this message."""


def no_trigger() -> None:
    """Nothing is wired here."""
