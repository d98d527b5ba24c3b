"""What may be set on a device (`-device X,key=value`): a frozen dataclass, read from text or JSON values.

The dataclass is the schema: its fields are the properties (`_` for `-`), their metadata the type that `-device X,help`
shows. Every value is checked against that type; errors name the device and the property.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from aioemu.config.grammar import did_you_mean, parse_bool, parse_number, parse_size
from aioemu.errors import ConfigError

LIMITS = {
    "uint8": (0, 0xFF),
    "uint16": (0, 0xFFFF),
    "uint32": (0, 0xFFFFFFFF),
    "uint64": (0, (1 << 64) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "size": (0, (1 << 64) - 1),
}


def prop(default: Any, kind: str, about: str = "", least: int | None = None, most: int | None = None) -> Any:
    """One property: its default, its type by QEMU's name (`str` for a chardev or another object's id), its range."""
    metadata = {"kind": kind, "about": about, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


def read_properties(driver: str, schema: type[Any], given: Mapping[str, Any]) -> Any:
    """The properties of one device. ConfigError names what is unknown or cannot be."""
    known = {field.name.replace("_", "-"): field for field in dataclasses.fields(schema)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        field = known.get(key.replace("_", "-"))
        if field is None:
            raise ConfigError(f"Property '{driver}.{key}' not found{did_you_mean(key, known)}", option="-device")
        values[field.name] = _typed(f"{driver}.{key}", value, field.metadata)
    return schema(**values)


def property_values(given: Any) -> dict[str, Any]:
    """Properties that were read, by their names; what was not given and has no default is left out."""
    found = ((field.name.replace("_", "-"), getattr(given, field.name)) for field in dataclasses.fields(given))
    return {name: value for name, value in found if value is not None}


class Live(Struct, frozen=True):
    """A property of what runs: read at any time, and set where `write` is. `kind` is a property's, or `object`."""

    kind: str
    read: Callable[[], Any]
    write: Callable[[Any], None] | None = None
    about: str = ""


def describe_live(given: Any) -> dict[str, Live]:
    """Properties that were read, as what runs shows them."""

    def shown(field: dataclasses.Field[Any]) -> Live:
        return Live(field.metadata["kind"], lambda: getattr(given, field.name), None, field.metadata["about"])

    return {field.name.replace("_", "-"): shown(field) for field in dataclasses.fields(given)}


def describe_properties(schema: type[Any]) -> list[str]:
    """The lines of `-device X,help`."""
    lines = []
    for field in sorted(dataclasses.fields(schema), key=lambda f: f.name):
        kind, about = field.metadata["kind"], field.metadata["about"]
        default = "on" if field.default is True else "off" if field.default is False else field.default
        shown = "" if default is None else f" (default: {default})"
        lines.append(f"  {field.name.replace('_', '-')}=<{kind}>{f' - {about}' if about else ''}{shown}")
    return lines


def _typed(where: str, value: Any, limits: Mapping[str, Any]) -> Any:
    kind = limits["kind"]
    typed: Any
    if kind == "bool":
        typed = value if isinstance(value, bool) else parse_bool(str(value))
    elif kind in LIMITS:
        typed = _number(value, kind)
        least, most = LIMITS[kind]
        least = least if limits["least"] is None else limits["least"]
        most = most if limits["most"] is None else limits["most"]
        if typed is not None and not least <= typed <= most:
            raise ConfigError(f"Property '{where}': {value} is not in {least}..{most}", option="-device")
    elif kind == "ThrottleLimits":
        typed = value if isinstance(value, Mapping) else None
    else:
        typed = value if isinstance(value, str) else None
    if typed is None:
        raise ConfigError(f"Property '{where}': {value!r:.40} is no {kind}", option="-device")
    return typed


def _number(value: Any, kind: str) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        return None
    return parse_size(value) if kind == "size" else parse_number(value)
