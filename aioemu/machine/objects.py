"""Objects of `-object` and `object-add`, by id: what stands behind devices and is used by name.

A type is one row of `machine/object_types.py`. Who uses an object says so, and it cannot go meanwhile. Not here: what
an object does. `close` ends all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aioemu.config import OptionGroup
from aioemu.config.blame import blaming
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError, EmuError

if TYPE_CHECKING:
    from aioemu.devices.properties import Live
    from aioemu.machine.machine import Machine
    from aioemu.machine.object_types import ObjectType


class HeldObject:
    """One object: what it was made of, itself, and who uses it."""

    def __init__(self, kind: ObjectType, name: str, properties: Any, made: Any) -> None:
        self.kind = kind
        self.name = name
        self.properties = properties
        self.made = made
        self.users: list[str] = []

    @property
    def in_use(self) -> bool:
        """Whether somebody needs it."""
        return bool(self.users or getattr(self.made, "users", None))

    def live(self) -> Mapping[str, Live]:
        """What can be read, and perhaps set, while it is there."""
        from aioemu.devices.properties import describe_live

        own: Callable[[], Mapping[str, Live]] | None = getattr(self.made, "live", None)
        return {**describe_live(self.properties), **(own() if own is not None else {})}

    def values(self) -> dict[str, Any]:
        """What it was made of, by the names of -object."""
        from aioemu.devices.properties import property_values

        return property_values(self.properties)


class Objects:
    """The set of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._all: dict[str, HeldObject] = {}

    def types(self) -> Sequence[str]:
        """The types that `add` takes."""
        from aioemu.machine.object_types import OBJECT_TYPES

        return [each.name for each in OBJECT_TYPES]

    def names(self) -> Mapping[str, str]:
        """Every object's id and type."""
        return {name: held.kind.name for name, held in self._all.items()}

    def of_type(self, kind: str) -> dict[str, Any]:
        """The objects of one type, by id."""
        return {name: held.made for name, held in self._all.items() if held.kind.name == kind}

    def make(self, group: OptionGroup, *, late: bool = False) -> None:
        """`-object`: now, of the types that are made (late) or of the others. ConfigError says what cannot be."""
        from aioemu.machine.object_types import OBJECT_TYPES

        if any(
            each.name == group.type and each.late is late for each in OBJECT_TYPES
        ):  # others have a part of their own
            shown = {key: value for key, value in group.values.items() if key != "data"}  # which may be a secret
            with blaming("-object", group.type, {"id": group.id, **shown}):
                self._make(group.type or "", group.id or "", group.values)

    async def add(self, kind: str, name: str, values: Mapping[str, Any]) -> None:
        """`object-add`. EmuError says what cannot be."""
        if name in self._all:
            raise EmuError(f"attempt to add duplicate property '{name}' to object (type 'container')")
        self._make(kind, name, values)

    async def remove(self, name: str) -> None:
        """`object-del`. EmuError when it is unknown or in use."""
        held = self._all.get(name)
        if held is None:
            raise EmuError(f"object '{name}' not found")
        if held.in_use:
            raise EmuError(f"object '{name}' is in use, can not be deleted")
        del self._all[name]
        self._end(held)

    def find(self, name: str) -> HeldObject:
        """The object called `name`; ConfigError when there is none."""
        if name not in self._all:
            raise ConfigError(f"object '{name}' not found{did_you_mean(name, self._all)}")
        return self._all[name]

    def use(self, name: str, user: str) -> tuple[HeldObject, Callable[[], None]]:
        """The object called `name`, which stays until what is returned with it is called."""
        held = self.find(name)
        held.users.append(user)
        return held, lambda: held.users.remove(user)

    def close(self) -> None:
        """End all of them, the last made first."""
        while self._all:
            self._end(self._all.popitem()[1])

    def _make(self, kind: str, name: str, values: Mapping[str, Any]) -> None:
        from aioemu.devices.properties import read_properties
        from aioemu.machine.object_types import find_type

        row = find_type(kind)
        if name in self._all:
            raise ConfigError(f"duplicate ID '{name}' for object", "-object")
        properties = read_properties(kind, row.properties, values)
        self._all[name] = HeldObject(row, name, properties, row.make(self._machine, name, properties))

    def _end(self, held: HeldObject) -> None:
        if held.kind.end is not None:
            held.kind.end(self._machine, held.name)
        elif (close := getattr(held.made, "close", None)) is not None:
            close()
