"""Turns what a loader says of the boot processor into the registers of vCPU 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu._core import ffi, lib
from aioemu.errors import AccelError
from aioemu.machine.native import SEGMENTS, Native

if TYPE_CHECKING:
    from aioemu.boot.entry import BootEntry, Segment

_GPR = {"rax": 0, "rbx": 3, "rsp": 4, "rbp": 5, "rsi": 6}
_DIRECT = ("rip", "rflags", "cr0", "cr3", "cr4", "efer")


def enter(native: Native, entry: BootEntry) -> None:
    """Set the boot processor's state. What the entry does not name keeps its power-on value."""
    state = ffi.new("core_cpu_state *")
    rc = lib.core_vcpu_get_state(native.ptr, 0, state)
    if rc == 0:
        _fill(state, entry)
        rc = lib.core_vcpu_set_state(native.ptr, 0, state)
    if rc < 0:
        raise AccelError(f"the boot processor cannot start in mode {entry.mode.value} (error {-rc})")


def wait(native: Native) -> None:
    """Have the boot processor wait where a reset leaves it: there is nothing that it could run.

    A KVM without interrupt controller in the kernel knows no such state; the processor then runs what memory holds.
    """
    state: Any = ffi.new("core_cpu_state *")
    if lib.core_vcpu_get_state(native.ptr, 0, state) == 0:
        state.halted = 1
        lib.core_vcpu_set_state(native.ptr, 0, state)


def _fill(state: Any, entry: BootEntry) -> None:
    for i in range(16):
        state.gpr[i] = 0
    for name, index in _GPR.items():
        state.gpr[index] = getattr(entry, name)
    for name in _DIRECT:
        setattr(state, name, getattr(entry, name))
    for name in SEGMENTS:
        _fill_segment(getattr(state, name), getattr(entry, name))
    state.gdt_base, state.gdt_limit = entry.gdt.base, entry.gdt.limit
    state.idt_base, state.idt_limit = entry.idt.base, entry.idt.limit
    state.halted = state.uninitialized = 0


def _fill_segment(target: Any, segment: Segment) -> None:
    target.selector, target.base, target.limit = segment.selector, segment.base, segment.limit
    target.type, target.s, target.dpl = segment.kind, segment.code_or_data, segment.dpl
    target.present, target.avl, target.l = segment.present, segment.available, segment.long
    target.db, target.g, target.unusable = segment.default_big, segment.granularity, segment.unusable
