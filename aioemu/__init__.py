"""A virtual machine monitor and emulator as an asyncio library and a command.

Names load on first use, so that `import aioemu` stays quick and a command that only prints its version loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aioemu.api import Deferred as Deferred
    from aioemu.api import Events as Events
    from aioemu.api import ExitStatus as ExitStatus
    from aioemu.api import Machine as Machine
    from aioemu.api import RawRange as RawRange
    from aioemu.api import RunState as RunState
    from aioemu.bus.registers import Reg as Reg
    from aioemu.bus.registers import RegisterBlock as RegisterBlock
    from aioemu.bus.registers import bit as bit
    from aioemu.bus.registers import field as field
    from aioemu.bus.wires import MMIO as MMIO
    from aioemu.bus.wires import PIO as PIO
    from aioemu.config import MachineConfig as MachineConfig
    from aioemu.devices.virtio.device import VirtioDevice as VirtioDevice
    from aioemu.errors import AccelError as AccelError
    from aioemu.errors import ConfigError as ConfigError
    from aioemu.errors import EmuError as EmuError
    from aioemu.errors import GuestError as GuestError
    from aioemu.errors import HostError as HostError
    from aioemu.errors import MonitorError as MonitorError
    from aioemu.errors import StateError as StateError
    from aioemu.lab import Lab as Lab
    from aioemu.netdev.capture import Capture as Capture
    from aioemu.netdev.link import Link as Link

# name -> module that defines it; the type checker reads the imports above instead
EXPORTS = {
    "AccelError": "aioemu.errors",
    "Capture": "aioemu.netdev.capture",
    "ConfigError": "aioemu.errors",
    "Deferred": "aioemu.api",
    "EmuError": "aioemu.errors",
    "Events": "aioemu.api",
    "ExitStatus": "aioemu.api",
    "GuestError": "aioemu.errors",
    "HostError": "aioemu.errors",
    "Lab": "aioemu.lab",
    "Link": "aioemu.netdev.link",
    "MMIO": "aioemu.bus.wires",
    "Machine": "aioemu.api",
    "MachineConfig": "aioemu.config",
    "MonitorError": "aioemu.errors",
    "PIO": "aioemu.bus.wires",
    "RawRange": "aioemu.api",
    "Reg": "aioemu.bus.registers",
    "RegisterBlock": "aioemu.bus.registers",
    "RunState": "aioemu.api",
    "StateError": "aioemu.errors",
    "VirtioDevice": "aioemu.devices.virtio.device",
    "bit": "aioemu.bus.registers",
    "field": "aioemu.bus.registers",
}


def __getattr__(name: str) -> object:
    """Load an exported name from its module when it is first asked for."""
    if name not in EXPORTS:
        raise AttributeError(f"module 'aioemu' has no attribute {name!r}")
    value: object = getattr(import_module(EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The exported names, loaded or not."""
    return sorted({*globals(), *EXPORTS})
