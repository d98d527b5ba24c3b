"""System control port A, 0x92: the fast way to reset the processor and to open address line 20 (PS/2 reference).

A20 is always open: the bit is kept and does nothing, as on every machine since the mask left the processors.
"""

from __future__ import annotations

from aioemu.bus.registers import Reg, RegisterBlock, bit
from aioemu.bus.wires import Trigger

PORT = 0x92


class PortA(Reg):
    """Bit 0 resets; bit 1 is A20."""

    reset, writable = 0x02, 0x02
    init_now, a20 = bit(0), bit(1)


class Port92(RegisterBlock):
    """One port."""

    layout = {0: PortA}

    def __init__(self, reset_machine: Trigger) -> None:
        self.reset_machine = reset_machine
        super().__init__()

    def write_port_a(self, value: int) -> None:
        if value & PortA.init_now:
            self.reset_machine()
