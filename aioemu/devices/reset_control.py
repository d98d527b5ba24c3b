"""Reset control register, port 0xcf9 (ICH9 13.7.5): bit 2 resets; bits 1 and 3 say how thoroughly.

Kernels write 0x02 and then 0x06, or 0x0e at once; ACPI's reset register is this one. Every kind is the same here: the
whole machine resets.
"""

from __future__ import annotations

from aioemu.bus.registers import Reg, RegisterBlock, bit
from aioemu.bus.wires import Trigger

RESET_PORT = 0xCF9
RESET_VALUE = 0x0F  # what the FADT tells guests to write


class RstCnt(Reg):
    """SYS_RST, RST_CPU, FULL_RST. RST_CPU never stays set: the machine has been reset by then."""

    writable = 0x0A
    sys_rst, rst_cpu, full_rst = bit(1), bit(2), bit(3)


class ResetControl(RegisterBlock):
    """One port."""

    layout = {0: RstCnt}

    def __init__(self, reset_machine: Trigger) -> None:
        self.reset_machine = reset_machine
        super().__init__()

    def write_rst_cnt(self, value: int) -> None:
        if value & RstCnt.rst_cpu:
            self.reset_machine()
