"""A back end's options, typed: from the text of `-netdev` or the JSON of `netdev_add` into its frozen dataclass.

The dataclass is the schema (`_` for `-`); its annotations are the types. Every value is checked; the messages are those
that QEMU's users know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from aioemu.config.grammar import did_you_mean, parse_bool, parse_number, parse_size
from aioemu.errors import ConfigError

Size = int  # bytes, written with a unit where it is text: 64k


def read_options(schema: type[Any], kind: str, values: Mapping[str, Any]) -> Any:
    """The options of one back end. ConfigError names what is unknown, missing or cannot be."""
    known = {option_name(field.name): field for field in dataclasses.fields(schema)}
    read: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"Parameter '{key}' is unexpected{did_you_mean(key, known)}", f"-netdev {kind}")
        field = known[key]
        read[field.name] = _READERS[str(field.type).removesuffix(" | None")](key, value)
    for key, field in known.items():
        if field.name not in read and field.default is dataclasses.MISSING:
            raise ConfigError(f"Parameter '{key}' is missing", f"-netdev {kind}")
    return schema(**read)


def option_name(field: str) -> str:
    """What the option of a field is called; QEMU spells one with an underscore, against its habit."""
    return field if field == "vnet_hdr" else field.replace("_", "-")


def _text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ConfigError(f"Invalid parameter type for '{key}', expected: string")


def _flag(key: str, value: Any) -> bool:
    found = value if isinstance(value, bool) else parse_bool(value) if isinstance(value, str) else None
    if found is None:
        raise ConfigError(f"Parameter '{key}' expects 'on' or 'off'")
    return found


def _number(key: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    found = parse_number(value) if isinstance(value, str) else None
    if found is None or found < 0:
        raise ConfigError(f"Parameter '{key}' expects a number")
    return found


def _size(key: str, value: Any) -> int:
    if not isinstance(value, str):
        return _number(key, value)
    found = parse_size(value)
    if found is None:
        raise ConfigError(f"Parameter '{key}' expects a size value")
    return found


def _texts(key: str, value: Any) -> tuple[str, ...]:
    """Repeated on a command line, a list in JSON, where each may be an object with its text as `str`."""
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(
        _text(key, item["str"] if isinstance(item, dict) and item.keys() == {"str"} else item) for item in items
    )


def _nested(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ConfigError(f"Invalid parameter type for '{key}', expected: object")


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "str": _text,
    "bool": _flag,
    "int": _number,
    "Size": _size,
    "tuple[str, ...]": _texts,
    "dict[str, Any]": _nested,
}
