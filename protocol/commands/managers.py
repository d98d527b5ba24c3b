"""What managers ask every machine about, however little there is to say: consoles, mice, trusted platform modules."""

from __future__ import annotations

from enum import StrEnum

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


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


class TpmInfo(Record):
    """A trusted platform module."""

    id: str
    model: TpmModel


class CurrentMachineParams(Record):
    """What the running board can do."""

    wakeup_suspend_support: bool


class CpuDefinitionInfo(Record):
    """A processor model that -cpu takes."""

    name: str
    static: bool
    typename: str
    deprecated: bool
    migration_safe: bool | None = None
    unavailable_features: list[str] | None = None
    alias_of: str | None = None


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


@command("query-current-machine")
def query_current_machine(machine: Machine) -> CurrentMachineParams:
    """Say what the running board can do."""
    return CurrentMachineParams(wakeup_suspend_support=False)


@command("query-cpu-definitions")
def query_cpu_definitions(machine: Machine) -> list[CpuDefinitionInfo]:
    """List the processor models."""
    from aioemu.accel.cpuid import MODELS  # few ask

    kvm = machine.accelerator.name == "kvm"
    return [
        CpuDefinitionInfo(
            name=model.name,
            typename=f"{model.name}-x86_64-cpu",
            static=False,
            deprecated=False,
            migration_safe=model.features is not None,
            unavailable_features=["kvm"] if model.name == "host" and not kvm else [],
        )
        for model in MODELS.values()
    ]


COMMANDS = (
    screendump,
    query_mice,
    query_tpm,
    query_tpm_models,
    query_tpm_types,
    query_current_machine,
    query_cpu_definitions,
)
