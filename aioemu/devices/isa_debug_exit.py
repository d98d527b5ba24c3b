"""isa-debug-exit: a guest under test ends the emulator with an exit status.

The status is (value << 1) | 1, never zero, so that a test can tell it from an ordinary end.
"""

from __future__ import annotations

from collections.abc import Callable

from aioemu.bus.registers import Reg, RegisterBlock

WIDTHS = (4, 2, 1)


class Code(Reg):
    """Writing it ends the emulator; it reads zero."""

    writable = 0


class IsaDebugExit(RegisterBlock):
    """`iosize` ports; a write of up to four bytes is the value."""

    layout = {0: Code}

    def __init__(self, leave: Callable[[int], None], iosize: int = 2) -> None:
        self.leave = leave
        self.size = iosize
        self.tuning = {"code": {"width": next(width for width in WIDTHS if width <= iosize)}}
        super().__init__()

    def write_code(self, value: int) -> None:
        self.leave((value << 1) | 1)
