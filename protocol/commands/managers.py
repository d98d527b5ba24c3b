"""What managers ask every machine about, however little there is to say: consoles, mice, trusted platform modules."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record, Union


class ImageFormat(StrEnum):
    """Of a picture of the screen."""

    PPM = "ppm"
    PNG = "png"


class Screendump(Record):
    """Where a picture goes, and of which screen."""

    filename: str
    device: str | None = None
    head: int | None = None
    format: ImageFormat | None = None


class MouseInfo(Record):
    """A pointing device."""

    name: str
    index: int
    current: bool
    absolute: bool


class TpmModel(StrEnum):
    """A trusted platform module's model."""

    TPM_TIS = "tpm-tis"
    TPM_CRB = "tpm-crb"


class TpmType(StrEnum):
    """A trusted platform module's back end."""

    PASSTHROUGH = "passthrough"
    EMULATOR = "emulator"


class TpmPassthroughOptions(Record):
    """A module of the host."""

    path: str | None = None
    cancel_path: str | None = None


class TpmEmulatorOptions(Record):
    """A module in a program."""

    chardev: str


class TpmPassthroughOptionsWrapper(Record):
    """Its place in the union."""

    data: TpmPassthroughOptions


class TpmEmulatorOptionsWrapper(Record):
    """Its place in the union."""

    data: TpmEmulatorOptions


class TpmTypeOptions(Union, kw_only=True):
    """What is behind a module."""

    tag = "type"
    cases: ClassVar = {
        TpmType.PASSTHROUGH: TpmPassthroughOptionsWrapper,
        TpmType.EMULATOR: TpmEmulatorOptionsWrapper,
    }

    type: TpmType


class TpmInfo(Record):
    """A trusted platform module."""

    id: str
    model: TpmModel
    options: TpmTypeOptions


class DisplayType(StrEnum):
    """What shows the screen."""

    NONE = "none"


class DisplayOptions(Record):
    """How the screen is shown."""

    type: DisplayType


class CurrentMachineParams(Record):
    """What the running board can do."""

    wakeup_suspend_support: bool


@command("screendump")
def screendump(machine: Machine, args: Screendump) -> None:
    """Take a picture of the screen; there is no screen yet."""
    if args.device is None and args.head is not None:
        raise MonitorError("'head' must be specified together with 'device'")
    if args.device is not None:
        raise MonitorError(f"Device '{args.device}' not found", "DeviceNotFound")
    raise MonitorError("There is no console to take a screendump from")


@command("query-mice")
def query_mice(machine: Machine) -> list[MouseInfo]:
    """List the pointing devices: there is none yet."""
    return []


@command("query-tpm")
def query_tpm(machine: Machine) -> list[TpmInfo]:
    """List the trusted platform modules: there is none."""
    return []


@command("query-tpm-models")
def query_tpm_models(machine: Machine) -> list[TpmModel]:
    """List the models of such modules that can be made: none."""
    return []


@command("query-tpm-types")
def query_tpm_types(machine: Machine) -> list[TpmType]:
    """List the back ends that such modules can have: none."""
    return []


@command("query-display-options")
def query_display_options(machine: Machine) -> DisplayOptions:
    """Say what shows the screen: nothing does."""
    return DisplayOptions(type=DisplayType.NONE)


@command("query-current-machine")
def query_current_machine(machine: Machine) -> CurrentMachineParams:
    """Say what the running board can do."""
    return CurrentMachineParams(wakeup_suspend_support=False)


COMMANDS = (
    screendump,
    query_mice,
    query_tpm,
    query_tpm_models,
    query_tpm_types,
    query_display_options,
    query_current_machine,
)
