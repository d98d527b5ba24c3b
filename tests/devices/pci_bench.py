"""A PCI host with a bus to put things on, accessed as guests do: by port or by ECAM."""

from __future__ import annotations

from aioemu.bus.registers import RegisterBlock, access
from aioemu.devices.pci.host import PciHost
from tests.devices.fakes import Line, Mapper, Messages

ADDRESS, DATA, ENABLE = 0, 4, 0x80000000
COMMAND, STATUS, BAR0, CAPABILITIES = 0x04, 0x06, 0x10, 0x34


class PciBench:
    def __init__(self, reset_control: RegisterBlock | None = None, buses: int = 256) -> None:
        self.mapper, self.messages = Mapper(), Messages()
        self.lines: list[tuple[int, Line]] = []
        self.host = PciHost(self.mapper, self.messages, self.new_line, reset_control, buses)

    def new_line(self, index: int) -> Line:
        self.lines.append((index, Line()))
        return self.lines[-1][1]

    def raised(self) -> set[int]:
        """Which of the root's four lines are driven."""
        return {index for index, line in self.lines if line.up()}

    def read(self, bdf: int, offset: int, size: int = 4) -> int:
        access(self.host, ADDRESS, 4, True, ENABLE | bdf << 8 | offset & 0xFC)
        return access(self.host, DATA + (offset & 3), size, False)

    def write(self, bdf: int, offset: int, value: int, size: int = 4) -> None:
        access(self.host, ADDRESS, 4, True, ENABLE | bdf << 8 | offset & 0xFC)
        access(self.host, DATA + (offset & 3), size, True, value)

    def ecam_read(self, bdf: int, offset: int, size: int = 4) -> int:
        return access(self.host.ecam, bdf << 12 | offset, size, False)

    def ecam_write(self, bdf: int, offset: int, value: int, size: int = 4) -> None:
        access(self.host.ecam, bdf << 12 | offset, size, True, value)

    def capability(self, bdf: int, number: int) -> int:
        """The offset of a capability, found by walking the chain as a driver does; 0: none."""
        at, seen = self.read(bdf, CAPABILITIES, 1), 0
        while at and seen < 48:
            if self.read(bdf, at, 1) == number:
                return at
            at, seen = self.read(bdf, at + 1, 1), seen + 1
        return 0
