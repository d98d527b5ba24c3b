"""The boards, one line each, and how a configuration's `-machine` finds its own."""

from __future__ import annotations

from aioemu.config import MachineConfig
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError
from aioemu.log import Log
from aioemu.machine.board import Board, BoardType, read_options

_HERE = "aioemu.machine.boards"
BOARDS: tuple[BoardType, ...] = (
    BoardType("q35", "PC with PCI Express (Q35 and ICH9)", f"{_HERE}.q35", "Q35", aliases=("pc",), is_default=True),
    BoardType("microvm", "minimal board without PCI: one serial port, ACPI", f"{_HERE}.microvm", "Microvm"),
    BoardType("none", "empty machine", f"{_HERE}.none", "Empty"),
)
NOT_QUITE = {"pc": "-machine pc: this is board q35, with its devices at the same ports but on PCI Express"}


def find_board(name: str) -> BoardType:
    """The board called `name`, or that alias. Versioned names (`pc-q35-9.2`) mean the board itself."""
    for board in BOARDS:
        if name in (board.name, *board.aliases) or name.startswith(
            (f"pc-{board.name}-", "pc-i440fx-") * (board.is_default)
        ):
            return board
    known = [each for board in BOARDS for each in (board.name, *board.aliases)]
    raise ConfigError(f"-machine {name}: unsupported machine type{did_you_mean(name, known)}", "-machine")


def make_board(config: MachineConfig, log: Log) -> Board:
    """The board that the configuration names, with its options read. ConfigError names what is wrong."""
    name = config.machine.type
    kind = find_board(name)
    if name in NOT_QUITE:
        log.info("%s", NOT_QUITE[name])
    if config.smp.maxcpus > kind.max_cpus:
        reason = f"{config.smp.maxcpus} CPUs; machine '{kind.name}' has at most {kind.max_cpus}"
        raise ConfigError(f"-smp: {reason}", "-smp")
    board: Board = kind.factory(read_options(kind, config.machine.options), config)
    return board
