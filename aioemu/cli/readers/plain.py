"""Readers that need no code of their own: the table names what is set."""

from __future__ import annotations

from collections.abc import Callable

from aioemu.cli.draft import Draft, Values
from aioemu.cli.readers.groups import add_group
from aioemu.cli.reading import Argument, Reader
from aioemu.cli.rows import FLAG, Option
from aioemu.config import OptionGroup

DISKS: dict[str, Values] = {
    "hda": {"index": 0, "media": "disk"},
    "hdb": {"index": 1, "media": "disk"},
    "hdc": {"index": 2, "media": "disk"},
    "hdd": {"index": 3, "media": "disk"},
    "cdrom": {"index": 2, "media": "cdrom"},
    "fda": {"if": "floppy", "index": 0},
    "fdb": {"if": "floppy", "index": 1},
    "pflash": {"if": "pflash", "format": "raw"},
}


def _field(name: str, option: Option) -> Reader:
    def read(draft: Draft, arg: Argument) -> None:
        setattr(draft, name, arg.text)

    return read


def _flag(name: str, option: Option) -> Reader:
    def read(draft: Draft, arg: Argument) -> None:
        draft.flags[name] = True if option.grammar == FLAG else arg.text

    return read


def _process(name: str, option: Option) -> Reader:
    def read(draft: Draft, arg: Argument) -> None:
        draft.process[name] = True if option.grammar == FLAG else arg.text

    return read


def _group(name: str, option: Option) -> Reader:
    def read(draft: Draft, arg: Argument) -> None:
        add_group(draft, arg, name.rstrip("!"), option.implied, need_id=name.endswith("!"))

    return read


def _disk(name: str, option: Option) -> Reader:
    def read(draft: Draft, arg: Argument) -> None:
        draft.add_group(arg.where, OptionGroup("drive", None, None, {"file": arg.text, **DISKS[name]}))

    return read


PLAIN: dict[str, Callable[[str, Option], Reader]] = {
    "disk": _disk,
    "field": _field,
    "flag": _flag,
    "group": _group,
    "process": _process,
}
