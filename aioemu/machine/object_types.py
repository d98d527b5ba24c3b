"""The types of `-object` and `object-add`: one row each, with its properties and what makes it.

A row's `make(machine, id, properties)` returns the object. Where that has `close()` it is called when it goes; where it
has `live()` those properties can be read and set while it is there; while its `users` are any, it cannot go. A type
also needs its name in `served.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioemu.config.grammar import did_you_mean
from aioemu.devices.properties import Live, prop, property_values
from aioemu.errors import ConfigError
from aioemu.machine.filters import FilterDumpProperties, make_filter_dump
from aioemu.machine.iothread import IoThreadProperties
from aioemu.machine.secret import SecretProperties, make_secret
from aioemu.memory.guest import RamBackend

if TYPE_CHECKING:
    from aioemu.blockdev.throttle import ThrottleGroup
    from aioemu.devices.virtio.rng import Entropy
    from aioemu.machine.machine import Machine

HUGE_PAGE_BYTES = 2 << 20  # what hugetlb=on means without hugetlbsize= on x86


class ObjectType(Struct, frozen=True):
    """One row."""

    name: str
    about: str
    properties: type[Any]
    make: Callable[[Machine, str, Any], Any]
    end: Callable[[Machine, str], None] | None = None  # instead of the object's own close()
    late: bool = False  # it needs back ends: those of -object are made after these


@dataclasses.dataclass(frozen=True, slots=True)
class RngBuiltinProperties:
    """`-object rng-builtin`."""


@dataclasses.dataclass(frozen=True, slots=True)
class RngRandomProperties:
    """`-object rng-random`."""

    filename: str = prop("/dev/urandom", "str", "where the bytes come from")


class Rng:
    """A source of entropy that each device opens for itself."""

    def __init__(self, kind: str, filename: str | None = None) -> None:
        self._kind, self._filename = kind, filename
        self.open().close()  # one that cannot be opened fails here

    def open(self) -> Entropy:
        """The source, for one device."""
        from aioemu.devices.virtio.rng import make_entropy  # few want one

        return make_entropy(self._kind, self._filename)


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryProperties:
    """`-object memory-backend-*`."""

    size: int = prop(0, "size", "bytes", needed=True)
    prealloc: bool = prop(False, "bool", "take the memory at once")
    share: bool = prop(True, "bool", "other processes may map it; it is a file in any case")
    merge: bool = prop(True, "bool", "the host may merge equal pages")
    dump: bool = prop(True, "bool", "part of a core dump of the process")


@dataclasses.dataclass(frozen=True, slots=True)
class MemfdProperties(MemoryProperties):
    """`-object memory-backend-memfd`."""

    hugetlb: bool = prop(False, "bool", "in huge pages")
    hugetlbsize: int | None = prop(None, "size", "bytes of one")
    seal: bool = prop(False, "bool", "its size is fixed; so it is in any case")


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryFileProperties(MemoryProperties):
    """`-object memory-backend-file`."""

    mem_path: str = prop("", "str", "a file, or a folder of a file system for it", needed=True)


def make_memory_backend(machine: Machine, name: str, given: Any) -> RamBackend:
    """How memory is provided; it is taken when something uses it."""
    if given.size == 0:
        raise ConfigError("can't create backend with size 0", "-object")
    huge = 0
    if isinstance(given, MemfdProperties) and given.hugetlb:
        huge = given.hugetlbsize or HUGE_PAGE_BYTES
    path = given.mem_path if isinstance(given, MemoryFileProperties) else None
    if isinstance(given, MemoryFileProperties) and not path:
        raise ConfigError("mem-path property not set", "-object")
    return RamBackend(prealloc=given.prealloc, hugepage_bytes=huge, path=path)


LIMITS = [
    f"{family}-{way}{tail}"
    for family in ("bps", "iops")
    for way in ("total", "read", "write")
    for tail in ("", "-max", "-max-length")
] + ["iops-size"]
ThrottleProperties = dataclasses.make_dataclass(
    "ThrottleProperties",
    [
        ("limits", Any, prop(None, "ThrottleLimits", "all limits at once")),
        *((f"x_{name.replace('-', '_')}", Any, prop(None, "uint64", "a limit")) for name in LIMITS),
    ],
    frozen=True,
    namespace={"__doc__": "`-object throttle-group`."},
)


class LimitsObject:
    """A group of disks as an object whose limits can be read and set."""

    def __init__(self, group: ThrottleGroup) -> None:
        self._group = group

    @property
    def users(self) -> list[str]:
        return self._group.users

    def live(self) -> dict[str, Live]:
        """`limits`, and each of them by its own name."""
        group = self._group
        found = {"limits": Live("ThrottleLimits", group.whole, group.set)}
        for name in LIMITS:

            def write(value: Any, name: str = name) -> None:
                group.set({**group.limits, name: value})

            found[f"x-{name}"] = Live("int", lambda name=name: group.whole()[name], write)  # type: ignore[misc]
        return found


def make_throttle_group(machine: Machine, name: str, given: Any) -> LimitsObject:
    """Limits from `limits`, or one by one."""
    values = {key.removeprefix("x-"): value for key, value in property_values(given).items() if key != "limits"}
    return LimitsObject(machine.drives.throttles.add(name, {**(given.limits or {}), **values}))


OBJECT_TYPES: tuple[ObjectType, ...] = (
    ObjectType("filter-dump", "what passes a back end, as pcap", FilterDumpProperties, make_filter_dump, late=True),
    ObjectType(
        "iothread",
        "a thread that serves devices",
        IoThreadProperties,
        lambda machine, name, given: machine.iothreads.add(name, given),
        lambda machine, name: machine.iothreads.end(name),
    ),
    ObjectType("memory-backend-ram", "memory", MemoryProperties, make_memory_backend),
    ObjectType("memory-backend-memfd", "memory, in huge pages if asked for", MemfdProperties, make_memory_backend),
    ObjectType("memory-backend-file", "memory in a file", MemoryFileProperties, make_memory_backend),
    ObjectType("rng-builtin", "the host's entropy", RngBuiltinProperties, lambda m, name, given: Rng("rng-builtin")),
    ObjectType(
        "rng-random", "entropy of a file", RngRandomProperties, lambda m, name, given: Rng("rng-random", given.filename)
    ),
    ObjectType("secret", "a password or key", SecretProperties, make_secret),
    ObjectType(
        "throttle-group",
        "limits that disks share",
        ThrottleProperties,
        make_throttle_group,
        lambda machine, name: machine.drives.throttles.end(name),
    ),
)


def find_type(name: str) -> ObjectType:
    """The row called `name`. ConfigError names the nearest."""
    for each in OBJECT_TYPES:
        if each.name == name:
            return each
    names = [each.name for each in OBJECT_TYPES]
    raise ConfigError(f"invalid object type: {name}{did_you_mean(name, names)}", "-object")
