"""What this machine is: name, UUID, accelerator, processor family, the boards there are."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record

if TYPE_CHECKING:
    from aioemu.machine.board import BoardType


class NameInfo(Record):
    """The machine's name, where it has one."""

    name: str | None = None


class UuidInfo(Record):
    """The machine's UUID; all zeros where none was given."""

    uuid: str = msgspec.field(name="UUID")


class KvmInfo(Record):
    """Whether KVM runs this machine, and whether it could."""

    enabled: bool
    present: bool


class SysEmuTarget(StrEnum):
    """Processor families."""

    AARCH64 = "aarch64"
    X86_64 = "x86_64"


class TargetInfo(Record):
    """The guest's processor family."""

    arch: SysEmuTarget


class CompatProperty(Record):
    """A property that a versioned machine sets."""

    qom_type: str
    property: str
    value: str


class QueryMachines(Record):
    """Whether the properties of versioned machines are wanted too."""

    compat_props: bool | None = None


class MachineInfo(Record):
    """A board that -machine takes."""

    name: str
    cpu_max: int
    hotpluggable_cpus: bool
    numa_mem_supported: bool
    deprecated: bool
    acpi: bool
    alias: str | None = None
    is_default: bool | None = None
    default_cpu_type: str | None = None
    default_ram_id: str | None = None
    compat_props: list[CompatProperty] | None = None


@command("query-name")
def query_name(machine: Machine) -> NameInfo:
    """Say what the machine is called."""
    return NameInfo(name=machine.config.name)


@command("query-uuid")
def query_uuid(machine: Machine) -> UuidInfo:
    """Say the machine's UUID."""
    return UuidInfo(uuid=str(machine.config.uuid or UUID(int=0)))


@command("query-kvm")
def query_kvm(machine: Machine) -> KvmInfo:
    """Say whether KVM runs this machine."""
    return KvmInfo(enabled=machine.accelerator.name == "kvm", present=os.access("/dev/kvm", os.R_OK | os.W_OK))


@command("query-target")
def query_target(machine: Machine) -> TargetInfo:
    """Say which processor family the guest sees."""
    return TargetInfo(arch=SysEmuTarget.X86_64)


@command("query-machines")
def query_machines(machine: Machine, args: QueryMachines) -> list[MachineInfo]:
    """List the boards that -machine takes."""
    from aioemu.machine.boards import BOARDS  # costs more than everything else here, and few ask

    return [_info(board, bool(args.compat_props)) for board in BOARDS]


def _info(board: BoardType, compat_props: bool) -> MachineInfo:
    empty = board.name == "none"
    return MachineInfo(
        name=board.name,
        alias=board.aliases[0] if board.aliases else None,
        is_default=board.is_default or None,
        cpu_max=board.max_cpus,
        hotpluggable_cpus=False,
        numa_mem_supported=False,
        deprecated=False,
        default_cpu_type=None if empty else "max-x86_64-cpu",
        acpi=not empty,
        compat_props=[] if compat_props else None,
    )


COMMANDS = (query_name, query_uuid, query_kvm, query_target, query_machines)
