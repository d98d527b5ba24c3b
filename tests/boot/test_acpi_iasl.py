"""The tables as ACPI's reference compiler sees them: clean to take apart, clean to put together, the same bytes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.boot.acpi_tables import BOARDS, LARGE, MICROVM, Q35, disassemble, iasl, tables

pytestmark = pytest.mark.skipif(shutil.which("iasl") is None, reason="needs Debian's acpica-tools")
CLEAN = re.compile(r"0 Errors, 0 Warnings, 0 Remarks")


@pytest.mark.parametrize("board", BOARDS)
def test_every_table_survives_a_round_trip(tmp_path: Path, board: str) -> None:
    """Each table disassembles without complaint, and its source compiles without one, to the bytes it came from."""
    for name, placement in tables(BOARDS[board]).items():
        if name == "RSDP":
            continue  # has no table header, which is what the tool goes by; test_acpi_layout reads it
        disassemble(tmp_path, placement)
        output = iasl(tmp_path, f"{name.lower()}.dsl")
        assert CLEAN.search(output), output
        compiled = (tmp_path / f"{name.lower()}.aml").read_bytes()
        masked = [bytes(data[:9] + data[10:28] + data[36:]) for data in (placement.data, compiled)]
        assert masked[0] == masked[1], f"{name}: the compiler makes other bytes of it"


def test_dsdt_of_a_pc(tmp_path: Path) -> None:
    """Devices, windows and routing are what the board said, in the compiler's words."""
    source = " ".join(disassemble(tmp_path, tables(Q35)["DSDT"]).split())
    for expected in (
        'EisaId ("PNP0A08")',
        'EisaId ("PNP0501")',
        'EisaId ("PNP0303")',
        'EisaId ("PNP0F13")',
        'EisaId ("PNP0B00")',
        'Name (_HID, "QEMU0001")',
        "0x00FF, // Range Maximum",
        "0xC0000000, // Range Minimum 0xFEBFFFFF, // Range Maximum",
        "0x0000001000000000, // Range Minimum 0x0000001FFFFFFFFF, // Range Maximum",
        "Memory32Fixed (ReadWrite, 0xB0000000, // Address Base 0x10000000, // Address Length",
        'ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766")',
        "Method (_OSC, 4, Serialized)",
        "Package (0x04) { 0x001FFFFF, 0x03, Zero, 0x12 }",  # slot 31, INTD#: (31 + 3) % 8 = 2
    ):
        assert expected in source
    assert source.count("Package (0x04) {") == 128  # 32 slots of 4 pins
    assert "Name (_S5, Package (0x04) // _S5_: S5 System State { Zero, Zero, Zero, Zero })" in source


def test_dsdt_of_a_microvm(tmp_path: Path) -> None:
    """Every virtio-mmio transport is there with its address and interrupt, and no PCI."""
    source = " ".join(disassemble(tmp_path, tables(MICROVM)["DSDT"]).split())
    assert source.count('Name (_HID, "LNRO0005")') == 24
    assert "0xFEB02E00, // Address Base 0x00000200, // Address Length" in source
    assert "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x0000001C, }" in source
    assert "PNP0A08" not in source
    assert "PNP0303" not in source


def test_madt_of_many_processors(tmp_path: Path) -> None:
    """Processors whose numbers do not fit into a byte have x2APIC entries, the others have not."""
    source = disassemble(tmp_path, tables(LARGE)["APIC"])
    assert source.count("Subtable Type : 00 [Processor Local APIC]") == 128  # APIC IDs 0, 2, … 254
    assert source.count("Subtable Type : 09 [Processor Local x2APIC]") == 384
    assert source.count("Subtable Type : 0A [Local x2APIC NMI]") == 1
    assert source.count("Subtable Type : 01 [I/O APIC]") == 2


def test_fadt_in_words(tmp_path: Path) -> None:
    """Power button, reset register and ports are described so that a guest uses them."""
    source = disassemble(tmp_path, tables(Q35)["FACP"])

    def value(label: str) -> str:
        found = re.search(rf"{re.escape(label)}[^:]*: (\S+)", source)
        assert found, label
        return found[1]

    assert value("Control Method Power Button") == "0"  # the power button is a fixed one
    assert value("Reset Register Supported") == "1"
    assert value("Value to cause reset") == "0F"
    assert value("SCI Interrupt") == "0009"
    assert value("PM1A Event Block Address") == "00000600"
    assert value("PM1A Control Block Address") == "00000604"
    assert value("PM Timer Block Address") == "00000608"
    assert value("GPE0 Block Address") == "00000620"
    assert value("Hardware Reduced") == "0"
    assert value("SMI Command Port") == "00000000"  # the hardware is in ACPI mode from the start
