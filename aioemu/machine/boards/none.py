"""The empty board: no processor, no chip. Tools start it to ask what a build can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioemu.accel.base import ChipNeeds
from aioemu.config import MachineConfig
from aioemu.memory.ranges import RamRange

if TYPE_CHECKING:
    from aioemu.boot.loader import BootLayout
    from aioemu.boot.tables import FirmwareTables
    from aioemu.machine.kit import Kit


@dataclass(frozen=True, slots=True)
class EmptyOptions:
    """It has none of its own."""


class Empty:
    """Memory, and nothing else."""

    needs = ChipNeeds(pit=False, pic=False)

    def __init__(self, options: EmptyOptions, config: MachineConfig) -> None:
        self.options = options

    def ram(self, size: int) -> list[RamRange]:
        return [RamRange(0, size)]

    def build(self, kit: Kit) -> None:
        """Nothing is on it."""

    def firmware(self, kit: Kit) -> FirmwareTables | None:
        return None

    def boot_layout(self) -> BootLayout:
        from aioemu.boot.loader import BootLayout  # who asks what a build can do, boots nothing

        return BootLayout()

    def boot_cmdline(self, given: str) -> str:
        return given

    def power_button(self) -> None:
        """There is none."""
