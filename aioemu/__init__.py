"""A virtual machine monitor and emulator as an asyncio library and a command.

Names load on first use, so that `import aioemu` stays quick and a command that only prints its version loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aioemu.errors import (
        AccelError as AccelError,
    )
    from aioemu.errors import (
        ConfigError as ConfigError,
    )
    from aioemu.errors import (
        EmuError as EmuError,
    )
    from aioemu.errors import (
        GuestError as GuestError,
    )
    from aioemu.errors import (
        HostError as HostError,
    )
    from aioemu.errors import (
        MonitorError as MonitorError,
    )

# name -> module that defines it; the type checker reads the imports above instead
EXPORTS = {
    "AccelError": "aioemu.errors",
    "ConfigError": "aioemu.errors",
    "EmuError": "aioemu.errors",
    "GuestError": "aioemu.errors",
    "HostError": "aioemu.errors",
    "MonitorError": "aioemu.errors",
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
