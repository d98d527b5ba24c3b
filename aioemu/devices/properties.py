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


ABOUT_COLUMN = 24  # where the words about a property start in help

# the words of enumerations, by QEMU's names of them
WORDS: Mapping[str, tuple[str, ...]] = {
    "OnOffAuto": ("on", "off", "auto"),
    "BlockdevOnError": ("report", "ignore", "enospc", "stop", "auto"),
    "NetFilterDirection": ("all", "rx", "tx"),
    "QCryptoSecretFormat": ("raw", "base64"),
    "NetfilterInsert": ("before", "behind"),
}

# properties that QEMU spells with underscores, against its habit
UNDERSCORED = frozenset(
    "event_idx indirect_desc queue_reset logical_block_size physical_block_size min_io_size opt_io_size"
    " discard_granularity"
    " mrg_rxbuf rx_queue_size tx_queue_size max_ports guest_csum guest_tso4 guest_tso6 guest_ecn guest_ufo guest_uso4"
    " guest_uso6 guest_announce guest_rsc_ext host_tso4 host_tso6 host_ecn host_ufo host_uso host_mtu ctrl_vq ctrl_rx"
    " ctrl_rx_extra ctrl_vlan ctrl_mac_addr ctrl_guest_offloads".split()
)


def prop(
    default: Any, kind: str, about: str = "", least: int | None = None, most: int | None = None, needed: bool = False
) -> Any:
    """One property: its default, its type by QEMU's name (`str` for a chardev or another object's id), its range,
    whether it has to be given.
    """
    metadata = {"kind": kind, "about": about, "least": least, "most": most, "needed": needed, "default": default}
    return dataclasses.field(default=default, metadata=metadata)


def shown_value(value: Any, kind: str) -> Any:
    """A value as clients read it: what was not given and has no default is "", or all ones."""
    if value is not None or kind == "ThrottleLimits":
        return value
    if kind not in LIMITS:
        return ""
    return {"uint64": (1 << 63) - 1, "size": 0}.get(kind, LIMITS[kind][1])


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A property's default as clients read it; None where there is none worth telling."""
    found = None if field.default is dataclasses.MISSING else shown_value(field.default, field.metadata["kind"])
    return None if found == "" else found


def property_name(field: dataclasses.Field[Any]) -> str:
    """What a property is called."""
    return field.name if field.name in UNDERSCORED else field.name.replace("_", "-")


def read_properties(driver: str, schema: type[Any], given: Mapping[str, Any]) -> Any:
    """The properties of one device. ConfigError names what is unknown or cannot be."""
    fields = dataclasses.fields(schema)
    known = {field.name: field for field in fields}
    values: dict[str, Any] = {}
    for key, value in given.items():
        field = known.get(key.replace("-", "_"))
        if field is None:
            hint = did_you_mean(key, list(map(property_name, fields)))
            raise ConfigError(f"Property '{driver}.{key}' not found{hint}", option="-device")
        values[field.name] = _typed(f"{driver}.{key}", value, field.metadata)
    for field in fields:
        if field.metadata["needed"] and field.name not in values:
            raise ConfigError(f"Parameter '{property_name(field)}' is missing", option="-device")
    return schema(**values)


def property_values(given: Any) -> dict[str, Any]:
    """Properties that were read, by their names; what was not given and has no default is left out."""
    found = ((property_name(field), getattr(given, field.name)) for field in dataclasses.fields(given))
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
        kind = field.metadata["kind"]
        return Live(kind, lambda: shown_value(getattr(given, field.name), kind), None, field.metadata["about"])

    return {property_name(field): shown(field) for field in dataclasses.fields(given)}


def describe_properties(schema: type[Any]) -> list[str]:
    """The lines of `-device X,help`."""
    lines = []
    for field in sorted(dataclasses.fields(schema), key=property_name):
        kind, about = field.metadata["kind"], field.metadata["about"]
        value = default_of(field)
        default = "on" if value is True else "off" if value is False else value
        shown = "" if default is None else f" (default: {default})"
        line = f"  {property_name(field)}=<{kind}>"
        lines.append(f"{line:<{ABOUT_COLUMN}} - {about}{shown}" if about or shown else line)
    return lines


def _typed(where: str, value: Any, limits: Mapping[str, Any]) -> Any:
    """A value of a property's type; `where` is driver.property. ConfigError in QEMU's words."""
    kind, name = limits["kind"], where.rpartition(".")[2]
    if kind in LIMITS:
        return _in_range(where, value, limits)
    typed: Any
    if kind == "bool":
        typed = value if isinstance(value, bool) else parse_bool(str(value))
        wrong = f"Parameter '{name}' expects 'on' or 'off'"
    elif kind in WORDS:
        word = ("off", "on")[value] if isinstance(value, bool) else str(value)
        typed = word if word in WORDS[kind] else None
        wrong = f"Parameter '{name}' does not accept value '{value}'"
    elif kind == "ThrottleLimits":
        typed = value if isinstance(value, Mapping) else None
        wrong = f"Invalid parameter type for '{name}', expected: {kind}"
    else:
        number = str(value) if isinstance(value, int) and not isinstance(value, bool) else None
        typed = value if isinstance(value, str) else number  # text, as it would be on a command line
        wrong = f"Invalid parameter type for '{name}', expected: string"
    if typed is None:
        raise ConfigError(wrong, option="-device")
    return typed


def _in_range(where: str, value: Any, limits: Mapping[str, Any]) -> int | None:
    kind, name = limits["kind"], where.rpartition(".")[2]
    typed = _number(value, kind)
    if typed is None:
        expected = "a size" if kind == "size" else "integer"
        raise ConfigError(f"Parameter '{name}' expects {expected}", option="-device")
    if limits["default"] is None and typed == shown_value(None, kind):
        return None  # as if it were not given
    lowest, highest = LIMITS[kind]
    if not lowest <= typed <= highest:
        raise ConfigError(f"Parameter '{name}' expects {kind}{'' if kind == 'size' else '_t'}", option="-device")
    least = lowest if limits["least"] is None else limits["least"]
    most = highest if limits["most"] is None else limits["most"]
    if not least <= typed <= most:
        raise ConfigError(f"Property '{where}': {value} is not in {least}..{most}", option="-device")
    return typed


def _number(value: Any, kind: str) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        return None
    return parse_size(value) if kind == "size" else parse_number(value)
