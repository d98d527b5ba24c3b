"""Whose fault it is: errors of a part that reads an option carry the option as the user gave it, in front."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aioemu.config.grammar import where_of
from aioemu.errors import ConfigError, HostError


@contextmanager
def blaming(option: str, kind: str | None, values: Mapping[str, Any]) -> Iterator[None]:
    """Put `-option kind,key=value,...: ` in front of what is wrong in here, unless it names an option already."""
    try:
        yield
    except (ConfigError, HostError) as exc:
        if str(exc).startswith("-"):
            raise
        blamed = ConfigError(f"{where_of(option, spell(kind, values))}: {exc}", option)
        for note in getattr(exc, "__notes__", ()):
            blamed.add_note(note)
        raise blamed from exc


def spell(kind: str | None, values: Mapping[str, Any]) -> str:
    """An option's argument as the user knows it again."""
    words = [kind] if kind else []
    return ",".join([*words, *(f"{key}={_value(value)}" for key, value in values.items() if value is not None)])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (value if isinstance(value, str) else json.dumps(value)).replace(",", ",,")
