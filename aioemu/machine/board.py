"""What a board is: a name, its options, and how it builds itself from a kit. The boards are in `boards`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from sys import intern
from typing import TYPE_CHECKING, Any, Protocol

from aioemu.accel.base import ChipNeeds
from aioemu.config import MachineConfig
from aioemu.config.grammar import did_you_mean, parse_bool, parse_number
from aioemu.errors import ConfigError
from aioemu.memory.ranges import RamRange

if TYPE_CHECKING:
    from aioemu.boot.loader import BootLayout
    from aioemu.boot.tables import FirmwareTables
    from aioemu.machine.kit import Kit


class Board(Protocol):
    """A built or buildable board."""

    @property
    def needs(self) -> ChipNeeds:
        """Which of the accelerator's legacy chips it wants."""

    def ram(self, size: int) -> list[RamRange]:
        """Where `size` bytes of memory lie."""

    def build(self, kit: Kit) -> None:
        """Make, wire and place every chip."""

    def firmware(self, kit: Kit) -> FirmwareTables | None:
        """The tables for the guest's operating system; None: it gets none."""

    def boot_layout(self) -> BootLayout:
        """What the loader must keep clear of."""

    def boot_cmdline(self, given: str) -> str:
        """The kernel command line: what the user gave, and what the board adds to it."""

    def power_button(self) -> None:
        """The user pressed it."""


@dataclass(frozen=True, slots=True)
class BoardType:
    """One line of `-machine help`. Its `module` is loaded when the board is wanted: it brings the board's chips."""

    name: str
    description: str
    module: str
    class_name: str  # of the Board; its options are the module's `<class_name>Options`
    aliases: tuple[str, ...] = ()
    max_cpus: int = 255
    is_default: bool = False

    @property
    def options(self) -> type[Any]:
        """A frozen dataclass: field names with `_` for `-`, bool, int or str with defaults."""
        kind: type[Any] = getattr(import_module(self.module), intern(f"{self.class_name}Options"))
        return kind

    @property
    def factory(self) -> Callable[[Any, MachineConfig], Board]:
        """Makes the board from its options and the configuration."""
        make: Callable[[Any, MachineConfig], Board] = getattr(import_module(self.module), self.class_name)
        return make


# Given to -machine and read elsewhere, or without meaning here: taken by every board.
COMMON_OPTIONS = frozenset(
    "accel memory-backend usb vmport dump-guest-core mem-merge kernel-irqchip graphics hpet smm nvdimm firmware"
    " confidential-guest-support sata smbus i8042 aux-ram-share default-bus-bypass-iommu".split()
)


def read_options(board: BoardType, given: Mapping[str, Any]) -> Any:
    """The board's options as its dataclass. ConfigError names an unknown option and the nearest known one."""
    options = board.options
    fields = options.__dataclass_fields__
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name in fields:
            values[name] = _typed(key, value, fields[name].type)
        elif key not in COMMON_OPTIONS:
            known = [*(f.replace("_", "-") for f in fields), *COMMON_OPTIONS]
            raise ConfigError(f"Property '{board.name}-machine.{key}' not found{did_you_mean(key, known)}", "-machine")
    return options(**values)


def _typed(key: str, value: Any, kind: str) -> Any:
    typed = value
    if kind == "bool" and not isinstance(value, bool):
        typed = parse_bool(str(value))
    elif kind == "int" and not isinstance(value, int):
        typed = parse_number(str(value))
    elif kind.startswith("str"):
        typed = str(value)
    if typed is None:
        raise ConfigError(
            f"-machine {key}={value}: {'on or off' if kind == 'bool' else 'a number'} is wanted", "-machine"
        )
    return typed
