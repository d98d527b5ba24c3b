"""`-readconfig`: each group of the file is one option, read as if it stood on the command line here."""

from __future__ import annotations

from aioemu.cli.draft import Draft
from aioemu.cli.reading import Argument, read_group
from aioemu.cli.table import by_group
from aioemu.config.grammar import did_you_mean
from aioemu.config.inifile import read_groups
from aioemu.errors import ConfigError


def readconfig(draft: Draft, arg: Argument) -> None:
    """Apply the file's groups in order; errors name its lines."""
    table = by_group()
    for group in read_groups(arg.text):
        option = table.get(group.name)
        if option is None:
            message = f"There is no option group '{group.name}'{did_you_mean(group.name, table)}"
            raise ConfigError(f"{group.where}: {message}", group.where)
        read_group(draft, option, group.where, group.id, group.pairs)
