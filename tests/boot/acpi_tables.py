"""Boards to describe, and ACPI's own compiler as the judge of the tables."""

from __future__ import annotations

import subprocess
from pathlib import Path

from aioemu.boot.acpi import AcpiBoard, Cpu, IoApic, PciHost, Uart, VirtioMmio, Window, build_tables
from aioemu.boot.tables import Placement

COM1 = Uart(0x3F8, 4, 0)
MICROVM = AcpiBoard(
    cpus=(Cpu(0),),
    uarts=(COM1,),
    virtio_mmio=tuple(VirtioMmio(0xFEB00000 + 0x200 * n, 5 + n, n) for n in range(24)),
)
Q35 = AcpiBoard(
    cpus=tuple(Cpu(n, n < 4) for n in range(8)),
    pci=PciHost(mmio64=Window(1 << 36, 1 << 36), intx_gsis=tuple(range(16, 24))),
    uarts=(COM1, Uart(0x2F8, 3, 1)),
    i8042=True,
    mouse=True,
    vga=True,
    pvpanic_port=0x505,
    hpet_address=0xFED00000,
    spcr=True,
)
LARGE = AcpiBoard(
    cpus=tuple(Cpu(2 * n) for n in range(512)),
    ioapics=(IoApic(), IoApic(1, 0xFEC10000, 24)),
    pci=PciHost(ecam=Window(1 << 40, 256 << 20), native_hotplug=False, io_ports=False),
    rtc=False,
)
BOARDS = {"microvm": MICROVM, "q35": Q35, "large": LARGE}


def tables(board: AcpiBoard) -> dict[str, Placement]:
    """The tables by signature."""
    return {placement.name: placement for placement in build_tables(board)}


def iasl(folder: Path, *args: str) -> str:
    """Run the compiler; what it says. It exits with 0 in spite of many complaints: read them."""
    run = subprocess.run(["iasl", *args], cwd=folder, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def disassemble(folder: Path, placement: Placement) -> str:
    """The table's source; fails on any complaint of the disassembler."""
    name = placement.name.lower()
    (folder / f"{name}.dat").write_bytes(placement.data)
    said = iasl(folder, "-d", f"{name}.dat")
    for line in said.splitlines():
        assert not any(word in line.lower() for word in ("error", "warning", "invalid", "unknown", "failed")), said
    return (folder / f"{name}.dsl").read_text()
