"""Nested option values: dotted keys (`a.b.0=c`) and the JSON form (`{...}`), both into plain dicts and lists.

Values of dotted keys stay strings; whoever reads them converts. JSON may use single quotes, as QEMU's own may.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NoReturn

from aioemu.config.grammar import pieces, where_of
from aioemu.config.model import OptionValue
from aioemu.errors import ConfigError

LIST_LIMIT = 1024  # an index above this is a typing mistake, and must not allocate
DEPTH_LIMIT = 64  # nesting that any real node graph stays far below
JSON_LIMIT = 1 << 20  # characters of one JSON argument; the kernel passes 128 KiB per argument
_FRAGMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|\d{1,4}", re.ASCII)
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', re.DOTALL)


def parse_keyval(option: str, argument: str, implied: str | None = None) -> dict[str, OptionValue]:
    """Read an argument whose every key must have a value; `{` starts the JSON form."""
    where = where_of(option, argument)
    if argument.startswith("{"):
        return parse_json(where, argument)
    return unflatten(where, _strict_pairs(where, argument, implied))


def _strict_pairs(where: str, argument: str, implied: str | None) -> Iterator[tuple[str, str]]:
    """The comma grammar without flags: a bare word is refused unless it is the implied first value."""
    for at, (key, value) in enumerate(pieces(argument)):
        if value is not None:
            yield key, value
        elif at == 0 and implied is not None:
            yield implied, key
        else:
            _fail(where, f"Expected '=' after parameter '{key}'")


def parse_json(where: str, text: str) -> dict[str, OptionValue]:
    """Read a JSON object; duplicate keys and numbers outside JSON are refused."""
    if len(text) > JSON_LIMIT:
        _fail(where, "JSON argument too long")
    import json  # few command lines have any

    try:
        value = json.loads(_double_quotes(text), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        _fail(where, "JSON nesting depth limit exceeded")
    except ValueError as exc:
        _fail(where, f"JSON parse error, {exc}")
    if not isinstance(value, dict):
        _fail(where, "expected a JSON object")
    return value


def unflatten(where: str, pairs: Iterable[tuple[str, OptionValue]]) -> dict[str, OptionValue]:
    """Turn dotted keys into nested dicts, and dicts whose keys are 0..n into lists; the last of equal keys wins."""
    root: dict[str, OptionValue] = {}
    for key, value in pairs:
        fragments = key.split(".")
        if len(fragments) > DEPTH_LIMIT or not all(_FRAGMENT.fullmatch(part) for part in fragments):
            _fail(where, f"Invalid parameter '{key}'")
        node = root
        for part in fragments[:-1]:
            child = node.setdefault(part, _Node())
            if not isinstance(child, _Node):
                _fail(where, f"Parameters '{part}.*' used inconsistently with '{part}'")
            node = child
        if isinstance(node.get(fragments[-1]), _Node):
            _fail(where, f"Parameters '{key}.*' used inconsistently with '{key}'")
        node[fragments[-1]] = value
    return {key: _listify(where, key, value) for key, value in root.items()}


class _Node(dict[str, OptionValue]):
    """A dict made by dotted keys, told apart from one that a JSON value brought."""


def _listify(where: str, key: str, value: OptionValue) -> OptionValue:
    """Lists for nodes whose keys are numbers; a mixture or a hole is a mistake."""
    if not isinstance(value, _Node):
        return value
    children = {name: _listify(where, f"{key}.{name}", child) for name, child in value.items()}
    numbers = [name for name in children if name.isdigit()]
    if not numbers:
        return children
    if len(numbers) != len(children):
        _fail(where, f"Parameters '{key}.*' used inconsistently: both numbers and names")
    for at in range(len(children)):
        if str(at) not in children:
            _fail(where, f"Parameter '{key}.{at}' is missing")
    if len(children) > LIST_LIMIT:
        _fail(where, f"Parameters '{key}.*': more than {LIST_LIMIT}")
    return [children[str(at)] for at in range(len(children))]


def _double_quotes(text: str) -> str:
    """Rewrite single-quoted strings as JSON's; leave everything else."""

    def rewrite(match: re.Match[str]) -> str:
        word = match.group()
        if word[0] == '"':
            return word
        return '"' + word[1:-1].replace('"', '\\"').replace("\\'", "'") + '"'

    return _STRING.sub(rewrite, text)


def _unique(pairs: list[tuple[str, OptionValue]]) -> dict[str, OptionValue]:
    """A dict, unless a key comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _no_constant(word: str) -> NoReturn:
    """Refuse NaN and the infinities, which are not JSON."""
    raise ValueError(f"invalid keyword '{word}'")


def _fail(where: str, message: str) -> NoReturn:
    raise ConfigError(f"{where}: {message}", where)
