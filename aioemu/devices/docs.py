"""The register maps of every chip as a Markdown page, from the declarations that the chips are made of.

`python -m aioemu.devices.docs > docs/registers.md`; a test keeps the page current.
"""

from __future__ import annotations

import inspect
import sys

from aioemu.bus.registers import RegisterGroup, describe
from aioemu.devices.acpi_pm import AcpiPm, Gpe
from aioemu.devices.debugcon import DebugCon
from aioemu.devices.i8042 import Port60, Port64
from aioemu.devices.isa_debug_exit import IsaDebugExit
from aioemu.devices.pci.bridge import Bridge
from aioemu.devices.pci.capabilities import Express, PowerManagement
from aioemu.devices.pci.function import PciFunction
from aioemu.devices.pci.msi import Msi, Msix
from aioemu.devices.pci.q35 import HostBridge, Lpc
from aioemu.devices.port92 import Port92
from aioemu.devices.pvpanic import Pvpanic
from aioemu.devices.reset_control import ResetControl
from aioemu.devices.rtc import Rtc

CHIPS: tuple[type[RegisterGroup], ...] = (
    Rtc,
    Port60,
    Port64,
    AcpiPm,
    Gpe,
    Port92,
    ResetControl,
    DebugCon,
    IsaDebugExit,
    Pvpanic,
    PciFunction,
    Bridge,
    PowerManagement,
    Express,
    Msi,
    Msix,
    HostBridge,
    Lpc,
)
HEAD = """# Registers

Made from the declarations in `aioemu/devices` by `python -m aioemu.devices.docs`. A register's kind says who answers:
`plain`, `read-only`, `w1c` (a written one clears) and `rc` (reading clears) are answered without leaving the core,
`posted` writes reach Python without the guest waiting, `sync` reads (r) or writes (w) are answered by Python.
The serial port, the PM timer, the MSI-X table and the way to PCI's configuration space are wholly in C: see `uart.c`,
`pmtimer.c`, `msix.c` and `pcihost.c` in `aioemu/core`. Values that differ between instances (identities, BAR masks)
show as zero.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(chip) for chip in CHIPS)])


def _section(chip: type[RegisterGroup]) -> str:
    about = (inspect.getdoc(sys.modules[chip.__module__]) or "").partition("\n")[0]
    own = (inspect.getdoc(chip) or "").partition("\n")[0]
    return f"## {chip.__name__}\n\n{about} {own}\n\n{describe(chip)}\n"


if __name__ == "__main__":
    sys.stdout.write(page())
