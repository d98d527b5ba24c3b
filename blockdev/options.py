"""What a block driver can be told (`-blockdev driver=X,key=value`): a frozen dataclass, read from text or JSON values.

The dataclass is the schema: its fields are the options (`_` for `-`), made by `text`, `flag`, `size`, `number`,
`choice`, `child` and `nested`. Values from a command line are strings, from JSON and QMP they have types, and both are
checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from aioemu.config.grammar import did_you_mean, parse_bool, parse_number, parse_size
from aioemu.errors import ConfigError

MISSING: Any = dataclasses.MISSING
INT64 = (1 << 63) - 1
UINT64 = (1 << 64) - 1
T = TypeVar("T")


def _option(kind: str, default: Any, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, **metadata})


def text(default: Any = MISSING) -> Any:
    """A string."""
    return _option("text", default)


def flag(default: Any = False) -> Any:
    """On or off."""
    return _option("flag", default)


def size(default: Any = MISSING) -> Any:
    """A number of bytes; a suffix is allowed on the command line."""
    return _option("size", default, low=0, high=UINT64)


def number(default: Any = MISSING, low: int = -INT64 - 1, high: int = INT64, **name: str) -> Any:
    """A whole number; `name` where it is spelt otherwise than the field."""
    return _option("number", default, low=low, high=high, **name)


def choice(words: Sequence[str], default: Any = MISSING) -> Any:
    """One of a few words."""
    return _option("choice", default, words=tuple(words))


def child(*, optional: bool = False) -> Any:
    """A child node: a node's name, or the options of a new one. An optional one may be null (None is given then).

    The value in the dataclass is what was given, or NOT_GIVEN; the node is in `Node.children` under the option's name.
    """
    return _option("child", NOT_GIVEN if optional else MISSING, optional=optional)


def nested(schema: type[Any]) -> Any:
    """A group of options with a dataclass of its own."""
    return dataclasses.field(default_factory=schema, metadata={"kind": "nested", "schema": schema})


def anything(default: Any = None, *, shape: Sequence[Any] = ()) -> Any:
    """Any value: the driver reads it itself. `shape` describes it: each a dataclass of options, words (a tuple), or a
    list of one of them; nothing where no value is served.
    """
    return _option("any", default, shape=tuple(shape))


class _NotGiven:
    """Told apart from null, which means: none on purpose."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Any = _NotGiven()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """`cache.direct=` and `cache.no-flush=`."""

    direct: bool = flag()
    no_flush: bool = flag()


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """What every driver takes."""

    node_name: str | None = text(None)
    read_only: bool = flag()
    auto_read_only: bool = flag()
    force_share: bool = flag()
    discard: str = choice(("ignore", "unmap"), "ignore")
    detect_zeroes: str = choice(("off", "on", "unmap"), "off")
    cache: CacheOptions = nested(CacheOptions)


def option_names(schema: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a schema by the names that users write."""
    fields = dataclasses.fields(schema)
    return {field.metadata.get("name", field.name.strip("_").replace("_", "-")): field for field in fields}


def children_of(schema: type[Any]) -> list[str]:
    """The options that are child nodes."""
    return [name for name, field in option_names(schema).items() if field.metadata["kind"] == "child"]


def read_options(schema: type[T], given: Mapping[str, Any], *, path: str = "", strict: bool = False) -> T:
    """A schema's values out of what was given; `strict`: of JSON's types, a string is no number.

    ConfigError in the words of QEMU's option visitors.
    """
    known = option_names(schema)
    left = dict(given)
    values: dict[str, Any] = {}
    for name, field in known.items():
        where = f"{path}{name}"
        if name in left:
            values[field.name] = _typed(where, left.pop(name), {**field.metadata, "strict": strict})
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"Parameter '{where}' is missing", where)
    for name in left:
        hint = did_you_mean(name, known)
        raise ConfigError(f"Parameter '{path}{name}' is unexpected{hint}", f"{path}{name}")
    return schema(**values)


def write_options(options: Any) -> dict[str, Any]:
    """What `read_options` read, without defaults: the JSON form."""
    given: dict[str, Any] = {}
    for name, field in option_names(type(options)).items():
        value = getattr(options, field.name)
        if field.metadata["kind"] == "nested":
            value = write_options(value)
            if value:
                given[name] = value
        elif value is not NOT_GIVEN and (field.default is MISSING or value != field.default):
            given[name] = value
    return given


def _typed(where: str, value: Any, field: Mapping[str, Any]) -> Any:
    return _READERS[field["kind"]](where, value, field)


def _wrong(where: str, expected: str) -> NoReturn:
    raise ConfigError(f"Invalid parameter type for '{where}', expected: {expected}", where)


def _text(where: str, value: Any, field: Mapping[str, Any]) -> str:
    if not isinstance(value, str):
        _wrong(where, "string")
    if "\0" in value:  # which no name of a file, a node or a driver has: the host would raise at each use of its own
        raise ConfigError(f"Parameter '{where}' must not contain a null character", where)
    return value


def _flag(where: str, value: Any, field: Mapping[str, Any]) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or field["strict"]:
        _wrong(where, "boolean")
    parsed = parse_bool(value)
    if parsed is None:
        raise ConfigError(f"Parameter '{where}' expects 'on' or 'off'", where)
    return parsed


def _integer(where: str, value: Any, field: Mapping[str, Any]) -> int:
    is_size = field["kind"] == "size"
    parsed = value
    if isinstance(value, str) and not field["strict"]:
        parsed = parse_size(value) if is_size else parse_number(value)
        if parsed is None:
            raise ConfigError(f"Parameter '{where}' expects {'a size' if is_size else 'an integer'}", where)
    if not isinstance(parsed, int) or isinstance(parsed, bool):
        _wrong(where, "integer")
    if not field["low"] <= parsed <= field["high"]:
        raise ConfigError(f"Parameter '{where}' expects a value from {field['low']} to {field['high']}", where)
    return parsed


def _choice(where: str, value: Any, field: Mapping[str, Any]) -> str:
    word = _text(where, value, field)
    if word not in field["words"]:
        raise ConfigError(f"Parameter '{where.rpartition('.')[2]}' does not accept value '{word}'", where)
    return word


def _child(where: str, value: Any, field: Mapping[str, Any]) -> Any:
    if value is None and field["optional"]:
        return None
    if not isinstance(value, (str, Mapping)):
        _wrong(where, "BlockdevRef")
    return value


def _nested(where: str, value: Any, field: Mapping[str, Any]) -> Any:
    if not isinstance(value, Mapping):
        _wrong(where, "object")
    return read_options(field["schema"], value, path=f"{where}.", strict=field["strict"])


def _any(where: str, value: Any, field: Mapping[str, Any]) -> Any:
    return value


_READERS = {
    "text": _text,
    "flag": _flag,
    "size": _integer,
    "number": _integer,
    "choice": _choice,
    "child": _child,
    "nested": _nested,
    "any": _any,
}
