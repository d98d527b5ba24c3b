"""Boards without a processor: what is where, what options do, what mistakes say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aioemu.api import Machine
from aioemu.bus.wires import MMIO, PIO
from aioemu.errors import ConfigError
from aioemu.machine.boards import BOARDS, find_board

PORTS = {
    "microvm": {0x3F8: "serial0", 0x70: "rtc", 0x600: "acpi-pm", 0x608: "pm-timer", 0xCF8: "reset-control"},
    "q35": {0x3F8: "serial0", 0x70: "rtc", 0x60: "i8042", 0x64: "i8042", 0x600: "acpi-pm", 0xCF8: "pci"},
}


def vm(board: str, **keywords: Any) -> Machine:
    """A board on a clock of our own: nothing runs."""
    return Machine(machine=board, accel="qtest", paused=True, **keywords)


@pytest.mark.parametrize("board", PORTS)
async def test_chips_are_where_pcs_have_them(board: str) -> None:
    """Ports are those that every kernel expects."""
    async with vm(board) as machine:
        places = {region.base: region.name for region in machine.regions if region.space == PIO}

    assert {base: places.get(base) for base in PORTS[board]} == PORTS[board]


async def test_q35_answers_on_pci() -> None:
    """Host bridge and LPC bridge answer by ports and by ECAM."""
    async with vm("q35") as machine:
        bus = machine.machine.native.router
        bus.write(PIO, 0xCF8, 4, 0x80000000)
        assert bus.read(PIO, 0xCFC, 4) == 0x29C08086
        assert bus.read(MMIO, 0xB0000000 + (0x1F << 15), 4) == 0x29188086


@pytest.mark.parametrize(
    ("board", "message"),
    [
        ("q36", "did you mean q35"),
        ("microvm,pci=on", "did you mean pcie"),
        ("microvm,acpi=perhaps", "on or off"),
        ("none,acpi=on", "not found"),
    ],
)
async def test_mistakes_are_named(board: str, message: str) -> None:
    """An unknown board, option or value names itself and the nearest known one."""
    with pytest.raises(ConfigError, match=message):
        await vm(board).open()


def test_aliases_and_versions() -> None:
    """pc, pc-q35-9.2 and pc-i440fx-8.0 are the default board; one board is the default."""
    assert {find_board(name).name for name in ("pc", "q35", "pc-q35-9.2", "pc-i440fx-8.0")} == {"q35"}
    assert sum(board.is_default for board in BOARDS) == 1


@pytest.mark.parametrize("option", ["isa-serial=off", "rtc=off", "pcie=on", "acpi=off"])
async def test_microvm_options(option: str) -> None:
    """Each option takes away or adds what it names."""
    async with vm(f"microvm,{option}") as machine:
        names = {region.name for region in machine.regions}

    assert ("serial0" in names) == (option != "isa-serial=off")
    assert ("rtc" in names) == (option != "rtc=off")
    assert ("ECAM" in names) == (option == "pcie=on")


@pytest.mark.parametrize("board", ["microvm", "microvm,pcie=on", "q35"])
async def test_tables_disassemble(board: str, tmp_path: Path) -> None:
    """Every ACPI table of every board is one that iasl reads without an error."""
    if shutil.which("iasl") is None:
        pytest.skip("iasl is not installed: apt-get install acpica-tools")
    async with vm(board, smp=3) as machine:
        tables = machine.machine.board.firmware(machine.machine.kit)
        assert tables is not None
        for table in tables.placements:
            if table.name in ("FACP", "DSDT", "APIC", "MCFG", "XSDT"):
                file = tmp_path / f"{table.name}.aml"
                file.write_bytes(table.data)
                done = subprocess.run(["iasl", "-d", file.name], cwd=tmp_path, capture_output=True, check=False)
                assert done.returncode == 0, done.stderr.decode()


async def test_devices_by_option() -> None:
    """-device adds to the board; a second one of the same id is refused."""
    async with vm("q35", devices=["isa-debug-exit", "isa-serial,id=extra", "pcie-root-port,id=rp1"]) as machine:
        assert {"isa-debug-exit-0", "extra", "rp1"} == set(machine.machine.site.devices)
        assert "rp1" in machine.machine.site.buses
    with pytest.raises(ConfigError, match="Duplicate device ID 'x'"):
        await vm("q35", devices=["pvpanic,id=x", "isa-debugcon,id=x"]).open()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("isa-debug-exti", "did you mean isa-debug-exit"),
        ("isa-debug-exit,iobas=1", "did you mean iobase"),
        ("pvpanic-pci,bus=pcie.7", "Bus 'pcie.7' not found"),
        ("pvpanic-pci,addr=99", "doesn't take value"),
    ],
)
async def test_device_mistakes_are_named(device: str, message: str) -> None:
    """An unknown device, property or bus names itself and the nearest known one."""
    with pytest.raises(ConfigError, match=message):
        await vm("q35", devices=[device]).open()


async def test_pci_device_needs_pci() -> None:
    """A PCI device on a board without PCI says so."""
    with pytest.raises(ConfigError, match="No 'PCI' bus found"):
        await vm("microvm", devices=["pvpanic-pci"]).open()


async def test_globals_are_defaults() -> None:
    """-global sets a property that -device does not."""
    from aioemu.config import GlobalOptions

    given = (GlobalOptions("isa-debug-exit", "iobase", "0x777"),)
    async with vm("q35", devices=["isa-debug-exit"], globals=given) as machine:
        assert any(region.base == 0x777 for region in machine.regions)


async def test_panic_port_ends_a_machine_that_cannot_switch_itself_off() -> None:
    """Bit 2 is no crash: GUEST_PVSHUTDOWN, and a shutdown by the guest."""
    async with vm("q35", devices=["pvpanic"]) as machine:
        machine.machine.native.router.write(PIO, 0x505, 1, 4)
        assert (await machine.wait()).cause.value == "guest-shutdown"

    assert [e.name for e in machine.events.history if e.name in ("GUEST_PVSHUTDOWN", "GUEST_PANICKED", "SHUTDOWN")] == [
        "GUEST_PVSHUTDOWN",
        "SHUTDOWN",
    ]
