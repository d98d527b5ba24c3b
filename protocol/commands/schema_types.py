"""The types of query-qmp-schema's answer (QAPI introspect.json)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from aioemu.protocol.schema import Record, Union


class SchemaMetaType(StrEnum):
    """What an entity is."""

    BUILTIN = "builtin"
    ENUM = "enum"
    ARRAY = "array"
    OBJECT = "object"
    ALTERNATE = "alternate"
    COMMAND = "command"
    EVENT = "event"


class JsonType(StrEnum):
    """How a builtin looks in JSON."""

    STRING = "string"
    NUMBER = "number"
    INT = "int"
    BOOLEAN = "boolean"
    NULL = "null"
    OBJECT = "object"
    ARRAY = "array"
    VALUE = "value"


class SchemaInfoBuiltin(Record):
    """A type that needs no description."""

    json_type: JsonType


class SchemaInfoEnumMember(Record):
    """One word of an enumeration."""

    name: str
    features: list[str] | None = None


class SchemaInfoEnum(Record):
    """An enumeration."""

    members: list[SchemaInfoEnumMember]
    values: list[str]


class SchemaInfoArray(Record):
    """A list of one type."""

    element_type: str


class SchemaInfoObjectMember(Record):
    """A member; one with `default` is optional."""

    name: str
    type: str
    default: Any = None
    features: list[str] | None = None


class SchemaInfoObjectVariant(Record):
    """The further members for one value of the tag."""

    case: str
    type: str


class SchemaInfoObject(Record):
    """A struct or union."""

    members: list[SchemaInfoObjectMember]
    tag: str | None = None
    variants: list[SchemaInfoObjectVariant] | None = None


class SchemaInfoAlternateMember(Record):
    """One of the types a value may have."""

    type: str


class SchemaInfoAlternate(Record):
    """A value of one of several types."""

    members: list[SchemaInfoAlternateMember]


class SchemaInfoCommand(Record):
    """A command: its arguments, its answer."""

    arg_type: str
    ret_type: str
    allow_oob: bool | None = None


class SchemaInfoEvent(Record):
    """An event: its data."""

    arg_type: str


class SchemaInfo(Union, kw_only=True):
    """One entity."""

    tag = "meta-type"
    cases: ClassVar = {
        SchemaMetaType.BUILTIN: SchemaInfoBuiltin,
        SchemaMetaType.ENUM: SchemaInfoEnum,
        SchemaMetaType.ARRAY: SchemaInfoArray,
        SchemaMetaType.OBJECT: SchemaInfoObject,
        SchemaMetaType.ALTERNATE: SchemaInfoAlternate,
        SchemaMetaType.COMMAND: SchemaInfoCommand,
        SchemaMetaType.EVENT: SchemaInfoEvent,
    }

    name: str
    meta_type: SchemaMetaType
    features: list[str] | None = None
