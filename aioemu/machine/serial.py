"""Serial ports and the chardevs that the configuration ties to them, in port order."""

from __future__ import annotations

from aioemu.chardev import Chardevs
from aioemu.devices.uart import Uart


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
