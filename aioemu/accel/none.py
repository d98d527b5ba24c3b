"""No processor: a machine whose devices a client drives over a socket (`-accel qtest`), or `-M none`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aioemu._core import lib
from aioemu.accel.base import ChipNeeds
from aioemu.accel.cpuid import Leaf


class NoProcessor:
    """Attaches to a machine and runs nothing."""

    def __init__(self, name: str = "none") -> None:
        self.name = name

    def attach(self, machine: Any, needs: ChipNeeds) -> None:
        lib.core_none_attach(machine)

    def supported(self) -> Sequence[Leaf]:
        return ()

    def close(self) -> None:
        """Nothing is held."""
