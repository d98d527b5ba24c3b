"""Applies one option to a draft: its argument taken apart as its row says, then handed to its reader.

Not here: what any option means (readers). `help` or `?` in the argument of an option that has help is a HelpRequest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from aioemu.cli.rows import FLAG, KEYVAL, NESTED, TEXT, Option
from aioemu.config.grammar import Options, Pairs, parse_pairs, pieces, where_of
from aioemu.config.keyval import parse_json, parse_keyval, unflatten
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.cli.draft import Draft

HELP = ("help", "?")
# groups of options that tell their parameters; the others take the word for the value of their first one
GROUPS_WITH_HELP = ("action", "boot-opts", "msg", "overcommit", "rtc", "run-with", "sandbox", "smp-opts")


class HelpRequest(Exception):  # noqa: N818 nothing is wrong
    """The user asked what an option takes: `topic` is the row's, `name` what they asked about."""

    def __init__(self, topic: str, name: str | None) -> None:
        super().__init__(topic, name)
        self.topic = topic
        self.name = name


@dataclass(slots=True)
class Argument:
    """What a reader gets: the place for errors, the text, and the text taken apart where the row says so."""

    where: str
    text: str
    opts: Options


Reader = Callable[["Draft", Argument], None]


def read_option(draft: Draft, option: Option, word: str, text: str) -> None:
    """Apply one option of the command line."""
    if not option.reader:
        raise ConfigError(f"{word}: asks a question, and does not describe a machine", word)
    if option.topic is not None:
        _look_for_help(option, text)
    if text in HELP and option.group in GROUPS_WITH_HELP:
        raise HelpRequest("group", option.group)
    where = where_of(word, text)
    opts = Options(where, _pairs(option, word, where, text))
    find_reader(option)(draft, Argument(where, text, opts))


def read_group(draft: Draft, option: Option, where: str, group_id: str | None, pairs: Pairs) -> None:
    """Apply one group of a configuration file."""
    if option.grammar in (NESTED, KEYVAL):
        pairs = list(unflatten(where, pairs).items())
    if group_id is not None:
        pairs = [("id", group_id), *pairs]
    find_reader(option)(draft, Argument(where, "", Options(where, pairs)))


def find_reader(option: Option) -> Reader:
    """The function that a row names."""
    from aioemu.cli.readers.plain import PLAIN

    module, _, function = option.reader.partition(":")
    if module in PLAIN:
        return PLAIN[module](function, option)
    reader: Reader = getattr(import_module(f"aioemu.cli.readers.{module}"), function)
    return reader


def _pairs(option: Option, word: str, where: str, text: str) -> Pairs:
    if option.grammar in (FLAG, TEXT):
        return []
    if option.grammar == KEYVAL:
        return list(parse_keyval(word, text, option.implied).items())
    if option.grammar == NESTED and text.startswith("{"):
        return list(parse_json(where, text).items())
    return parse_pairs(text, option.implied)


def _look_for_help(option: Option, text: str) -> None:
    """`help`, or `X,help`."""
    assert option.topic is not None
    if option.name in ("net", "nic") and any(key == "model" and value in HELP for key, value in pieces(text)):
        raise HelpRequest("nic", None)
    if option.name == "drive" and any(key == "format" and value in HELP for key, value in pieces(text)):
        raise HelpRequest("format", None)
    bare = [(at, key) for at, (key, value) in enumerate(pieces(text)) if value is None]
    if any(key in HELP for _, key in bare):
        at, name = bare[0]
        raise HelpRequest(option.topic, name if at == 0 and name not in HELP else None)
