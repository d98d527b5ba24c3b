"""Devices, and defaults and later changes for them."""

from __future__ import annotations

import re

from msgspec.structs import replace

from aioemu.cli.draft import Draft
from aioemu.cli.reading import Argument
from aioemu.config import DeviceOptions, GlobalOptions
from aioemu.config.grammar import Options, did_you_mean

_GLOBAL = re.compile(r"([^.=,]+)\.([^=,]+)=(.*)", re.DOTALL)
_SET = re.compile(r"([^.]+)\.([^.]+)\.([^=]+)=(.*)", re.DOTALL)
_FIELDS = ("id", "bus", "addr")


def device(draft: Draft, arg: Argument) -> None:
    """One more device; ids are unique among devices."""
    opts = arg.opts
    driver = opts.need("driver")
    device_id = opts.identifier()
    if device_id is not None and any(other.id == device_id for other in draft.devices):
        opts.fail(f"Duplicate device ID '{device_id}'")
    bus = opts.text("bus")
    addr = opts.value("addr")
    draft.devices.append(DeviceOptions(driver, device_id, bus, None if addr is None else str(addr), opts.rest()))


def global_(draft: Draft, arg: Argument) -> None:
    """`driver.property=value`, or the three by name."""
    match = _GLOBAL.fullmatch(arg.text)
    if match is not None and match.group(1) != "driver":
        draft.globals.append(GlobalOptions(*match.groups()))
        return
    opts = arg.opts if not arg.text else Options.parse("-global", arg.text)
    driver, name, value = (opts.text(key) for key in ("driver", "property", "value"))
    if driver is None or name is None or value is None:
        opts.fail("expected driver.property=value, or driver=, property= and value=")
    opts.close()
    draft.globals.append(GlobalOptions(driver, name, value))


def set_(draft: Draft, arg: Argument) -> None:
    """`group.id.key=value` changes an option that came before."""
    match = _SET.fullmatch(arg.text)
    if match is None:
        arg.opts.fail("expected group.id.key=value")
    group, name, key, value = match.groups()
    if group == "device":
        _set_device(draft, arg, name, key, value)
        return
    for at, other in enumerate(draft.groups):
        if other.option == group and other.id == name:
            draft.groups[at] = replace(other, values={**other.values, key: value})
            return
    known = {"device", *(other.option for other in draft.groups)}
    if group not in known:
        arg.opts.fail(f"There is no option group '{group}'{did_you_mean(group, known)}")
    arg.opts.fail(f'there is no {group} "{name}" defined')


def _set_device(draft: Draft, arg: Argument, name: str, key: str, value: str) -> None:
    for at, found in enumerate(draft.devices):
        if found.id == name:
            changed = {key: value} if key in _FIELDS else {"props": {**found.props, key: value}}
            draft.devices[at] = replace(found, **changed)
            return
    arg.opts.fail(f'there is no device "{name}" defined')
