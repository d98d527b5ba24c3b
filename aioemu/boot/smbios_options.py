"""Reads `-smbios` options and `-uuid` into SMBIOS values. Field names are those of QEMU's option."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from aioemu.boot.image import ImageFile
from aioemu.boot.smbios import Smbios
from aioemu.config.model import SmbiosOptions
from aioemu.errors import ConfigError

FILE_MAX = 16 << 10  # a structure from a file: half of the area that all of them share
OEM_STRINGS = 11
_PARTS = {0: "bios", 1: "system", 2: "baseboard", 3: "chassis", 4: "processor", 17: "memory"}
_NOT_OPTIONS = {"ranges", "sockets", "cores", "threads"}  # the machine's own to say
_INTEGER_LIMITS = {"max_speed": 1 << 16, "current_speed": 1 << 16, "speed": 1 << 16, "processor_id": 1 << 64}


def apply_options(smbios: Smbios, options: Iterable[SmbiosOptions], uuid: UUID | None = None) -> Smbios:
    """`smbios` with what the user said laid over it; the later option wins, and `type=1,uuid=` over `-uuid`."""
    if uuid is not None:
        smbios = replace(smbios, system=replace(smbios.system, uuid=uuid))
    for option in options:
        if option.file is not None:
            smbios = replace(smbios, raw=(*smbios.raw, _read_file(option.file)))
        elif option.type == OEM_STRINGS:
            smbios = replace(smbios, oem_strings=(*smbios.oem_strings, *_oem_strings(option.values)))
        else:
            smbios = _apply_fields(smbios, option)
    return smbios


def _apply_fields(smbios: Smbios, option: SmbiosOptions) -> Smbios:
    part = _PARTS.get(option.type) if option.type is not None else None
    if part is None:
        known = ", ".join(map(str, sorted([*_PARTS, OEM_STRINGS])))
        raise ConfigError(f"-smbios type={option.type} is not known, types are {known}", option="smbios")
    old = getattr(smbios, part)
    known_fields = [name for name in old.__struct_fields__ if name not in _NOT_OPTIONS]
    changes: dict[str, Any] = {}
    for key, value in option.values.items():
        field = key.replace("-", "_")
        if field not in known_fields:
            raise _unknown_field(option.type, key, known_fields)
        changes[field] = _value(field, value, option.type)
    return replace(smbios, **{part: replace(old, **changes)})


def _unknown_field(kind: int | None, key: str, known: list[str]) -> ConfigError:
    from difflib import get_close_matches  # only a mistake costs this import

    dashed = [name if name.endswith("_pfx") else name.replace("_", "-") for name in known]
    near = get_close_matches(key, dashed, 1)
    hint = f", did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"-smbios type={kind} has no field '{key}'{hint}", option="smbios")


def _value(field: str, value: object, kind: int | None) -> object:
    text = str(value)
    try:
        if field == "uuid":
            return UUID(text)
        if field == "uefi":
            return {"on": True, "true": True, "off": False, "false": False}[text.lower()]
        if field == "release":
            major, minor = bytes(map(int, text.split(".")))  # ValueError beyond 255
            return major, minor
        if field in _INTEGER_LIMITS:
            number = int(text, 0)
            if not 0 <= number < _INTEGER_LIMITS[field]:
                raise ValueError(text)
            return number
    except (ValueError, KeyError) as exc:
        raise ConfigError(f"-smbios type={kind}: {field} cannot be '{text}'", option="smbios") from exc
    return text


def _oem_strings(values: Mapping[str, Any]) -> list[str]:
    strings: list[str] = []
    for key, value in values.items():
        items = value if isinstance(value, list | tuple) else [value]
        if key == "value":
            strings += map(str, items)
        elif key == "path":
            strings += (_read_file(str(item)).decode("utf-8", "surrogateescape") for item in items)
        else:
            raise ConfigError(f"-smbios type=11 has no field '{key}', it has 'value' and 'path'", option="smbios")
    return strings


def _read_file(path: str) -> bytes:
    with ImageFile(path, "SMBIOS file") as image:
        data = image.read(0, FILE_MAX + 1)
        if len(data) > FILE_MAX:
            raise image.error(f"has more than {FILE_MAX} bytes")
        return data
