"""Protocol types out of Python ones: one declaration checks arguments, encodes answers and describes itself.

`Record` is a QAPI struct (`node_name` is `node-name` on the wire; a member with a default is optional), `Union` a flat
union, `StrEnum` an enumeration. Values arrive as plain decoded JSON from clients that are not trusted; `load` turns
them into records or raises MonitorError with the words that tools match. Introspection reads the same type objects.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar

import msgspec

from aioemu.errors import MonitorError


class Record(msgspec.Struct, rename="kebab", kw_only=True, omit_defaults=True):
    """A QAPI struct. An optional member is `T | None = None` (left out of answers when None) or has a default."""

    hidden: ClassVar[tuple[str, ...]] = ()  # members that are ours and not on the wire
    takes_any: ClassVar[bool] = False  # takes any further member, into `extra`
    shape: ClassVar[Callable[[], Shape] | None] = None  # what describes these: from what checks them later

    @staticmethod
    def further(given: dict[str, Any]) -> Iterable[str]:
        """The names of these, where no shape says them, for what was given."""
        return ()


class Union(Record):
    """A flat union: `tag` names the member that chooses which `cases` record's members come along, in `branch`.

    `cases` may be a function that is called when the type is first looked at.
    """

    hidden = ("branch",)
    tag: ClassVar[str]
    cases: ClassVar[Any]  # Mapping[StrEnum | str, type[Record]], or what returns one

    branch: Any = None


@dataclass(frozen=True)
class IntRange:
    """What an integer type of the protocol holds, and its name in messages."""

    name: str
    low: int
    high: int


Int64 = IntRange("int64", -(1 << 63), (1 << 63) - 1)
UInt8 = Annotated[int, IntRange("uint8_t", 0, 0xFF)]
UInt16 = Annotated[int, IntRange("uint16_t", 0, 0xFFFF)]
UInt32 = Annotated[int, IntRange("uint32_t", 0, 0xFFFFFFFF)]
UInt64 = Annotated[int, IntRange("uint64", 0, (1 << 64) - 1)]
Size = Annotated[int, IntRange("size", 0, (1 << 64) - 1)]


class Type:
    """A protocol type: `load` checks a decoded value (`path` names it in messages, `name` is its last part)."""

    expected = ""  # what a message says was expected

    def load(self, value: Any, path: str, name: str) -> Any:
        raise NotImplementedError

    def wrong(self, path: str) -> MonitorError:
        return MonitorError(f"Invalid parameter type for '{path}', expected: {self.expected}")


@dataclass(eq=False)
class Builtin(Type):
    """A scalar, or `any`."""

    name: str
    json_type: str
    python: tuple[type, ...]
    expected: str = ""

    def load(self, value: Any, path: str, name: str) -> Any:
        if type(value) not in self.python and self.python:
            raise self.wrong(path)
        return value


@dataclass(eq=False)
class Integer(Type):
    """A whole number in a range; introspection knows only `int`."""

    range: IntRange
    expected = "integer"

    def load(self, value: Any, path: str, name: str) -> Any:
        if type(value) is not int or not -(1 << 63) <= value < 1 << 64:
            raise self.wrong(path)
        if not self.range.low <= value <= self.range.high:
            if self.range is Int64:
                raise self.wrong(path)
            raise MonitorError(f"Parameter '{name}' expects {self.range.name}")
        return value


@dataclass(eq=False)
class Enumeration(Type):
    """One of some words."""

    python: type[StrEnum]
    expected = "string"

    @property
    def values(self) -> list[str]:
        return [each.value for each in self.python]

    def load(self, value: Any, path: str, name: str) -> Any:
        if type(value) is not str:
            raise self.wrong(path)
        try:
            return self.python(value)
        except ValueError as exc:
            raise MonitorError(f"Parameter '{name}' does not accept value '{value}'") from exc


@dataclass(eq=False)
class Array(Type):
    """A list of one type."""

    element: Type
    expected = "array"

    def load(self, value: Any, path: str, name: str) -> Any:
        if type(value) is not list:
            raise self.wrong(path)
        return [self.element.load(each, f"{path}[{index}]", f"{path}[{index}]") for index, each in enumerate(value)]


@dataclass(eq=False)
class Alternate(Type):
    """A value of one of several types, told apart by its JSON type."""

    choices: list[Type]
    expected = "value"

    def load(self, value: Any, path: str, name: str) -> Any:
        for choice in self.choices:
            try:
                return choice.load(value, path, name)
            except MonitorError:
                continue
        raise self.wrong(path)


@dataclass
class Member:
    """A member of an object: wire name, attribute, type."""

    name: str
    attribute: str
    type: Type
    optional: bool


@dataclass(eq=False)
class Object(Type):
    """A struct or flat union."""

    record: type[Record]
    expected = "object"

    @cached_property
    def members(self) -> list[Member]:
        """Looked at when first needed: a type may be part of itself."""
        return list(_members(self.record))

    @property
    def tag(self) -> str | None:
        """The member that chooses the case of a union."""
        return self.record.tag if issubclass(self.record, Union) else None

    @cached_property
    def cases(self) -> dict[str, Object]:
        """What comes along for each value of the tag."""
        if not issubclass(self.record, Union):
            return {}
        cases = self.record.cases() if callable(self.record.cases) else self.record.cases
        return {str(case): object_of(each) for case, each in cases.items()}

    def load(self, value: Any, path: str, name: str) -> Any:
        if type(value) is not dict:
            raise self.wrong(path)
        left = dict(value)
        loaded = self._take(left, path)
        if left and self.record.takes_any:
            loaded["extra"] = left
        elif left:
            raise MonitorError(f"Parameter '{_join(path, next(iter(left)))}' is unexpected")
        return self.record(**loaded)

    def _take(self, left: dict[str, Any], path: str) -> dict[str, Any]:
        """Take this object's members out of (left)."""
        loaded: dict[str, Any] = {}
        for member in self.members:
            if member.name in left:
                value = left.pop(member.name)
                loaded[member.attribute] = member.type.load(value, _join(path, member.name), member.name)
            elif not member.optional:
                raise MonitorError(f"Parameter '{_join(path, member.name)}' is missing")
        if self.tag is not None:
            tag = next(member for member in self.members if member.name == self.tag)
            case = self.cases.get(str(loaded[tag.attribute]))
            if case is not None:
                loaded["branch"] = case.record(**case._take(left, path))
        return loaded


@dataclass(eq=False)
class Shape(Type):
    """An object that somebody else reads and checks: described here, loaded as it comes."""

    name: str
    about: str
    members: list[Member] = field(default_factory=list)
    tag: str | None = None
    cases: dict[str, Shape] = field(default_factory=dict)
    expected = "object"

    def load(self, value: Any, path: str, name: str) -> Any:
        if type(value) is not dict:
            raise self.wrong(path)
        return value


def shown(kind: Object | Shape) -> Object | Shape:
    """An object as it is described."""
    return kind.record.shape() if isinstance(kind, Object) and kind.record.shape is not None else kind


def plain(value: Any) -> Any:
    """What a client would send for (value): a union's members stand beside its tag, what is None is left out."""
    if isinstance(value, Record):
        found = {
            each.encode_name: plain(getattr(value, each.name))
            for each in msgspec.structs.fields(value)
            if each.name not in value.hidden
        }
        branch = plain(value.branch) if isinstance(value, Union) and value.branch is not None else {}
        return {name: each for name, each in found.items() if each is not None} | branch
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.value if isinstance(value, StrEnum) else value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


STR = Builtin("str", "string", (str,), "string")
BOOL = Builtin("bool", "boolean", (bool,), "boolean")
NUMBER = Builtin("number", "number", (int, float), "number")
NULL = Builtin("null", "null", (type(None),), "null")
ANY = Builtin("any", "value", ())
INT = Integer(Int64)

_SCALARS: dict[Any, Type] = {str: STR, bool: BOOL, float: NUMBER, int: INT, None: NULL, type(None): NULL}


class Nothing(Record):
    """No arguments, no answer."""


@cache
def type_of(annotation: Any) -> Type:
    """The protocol type of a Python annotation."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation is Any or annotation is object:
        return ANY
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        ranges = [each for each in arguments[1:] if isinstance(each, IntRange)]
        return Integer(ranges[0]) if ranges else type_of(arguments[0])
    if origin is list:
        return Array(type_of(arguments[0]))
    if origin in (types.UnionType, typing.Union):
        return Alternate([type_of(each) for each in arguments])
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return Enumeration(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return object_of(annotation)
    raise TypeError(f"{annotation!r} is not a type of the protocol")


@cache
def object_of(record: type[Record]) -> Object:
    """The protocol type of a record."""
    return Object(record)


def _members(record: type[Record]) -> Iterator[Member]:
    for each in msgspec.structs.fields(record):
        if each.name in record.hidden:
            continue
        optional = not each.required
        annotation = each.type
        if optional and type(None) in typing.get_args(annotation):
            inner = [one for one in typing.get_args(annotation) if one is not type(None)]
            annotation = inner[0] if len(inner) == 1 else typing.Union[tuple(inner)]  # noqa: UP007 - made at run time
        yield Member(each.encode_name, each.name, type_of(annotation), optional)
