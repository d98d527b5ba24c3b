"""What may be said of any PCI function's place (`-device X,multifunction=on`), whatever the device is."""

from __future__ import annotations

from dataclasses import dataclass

from aioemu.devices.properties import prop


@dataclass(frozen=True, slots=True)
class PciPlace:
    """Besides `bus` and `addr`, which every device has. There are no option ROMs: `romfile=` can only be empty."""

    addr: str | None = prop(None, "str", "Slot and optional function number, example: 06.0 or 06")
    multifunction: bool = prop(False, "bool", "function 0 of a device with more functions")
    romfile: str | None = prop(None, "str", "can only be empty")
    rombar: int | None = prop(None, "uint32", "read and left: there is no option ROM")


PLACE_NAMES = ("multifunction", "romfile", "rombar")
