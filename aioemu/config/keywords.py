"""The keywords of `aioemu.Machine` and what they make of a configuration: the same options, with Python's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from aioemu.config.grammar import did_you_mean, parse_pairs, parse_size
from aioemu.config.keyval import parse_keyval, unflatten
from aioemu.config.model import (
    AccelOptions,
    Actions,
    CpuModel,
    DeviceOptions,
    MachineConfig,
    MachineOptions,
    MemoryOptions,
    OptionGroup,
    Smp,
)
from aioemu.errors import ConfigError

_DIRECT = frozenset(MachineConfig.__struct_fields__)
_BOOT = ("kernel", "initrd", "append")


def build_config(base: MachineConfig, **keywords: Any) -> MachineConfig:
    """`base` with keywords laid over it.

    machine: board and options, "q35" or "microvm,acpi=off"; accel: "kvm", "tcg", "auto" or several in order;
    cpu: "host,-avx"; smp: a number or Smp; memory: bytes or "512M" (a bare number in a string is MiB, as for -m);
    kernel, initrd: paths; append: the kernel command line; devices: "isa-debug-exit,iobase=0x501" or DeviceOptions;
    netdevs: "tap,id=net0,ifname=tap0" or OptionGroup; nics: "tap,ifname=tap0,mac=..." or OptionGroup; drives:
    "file=disk.qcow2,format=qcow2,if=virtio" or OptionGroup; blockdevs: "raw,node-name=d,file.driver=file,..." or a
    mapping as blockdev-add takes it; chardevs, serials: as in MachineConfig; uuid: UUID or
    text; no_reboot, no_shutdown: bool; any other field of MachineConfig by its name. ConfigError names an unknown
    keyword and the nearest known one.
    """
    changes: dict[str, Any] = {}
    boot: dict[str, Any] = {}
    for key, value in keywords.items():
        if key in _BOOT:
            boot[key] = str(value) if value is not None else None
        elif key in _READERS:
            changes[key] = _READERS[key](value)
        elif key in ("no_reboot", "no_shutdown"):
            changes["actions"] = _actions(changes.get("actions", base.actions), key, bool(value))
        elif key in _DIRECT:
            changes[key] = tuple(value) if isinstance(value, list) else value
        else:
            known = [*_DIRECT, *_READERS, *_BOOT, "no_reboot", "no_shutdown"]
            raise ConfigError(f"{key}: unknown keyword{did_you_mean(key, known)}", key)
    if boot:
        changes["boot"] = replace(base.boot, **boot)
    return replace(base, **changes)


def read_machine(value: str | MachineOptions) -> MachineOptions:
    """Board and options."""
    if isinstance(value, MachineOptions):
        return value
    pairs = dict(parse_pairs(value, "type"))
    return MachineOptions(pairs.pop("type", "q35"), pairs)


def read_accel(value: str | Sequence[str | AccelOptions]) -> tuple[AccelOptions, ...]:
    """One accelerator or several, in the order they are tried; `kvm:tcg` is two."""
    names = value.split(":") if isinstance(value, str) else value
    return tuple(each if isinstance(each, AccelOptions) else AccelOptions(each) for each in names)


def read_cpu(value: str | CpuModel | None) -> CpuModel | None:
    """Model and features: `+x`, `-x`, `x=on`, `x`."""
    if value is None or isinstance(value, CpuModel):
        return value
    name, *rest = value.split(",")
    features = []
    for item in rest:
        key, equals, setting = item.partition("=")
        if item[:1] in "+-":
            features.append((item[1:], "on" if item[0] == "+" else "off"))
        else:
            features.append((key, setting if equals else "on"))
    return CpuModel(name, tuple(features))


def read_smp(value: int | Smp) -> Smp:
    """A number of processors, each a core of one socket."""
    if isinstance(value, Smp):
        return value
    if value < 1:
        raise ConfigError(f"smp={value}: at least one processor", "smp")
    return Smp(cpus=value, cores=value, maxcpus=value)


def read_memory(value: int | str | MemoryOptions) -> MemoryOptions:
    """A size, in bytes or as -m takes it."""
    if isinstance(value, MemoryOptions):
        return value
    size = value if isinstance(value, int) else parse_size(value, "M")
    if not size or size < 0:
        raise ConfigError(f"memory={value}: not a size", "memory")
    return MemoryOptions(size_bytes=size)


def read_devices(value: Sequence[str | DeviceOptions]) -> tuple[DeviceOptions, ...]:
    """Devices as -device names them."""
    return tuple(each if isinstance(each, DeviceOptions) else _device(each) for each in value)


def _device(text: str) -> DeviceOptions:
    props: dict[str, Any] = dict(parse_pairs(text, "driver"))
    names = {key: props.pop(key, None) for key in ("id", "bus", "addr")}
    return DeviceOptions(props.pop("driver"), props=props, **names)


def read_netdevs(value: Sequence[str | OptionGroup]) -> tuple[OptionGroup, ...]:
    """Network back ends as -netdev names them."""
    return _groups("netdev", value)


def read_nics(value: Sequence[str | OptionGroup]) -> tuple[OptionGroup, ...]:
    """Network cards with their back ends as -nic names them."""
    return _groups("nic", value)


def read_drives(value: Sequence[str | OptionGroup]) -> tuple[OptionGroup, ...]:
    """Disks with their media as -drive names them."""
    return tuple(_drive(each) if isinstance(each, str) else each for each in value)


def _drive(text: str) -> OptionGroup:
    values: dict[str, Any] = dict(parse_pairs(text))  # dotted keys stay: `file` is a name beside the `file.` options
    return OptionGroup("drive", None, values.pop("id", None), values)


def read_blockdevs(value: Sequence[str | Mapping[str, Any] | OptionGroup]) -> tuple[OptionGroup, ...]:
    """Block nodes as -blockdev names them, or as the JSON of blockdev-add."""
    return tuple(each if isinstance(each, OptionGroup) else _blockdev(each) for each in value)


def _blockdev(given: str | Mapping[str, Any]) -> OptionGroup:
    values = parse_keyval("-blockdev", given, "driver") if isinstance(given, str) else dict(given)
    return OptionGroup("blockdev", values.pop("driver", None), None, values)


def _groups(option: str, value: Sequence[str | OptionGroup]) -> tuple[OptionGroup, ...]:
    return tuple(each if isinstance(each, OptionGroup) else _group(option, each) for each in value)


def _group(option: str, text: str) -> OptionGroup:
    values: dict[str, Any] = {}
    for key, item in parse_pairs(text, "type"):  # a key given several times is a list
        values[key] = item if key not in values else [*_listed(values[key]), item]
    kind, name = values.pop("type", None), values.pop("id", None)
    return OptionGroup(option, kind, name, unflatten(f"-{option} {text}", values.items()))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _actions(actions: Actions, key: str, on: bool) -> Actions:
    if key == "no_reboot":
        return replace(actions, reboot="shutdown" if on else "reset")
    return replace(actions, shutdown="pause" if on else "poweroff")


def _uuid(value: str | UUID) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError as exc:
        raise ConfigError(f"uuid={value}: not a UUID", "uuid") from exc


_READERS: Mapping[str, Any] = {
    "machine": read_machine,
    "accel": read_accel,
    "cpu": read_cpu,
    "smp": read_smp,
    "memory": read_memory,
    "devices": read_devices,
    "drives": read_drives,
    "blockdevs": read_blockdevs,
    "netdevs": read_netdevs,
    "nics": read_nics,
    "uuid": _uuid,
}
