"""QEMU's configuration file (`-readconfig`): groups of `key = "value"`, one group per option.

Only the text is taken apart here; what a group means is the option table's business. The file is the user's own:
it is trusted with content, not with size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from aioemu.errors import ConfigError, HostError

FILE_LIMIT = 16 << 20  # bytes; the largest generated ones (hundreds of devices) are some 100 KiB
_GROUP_WITH_ID = re.compile(r'\[\s*([A-Za-z0-9_-]+)\s+"([^"]*)"\s*\]', re.ASCII)
_GROUP = re.compile(r"\[\s*([A-Za-z0-9_-]+)\s*\]", re.ASCII)
_QUOTED = re.compile(r'([A-Za-z0-9_.-]+)\s*=\s*"([^"]*)"', re.ASCII)
_BARE = re.compile(r'([A-Za-z0-9_.-]+)\s*=\s*([^"\s]\S*)', re.ASCII)


@dataclass(slots=True)
class Group:
    """One `[group "id"]` and its keys in order, with the place for errors."""

    where: str
    name: str
    id: str | None
    pairs: list[tuple[str, str]] = field(default_factory=list)


def read_groups(path: str) -> Iterator[Group]:
    """The groups of the file at `path`, in order."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(FILE_LIMIT + 1)
    except OSError as exc:
        raise HostError(f"-readconfig {path}: open", exc.errno) from exc
    if len(text) > FILE_LIMIT:
        raise ConfigError(f"-readconfig {path}: larger than {FILE_LIMIT >> 20} MiB", f"-readconfig {path}")
    return parse_groups(path, text)


def parse_groups(path: str, text: str) -> Iterator[Group]:
    """The groups in `text`; errors name `path` and the line."""
    group: Group | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{path}:{number}"
        if line.startswith("["):
            if group is not None:
                yield group
            group = _group(where, line)
            continue
        match = _QUOTED.fullmatch(line) or _BARE.fullmatch(line)
        if match is None:
            raise ConfigError(f'{where}: expected key = "value", got {line[:60]!r}', where)
        if group is None:
            raise ConfigError(f"{where}: no group defined before {match.group(1)!r}", where)
        group.pairs.append((match.group(1), match.group(2)))
    if group is not None:
        yield group


def _group(where: str, line: str) -> Group:
    """The header `[name]` or `[name "id"]`."""
    if match := _GROUP_WITH_ID.fullmatch(line):
        return Group(where, match.group(1), match.group(2))
    if match := _GROUP.fullmatch(line):
        return Group(where, match.group(1), None)
    raise ConfigError(f'{where}: expected [group] or [group "id"], got {line[:60]!r}', where)
