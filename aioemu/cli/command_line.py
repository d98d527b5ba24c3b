"""From the command line to a configuration: walk the arguments, read each by its row of the table.

The walk alone is light and serves -version and -help; reading loads what the options given need. Both spellings
(`-opt`, `--opt`) are taken. A bare argument is a disk image, as QEMU has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aioemu.cli.rows import FLAG, Option
from aioemu.cli.table import by_name
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.config import MachineConfig

IMAGE = "hda"  # what a bare argument is


def walk(argv: Sequence[str]) -> Iterator[tuple[Option, str, str]]:
    """Each option with its row, the way it was spelled, and its argument ("" for flags)."""
    table = by_name()
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-") or word == "-":
            yield table[IMAGE], "", word
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        option = table.get(name)
        if option is None:
            raise _unknown(word, name, table)
        if option.grammar == FLAG:
            yield option, word, ""
            continue
        argument = next(rest, None)
        if argument is None:
            raise ConfigError(f"{word}: requires an argument", word)
        yield option, word, argument


def _unknown(word: str, name: str, table: dict[str, Option]) -> ConfigError:
    from aioemu.config.grammar import did_you_mean

    key = name.partition("=")[0]
    if key != name and key in table:
        return ConfigError(f"{word}: unknown option; the argument of -{key} is a word of its own", word)
    return ConfigError(f"{word}: unknown option{did_you_mean(name, table, '-')}", word)


def read_command_line(argv: Sequence[str]) -> tuple[MachineConfig, list[str]]:
    """The whole configuration and warnings. ConfigError says what is wrong; HelpRequest that help was asked for."""
    from aioemu.cli.draft import Draft
    from aioemu.cli.reading import read_option

    draft = Draft()
    for option, word, argument in walk(argv):
        read_option(draft, option, word, argument)
    return draft.finish(), draft.warnings
