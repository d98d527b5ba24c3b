"""Serial ports and the chardevs that the configuration ties to them, in port order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioemu._core import lib
from aioemu.bus.wires import Timers
from aioemu.chardev import Chardevs

if TYPE_CHECKING:
    from aioemu.devices.uart import Uart

TICK_NS = 5_000_000  # how late a byte may be that a guest sends without looking at the port again


class PolledOutput:
    """Lets the accelerator gather what a guest sends by polling, and ticks while it does: nothing stays behind."""

    def __init__(self, uart: Uart, port: int, timers: Timers) -> None:
        self._uart = uart
        self._timers = timers
        self._timer = timers.timer(self._tick)
        self._ticking = False
        lib.core_uart_gather_at(uart.chip, port)

    def notified(self) -> None:
        """The chip has news, perhaps that it gathers now."""
        self._uart.notified()
        if lib.core_uart_gathering(self._uart.chip) and not self._ticking:
            self._arm()

    def _arm(self) -> None:
        self._ticking = True
        self._timer.arm(self._timers.now_ns() + TICK_NS)

    def _tick(self) -> None:
        self._ticking = False
        gathering = lib.core_uart_gathering(self._uart.chip)
        lib.core_uart_gather_tick(self._uart.chip)
        self._uart.notified()
        if gathering:  # one round more than it gathers, for what came in between
            self._arm()


class SerialPorts:
    """Plugs each UART that the board makes into the chardev of its number; a port without one leads nowhere."""

    def __init__(self, chardevs: Chardevs, serials: tuple[str | None, ...]) -> None:
        self.chardevs = chardevs
        self._serials = serials

    def chardev_id(self, number: int) -> str | None:
        """The chardev of port `number`."""
        return self._serials[number] if number < len(self._serials) else None

    def connect(self, uart: Uart, number: int) -> None:
        """Plug port `number` in."""
        chardev_id = self.chardev_id(number)
        if chardev_id is not None:
            self.plug(uart, chardev_id)

    def plug(self, uart: Uart, chardev_id: str) -> None:
        """Plug a port into a chardev by name (`-device isa-serial,chardev=`)."""
        port = self.chardevs.claim(chardev_id)
        uart.connect(port)
        port.connect(uart)
