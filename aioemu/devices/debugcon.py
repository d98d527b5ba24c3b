"""Debug console: bytes written go to the host. Not modelled: flow control.

Writes are posted, so firmware that logs a lot does not wait; reading gives the value by which firmware finds the port.
"""

from __future__ import annotations

from aioemu.bus.registers import Reg, RegisterBlock
from aioemu.bus.wires import ByteSink

READBACK = 0xE9  # firmware probes for this value (Bochs)


class Data(Reg):
    """Each byte written appears on the host; reads give `readback`."""

    posted = True
    writable = 0


class DebugCon(RegisterBlock):
    """One port."""

    layout = {0: Data}

    def __init__(self, sink: ByteSink, readback: int = READBACK) -> None:
        self.sink = sink
        self.tuning = {"data": {"reset": readback}}
        super().__init__()

    def write_data(self, value: int) -> None:
        self.sink.put(value)
