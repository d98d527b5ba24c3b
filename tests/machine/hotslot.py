"""A machine without a processor, and a guest's hands on its root port."""

from __future__ import annotations

from aioemu.bus.wires import PIO
from aioemu.machine.machine import Machine
from aioemu.protocol.hmp.interpreter import Interpreter
from aioemu.protocol.hub import LocalCaller, MonitorHub

PORT = 1 << 3  # the root port is 00:01.0
LNKSTA, SLTCTL, SLTSTA = 0x12, 0x18, 0x1A  # of the Express capability (PCIe 2.0, 7.8)
PRESSED, PRESENCE_CHANGED, PRESENT, LINK_CHANGED, LINK_ACTIVE = 1, 8, 0x40, 0x100, 0x2000
ON, BLINKING, OFF = 0x100, 0x200, 0x300
EVENTS_ON = 0x1 | 0x20 | 0x1000  # button, hot plug interrupt, link


class Bench:
    """A machine without a processor, and the guest's hands on its root port."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.hub = MonitorHub(machine)
        self.monitor = Interpreter(LocalCaller(self.hub))
        self.events: list[tuple[str, str | None]] = []
        self.hub.listeners.append(lambda e: self.events.append((e["event"], e.get("data", {}).get("device"))))
        self.config_write(0x18, 4, 0x00020200 | 0x0000)  # secondary and subordinate bus 2
        at = self.config_read(0x34, 1)
        while self.config_read(at, 1) != 0x10:
            at = self.config_read(at + 1, 1)
        self.express = at

    def _select(self, offset: int, bus: int, devfn: int) -> int:
        self.machine.native.router.write(PIO, 0xCF8, 4, 1 << 31 | bus << 16 | devfn << 8 | offset & ~3)
        return 0xCFC + (offset & 3)

    def config_read(self, offset: int, size: int, bus: int = 0, devfn: int = PORT) -> int:
        return self.machine.native.router.read(PIO, self._select(offset, bus, devfn), size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        self.machine.native.router.write(PIO, self._select(offset, 0, PORT), size, value)

    def read(self, register: int) -> int:
        return self.config_read(self.express + register, 2)

    def write(self, register: int, value: int) -> None:
        self.config_write(self.express + register, 2, value)

    @property
    def slot(self) -> int:
        """Vendor and device behind the port."""
        return self.config_read(0, 4, bus=2, devfn=0)

    def interrupting(self) -> bool:
        return any(source.level for source in self.machine.kit.sources)

    async def release(self, name: str) -> None:
        """device_del, and the guest lets the device go."""
        await self.hub.execute("device_del", {"id": name})
        self.write(SLTSTA, PRESSED)
        self.write(SLTCTL, EVENTS_ON | BLINKING)
        self.write(SLTCTL, EVENTS_ON | OFF)
        self.write(SLTSTA, PRESENCE_CHANGED | LINK_CHANGED)
