"""The processor models that -cpu takes, and what each comes to here (QAPI machine-target.json)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aioemu.errors import ConfigError, MonitorError
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record

if TYPE_CHECKING:
    from aioemu.accel.cpuid import Leaf


class CpuDefinitionInfo(Record):
    """A processor model that -cpu takes."""

    name: str
    static: bool
    typename: str
    deprecated: bool
    migration_safe: bool | None = None
    unavailable_features: list[str] | None = None
    alias_of: str | None = None


class CpuModelExpansionType(StrEnum):
    """`static`: from a model that never changes; `full`: every property of the model itself."""

    STATIC = "static"
    FULL = "full"


class CpuModelInfo(Record):
    """A model, and properties that differ from it."""

    name: str
    props: Any = None


class CpuModelExpansion(Record):
    """What is to be expanded, and how."""

    type: CpuModelExpansionType
    model: CpuModelInfo


class CpuModelExpansionInfo(Record):
    """The model that it comes to."""

    model: CpuModelInfo


@command("query-cpu-definitions")
def query_cpu_definitions(machine: Machine) -> list[CpuDefinitionInfo]:
    """List the processor models."""
    from aioemu.accel.cpuid import MODELS  # few ask

    kvm = machine.accelerator.name == "kvm"
    return [
        CpuDefinitionInfo(
            name=model.name,
            typename=f"{model.name}-x86_64-cpu",
            static=model.name == "base",
            deprecated=False,
            migration_safe=model.features is not None,
            unavailable_features=["kvm"] if model.name == "host" and not kvm else [],
        )
        for model in MODELS.values()
    ]


@command("query-cpu-model-expansion")
def query_cpu_model_expansion(machine: Machine, args: CpuModelExpansion) -> CpuModelExpansionInfo:
    """Say which features a model has, with this accelerator on this host."""
    from aioemu.accel.cpuid import MODELS, expand

    name, static = args.model.name, args.type is CpuModelExpansionType.STATIC
    if name not in MODELS:
        raise MonitorError(f"CPU model '{name}' not found")
    accel, supported = _accelerator(machine)
    try:
        found = expand(name, _features(name, args.model.props), accel, supported, whole=not static)
    except ConfigError as exc:
        raise MonitorError(str(exc)) from exc
    return CpuModelExpansionInfo(model=CpuModelInfo(name="base" if static else name, props=found))


def _accelerator(machine: Machine) -> tuple[str, Sequence[Leaf]]:
    """The accelerator's name, and what a guest can be given: a machine without processors tells what tcg would."""
    leaves: Sequence[Leaf] = getattr(machine.accelerator, "supported", tuple)()
    if leaves:
        return machine.accelerator.name, leaves
    from aioemu.accel.tcg import supported_leaves

    return "tcg", supported_leaves()


def _features(model: str, props: Any) -> tuple[tuple[str, str], ...]:
    """Properties of a request as -cpu takes them."""
    from aioemu.accel.cpuid import SETTINGS
    from aioemu.accel.features import find

    if props is None:
        return ()
    if not isinstance(props, dict):
        raise MonitorError("Invalid parameter type for 'model.props', expected: object")
    given = []
    for name, value in props.items():
        if find(name) is None and name not in SETTINGS:
            raise MonitorError(f"Property '{model}-x86_64-cpu.{name}' not found")
        given.append((name, ("off", "on")[value] if isinstance(value, bool) else str(value)))
    return tuple(given)


COMMANDS = (query_cpu_definitions, query_cpu_model_expansion)
