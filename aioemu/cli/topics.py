"""`-machine help`, `-device X,help` and the like: lists in QEMU's layout, printed from the tables of the layers below.

Only what exists is listed.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable

from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError

NAME_COLUMN = 20
FEATURE_WIDTH = 76


def print_topic(topic: str, name: str | None) -> int:
    """Print what was asked for."""
    print(TOPICS[topic](name))
    return 0


def _machine(name: str | None) -> str:
    """The boards; of one board, its options."""
    from aioemu.machine.boards import BOARDS, find_board

    if name is not None:
        board = find_board(name)
        return "\n".join([f"{board.name}-machine options:", *_fields(board.options)])
    lines = []
    for board in BOARDS:
        default = " (default)" if board.is_default else ""
        lines.append((board.name, f"{board.description}{default}"))
        lines += [(alias, f"{board.description} (alias of {board.name})") for alias in board.aliases]
    return "\n".join(["Supported machines are:", *(f"{key:<{NAME_COLUMN}} {text}" for key, text in sorted(lines))])


def _fields(options: type) -> list[str]:
    lines = []
    for field in sorted(dataclasses.fields(options), key=lambda found: found.name):
        default = ("off", "on")[field.default] if isinstance(field.default, bool) else field.default
        lines.append(f"  {field.name.replace('_', '-')}=<{field.type}> (default: {default})")
    return lines


def _accel(name: str | None) -> str:
    from aioemu.accel.choose import ACCELERATORS

    if name is not None:
        _known("accelerator", name, ACCELERATORS)
    return "\n".join(["Accelerators supported in QEMU binary:", *ACCELERATORS])


def _cpu(name: str | None) -> str:
    from aioemu.accel.cpuid import MODELS
    from aioemu.accel.features import FEATURES

    models = [f"  {model.name:<{NAME_COLUMN}}  {model.description}" for model in MODELS.values()]
    flags = textwrap.wrap(" ".join(sorted(FEATURES)), FEATURE_WIDTH, break_on_hyphens=False)
    return "\n".join(["Available CPUs:", *models, "", "Recognized CPUID flags:", *(f"  {line}" for line in flags)])


def _device(name: str | None) -> str:
    from aioemu.devices.catalog import DEVICES, device_help, devices_help

    if name is not None and name not in {device.name for device in DEVICES}:
        hint = did_you_mean(name, [device.name for device in DEVICES])
        raise ConfigError(f"-device {name},help: Device '{name}' not found{hint}", "-device")
    return devices_help() if name is None else device_help(name)


def _chardev(name: str | None) -> str:
    from aioemu.chardev import CHARDEVS

    if name is None:
        return "\n".join(["Available chardev backend types: ", *(f"  {kind}" for kind in CHARDEVS)])
    _known("chardev backend", name, CHARDEVS)
    names = CHARDEVS[name].options.__struct_fields__
    return "\n".join([f"{name} options:", *(f"  {each.replace('_', '-')}" for each in names)])


def _display(name: str | None) -> str:
    return "Available display backend types:\nnone"


def _vga(name: str | None) -> str:
    return f"{'none':<{NAME_COLUMN}} no graphic card"


def _audiodev(name: str | None) -> str:
    return "Available audio drivers:\nnone"


def _nic(name: str | None) -> str:
    from aioemu.machine.nic_options import MODELS

    return "\n".join(["Available NIC models for this configuration:", *MODELS])


def _format(name: str | None) -> str:
    from aioemu.blockdev.registry import DRIVERS

    return "Supported formats: " + " ".join(sorted(DRIVERS))


def _group(name: str | None) -> str:
    """The parameters of an option group."""
    from aioemu.config.option_groups import parameters

    kinds = {"string": "str", "boolean": "bool (on/off)", "number": "num", "size": "size"}
    lines = [f"  {key}=<{kinds[kind]}>" for key, kind in sorted(parameters(name or ""))]
    return "\n".join([f"{name} options:", *lines])


def _log(name: str | None) -> str:
    from aioemu.log import describe_items

    return describe_items()


def _netdev(name: str | None) -> str:
    """The back ends that the machine serves; of one, its options."""
    if name is None:
        return _served("netdev", "Available netdev backend types:", "")
    from aioemu.netdev.options import option_name
    from aioemu.netdev.registry import find_back_end

    types = {
        "str": "str",
        "bool": "bool (on/off)",
        "int": "num",
        "Size": "size",
        "tuple[str, ...]": "str",
        "dict[str, Any]": "address",
    }
    fields = dataclasses.fields(find_back_end(name).Options)
    lines = [f"  {option_name(each.name)}=<{types[str(each.type).removesuffix(' | None')]}>" for each in fields]
    return "\n".join([f"{name} options:", *sorted(lines)])


def _object(name: str | None) -> str:
    """The objects that the machine serves; of one, its properties."""
    if name is None:
        return _served("object", "List of user creatable objects:", "  ")
    from aioemu.devices.properties import describe_properties
    from aioemu.machine.object_types import OBJECT_TYPES

    kinds = {each.name: each for each in OBJECT_TYPES}
    if name not in kinds:
        hint = did_you_mean(name, list(kinds))
        raise ConfigError(f"-object {name},help: Parameter 'qom-type' does not accept value '{name}'{hint}", "-object")
    return "\n".join([f"{name} options:", *describe_properties(kinds[name].properties)])


def _served(option: str, title: str, indent: str) -> str:
    from aioemu.machine.served import SERVED

    kinds = sorted(each.partition(":")[2] for each in SERVED if each.startswith(f"{option}:"))
    return "\n".join([title, *(f"{indent}{kind}" for kind in kinds)])


def _known(what: str, name: str, names: Iterable[str]) -> None:
    known = list(names)
    if name not in known:
        raise ConfigError(f"'{name}' is not a known {what}{did_you_mean(name, known)}")


TOPICS: dict[str, Callable[[str | None], str]] = {
    "accel": _accel,
    "audiodev": _audiodev,
    "chardev": _chardev,
    "cpu": _cpu,
    "device": _device,
    "display": _display,
    "format": _format,
    "group": _group,
    "log": _log,
    "machine": _machine,
    "netdev": _netdev,
    "nic": _nic,
    "object": _object,
    "vga": _vga,
}
