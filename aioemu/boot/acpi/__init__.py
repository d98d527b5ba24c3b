"""ACPI: what a board tells the guest's operating system about itself, as tables and AML."""

from __future__ import annotations

from aioemu.boot.acpi.board import (
    AcpiBoard,
    Cpu,
    IntiFlags,
    IoApic,
    IrqOverride,
    PciHost,
    PowerManagement,
    Uart,
    VirtioMmio,
    Window,
)
from aioemu.boot.acpi.build import build_tables

__all__ = [
    "AcpiBoard",
    "Cpu",
    "IntiFlags",
    "IoApic",
    "IrqOverride",
    "PciHost",
    "PowerManagement",
    "Uart",
    "VirtioMmio",
    "Window",
    "build_tables",
]
