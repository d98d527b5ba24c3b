"""A device of your own: declare its registers, place it at an address, and a guest finds it there.

    python examples/own_device.py   # driven from the host, as a client of -accel qtest would

Plain registers never reach Python. A register with a hook does: the hook may answer at once or as a coroutine.
"""

from __future__ import annotations

import asyncio

import aioemu

BASE = 0xFEB0_0000


class Control(aioemu.Reg):
    """Starts a measurement: bit 0. The other bits are plain memory."""

    width, writable = 4, 0xFF
    start = aioemu.bit(0)


class Temperature(aioemu.Reg):
    """Thousandths of a degree."""

    width = 4


class Thermometer(aioemu.RegisterBlock):
    """Two registers: a plain one with a write hook, and one that is measured when it is read."""

    layout = {0: Control, 4: Temperature}

    def __init__(self) -> None:
        self.started = 0
        super().__init__()

    def write_control(self, value: int) -> None:
        """The guest goes on when this returns."""
        self.started += bool(value & Control.start)

    async def read_temperature(self) -> int:
        """The vCPU sleeps until the answer is there; the loop does not."""
        await asyncio.sleep(0)
        return 21_500


async def main() -> None:
    """Place the device on a machine that is built but does not run, and touch it as a guest would."""
    thermometer = Thermometer()
    vm = aioemu.Machine(machine="microvm", accel="qtest", paused=True)
    vm.place(thermometer, mmio=BASE)
    async with vm:
        bus = vm.machine.native.router
        bus.write(aioemu.MMIO, BASE, 4, 0x31)
        print(f"control reads {bus.read(aioemu.MMIO, BASE, 4):#x}, started {thermometer.started} time(s)")
        for region in vm.regions:
            print(f"{region.base:#x}..{region.last:#x} {region.name}")


if __name__ == "__main__":
    asyncio.run(main())
