"""Saved state of a device: plain values out, checked values in.

A device lists the fields that it stores, each with what it may hold. A loaded state is not trusted: it may be torn,
from another version or made by hand; every value is checked before the first one is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from aioemu.errors import StateError

State = dict[str, Any]  # JSON: int, bool, str, list, dict


class Field(Protocol):
    """What one stored field may hold, and how it looks in the saved state."""

    def dump(self, value: Any) -> Any: ...
    def parse(self, name: str, value: Any) -> Any: ...


class Int(Struct, frozen=True):
    """An integer in low..high inclusive."""

    low: int = 0
    high: int = 0xFF

    def dump(self, value: int) -> int:
        return int(value)

    def parse(self, name: str, value: Any) -> int:
        if type(value) is not int:
            raise StateError(f"{name}: not an integer: {value!r:.40}")
        if not self.low <= value <= self.high:
            raise StateError(f"{name}: {value} is not in {self.low}..{self.high}")
        return value


class Flag(Struct, frozen=True):
    """True or false."""

    def dump(self, value: bool) -> bool:
        return bool(value)

    def parse(self, name: str, value: Any) -> bool:
        if type(value) is not bool:
            raise StateError(f"{name}: neither true nor false: {value!r:.40}")
        return value


class Bytes(Struct, frozen=True):
    """Between `least` and `most` bytes, stored as hexadecimal text."""

    most: int
    least: int = 0

    def dump(self, value: bytes | bytearray) -> str:
        return bytes(value).hex()

    def parse(self, name: str, value: Any) -> bytes:
        if type(value) is not str:
            raise StateError(f"{name}: not hexadecimal text")
        if not self.least <= len(value) / 2 <= self.most:
            raise StateError(f"{name}: {len(value) / 2:g} bytes, not {self.least}..{self.most}")
        try:
            data = bytes.fromhex(value)
        except ValueError:
            raise StateError(f"{name}: not hexadecimal text") from None
        if len(data) * 2 != len(value):
            raise StateError(f"{name}: not hexadecimal text")
        return data


class Optional(Struct, frozen=True):
    """The inner field, or nothing."""

    inner: Field

    def dump(self, value: Any) -> Any:
        return None if value is None else self.inner.dump(value)

    def parse(self, name: str, value: Any) -> Any:
        return None if value is None else self.inner.parse(name, value)


Fields = Mapping[str, Field]


def dump_fields(fields: Fields, source: object) -> State:
    """The named attributes of (source) as saved state."""
    return {name: kind.dump(getattr(source, name)) for name, kind in fields.items()}


def parse_fields(fields: Fields, state: Any, where: str) -> State:
    """Every field of (state), checked; none missing and none unknown."""
    if not isinstance(state, dict):
        raise StateError(f"{where}: not a set of named values")
    if missing := fields.keys() - state.keys():
        raise StateError(f"{where}: {min(missing)} is missing")
    if unknown := state.keys() - fields.keys():
        raise StateError(f"{where}: {min(map(str, unknown))!r:.60} is unknown")
    return {name: kind.parse(f"{where}.{name}", state[name]) for name, kind in fields.items()}
