"""Whose fault it is: errors of a part that reads an option carry the option as the user gave it, in front."""

from __future__ import annotations

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
    return ",".join([*words, *(word for key, value in values.items() for word in _words(key, value))])


def _words(key: str, value: Any) -> Iterator[str]:
    """`key=value`; of a structure one word for each member, of a list one for each element."""
    if isinstance(value, Mapping):
        for member, inner in value.items():
            yield from _words(f"{key}.{member}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(key, inner["str"] if isinstance(inner, Mapping) and list(inner) == ["str"] else inner)
    elif value is not None:
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        yield f"{key}={text.replace(',', ',,')}"
