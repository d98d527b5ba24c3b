"""What the machine needs of an accelerator: attach to a native machine, and say what its processors are.

The work is in the core (`core_accel`); this is the part that talks to people: options, models, reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from aioemu._core import ffi, lib
from aioemu.accel.cpuid import Leaf, build_leaves
from aioemu.config import CpuModel, Smp
from aioemu.errors import AccelError, HostError


class ChipNeeds(Struct, frozen=True):
    """Which legacy chips the board wants beside the local APICs and the I/O APIC."""

    pit: bool = True
    pic: bool = True


class Accelerator(Protocol):
    """One way to run a guest's processors; holds what it opened until `close`."""

    name: str

    def attach(self, machine: Any, needs: ChipNeeds) -> None:
        """Give the native machine its processors' home. AccelError says why it cannot be."""

    def supported(self) -> Sequence[Leaf]:
        """Every CPUID leaf that a guest can be given."""

    def close(self) -> None: ...


def add_vcpu(accelerator: Accelerator, machine: Any, model: CpuModel, smp: Smp, apic_id: int) -> int:
    """Make one vCPU of that model and place in the topology; its index. AccelError or ConfigError."""
    index = int(lib.core_vcpu_add(machine, apic_id))
    if index < 0:
        raise HostError(f"vCPU {apic_id}", -index)
    leaves = build_leaves(accelerator.name, accelerator.supported(), model, smp, apic_id)
    table = ffi.new("core_cpuid[]", [leaf.row() for leaf in leaves])
    rc = lib.core_vcpu_set_cpuid(machine, index, table, len(leaves))
    if rc < 0:
        raise AccelError(f"vCPU {apic_id}: {accelerator.name} refuses the CPUID of model {model.name} ({-rc})")
    return index
