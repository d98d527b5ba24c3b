"""The payload kit is right where another machine runs it: QEMU, with its software CPU and with KVM.

What a payload shows about aioemu only counts if the same payload passes on a machine that is not aioemu.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.guests.build import payload

QEMU = "qemu-system-x86_64"
TIME_LIMIT_S = 60.0

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason="needs qemu-system-x86 as the other machine"),
]
needs_kvm = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs a usable /dev/kvm")


@pytest.fixture(params=["tcg", pytest.param("kvm", marks=[pytest.mark.kvm, needs_kvm])])
def accel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Run:
    """A finished run: exit status, console text and the JSON lines in it."""

    def __init__(self, command: str, accel: str, machine: str = "microvm", *options: str) -> None:
        fixed = "-m 128 -nodefaults -no-reboot -display none -serial stdio -device isa-debug-exit".split()
        kernel = ["-kernel", str(payload()), "-append", command]
        done = subprocess.run(
            [QEMU, "-M", machine, "-accel", accel, *fixed, *kernel, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
        self.status = done.returncode
        self.console = done.stdout.replace("\r", "")
        self.records: list[dict[str, Any]] = [json.loads(line) for line in self.console.splitlines() if line[:1] == "{"]

    @property
    def passed(self) -> bool:
        return self.status == 1 and "payload: pass " in self.console


def test_hello_comes_from_level_3(accel: str) -> None:
    """The kit reaches 64-bit level 3 through PVH and leaves with status 1, which isa-debug-exit makes of 0."""
    run = Run("hello some=words", accel)

    assert run.console == "hello from level 3: hello some=words\npayload: pass hello\n"
    assert run.status == 1


@pytest.mark.parametrize("value", [0, 5, 127])
def test_exit_status_is_the_value_doubled_plus_one(value: int) -> None:
    """The value that a test leaves with is visible to the host."""
    assert Run(f"exit v={value}", "tcg").status == value << 1 | 1


def test_a_failing_expectation_fails_the_run(accel: str) -> None:
    """A script that expects the wrong value says what it got and leaves with 1."""
    run = Run("script x1@0x100000=256", accel)

    assert run.status == 3
    assert "payload: reason: 0x100000: got" in run.console


def test_an_unknown_test_is_told_the_known_ones() -> None:
    """A misspelt name ends at once and lists the tests."""
    run = Run("helo", "tcg")

    assert run.status == 2 << 1 | 1
    assert "payload: there is hello\n" in run.console


@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_firmware_tables_have_right_sums(machine: str) -> None:
    """The ACPI walk finds the tables and every CPU of the MADT."""
    run = Run("acpi", "tcg", machine, "-smp", "3")

    assert run.passed
    assert run.records[0]["bad"] == 0
    assert run.records[0]["cpus"] == 3


def test_every_cpu_starts_and_counts(accel: str) -> None:
    """INIT and SIPI start as many CPUs as the MADT lists; an atomic counter loses nothing."""
    run = Run("smp n=1000", accel, "microvm", "-smp", "4")

    assert run.passed
    assert run.records[0]["started"] == 4
    assert run.console.count(" counted 1000\n") == 4


@pytest.mark.parametrize("command", ["timer n=5", "pit n=5", "ipi cpus=1 n=50", "ipi cpus=2 n=50"])
def test_interrupts_arrive(command: str, accel: str) -> None:
    """Timers wake hlt, and interprocessor interrupts reach their handler."""
    assert Run(command, accel, "microvm", "-smp", "2").passed


@pytest.mark.parametrize(
    "command",
    [
        "storm mmio=0xfeb00000 n=50",
        "storm mmio=0xfeb00000 n=50 level=0",
        "storm port=0x80 n=50",
    ],
)
def test_storm_reports_cycles(command: str, accel: str) -> None:
    """A storm counts every access and reports its price in cycles."""
    run = Run(command, accel)

    assert run.passed
    assert run.records[0]["n"] == 50
    assert 0 < run.records[0]["min"] <= run.records[0]["p50"] <= run.records[0]["max"]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_string_output_arrives_in_order(size: int, accel: str) -> None:
    """`rep outs` of each width writes the pattern it promises, and its hash is that of the pattern."""
    run = Run(f"strio port=0x80 op=out size={size} count=100 offset=4000", accel)
    expected = 0xCBF29CE484222325
    for i in range(100 * size):
        expected = (expected ^ (7 * i + 3) & 0xFF) * 0x100000001B3 & (1 << 64) - 1

    assert run.passed
    assert run.records[0]["hash"] == expected


@pytest.mark.parametrize(
    "command",
    [
        "memory",
        "mmio base=0x2000ff0 bytes=32",
        "rmw n=20",
        "jit n=200",
        "jit n=200 alias=1",
    ],
)
def test_memory_keeps_what_is_written(command: str, accel: str) -> None:
    """RAM holds its pattern at every width and alignment, and rewritten code is executed as rewritten."""
    assert Run(command, accel).passed


def test_high_memory_is_reachable() -> None:
    """Memory above 4 GiB is mapped on demand."""
    run = Run("memory from=0x100000000 to=0x100400000", "tcg", "q35", "-m", "4100")

    assert run.passed


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_pci_scans_agree(machine: str) -> None:
    """Configuration mechanism #1 and ECAM see the same functions; a board without PCI has none."""
    run = Run("pci", "tcg", machine)

    assert run.passed
    assert ("pci: 00:00.0 8086:29c0 class 060000\n" in run.console) == (machine == "q35")


@pytest.mark.parametrize("command", ["pmtimer", "rtc"])
def test_clocks_of_q35(command: str) -> None:
    """The PM timer runs at its rate, and the RTC can be read outside of an update."""
    assert Run(command, "tcg", "q35").passed


@pytest.mark.parametrize("command", ["triple", "garbage what=tss", "reset"])
def test_the_machine_ends(command: str) -> None:
    """With -no-reboot a reset, asked for or forced, ends the machine with status 0."""
    assert Run(command, "tcg", "q35").status == 0


def test_power_off() -> None:
    """The ACPI sleep register at its usual port powers a q35 off."""
    run = Run("poweroff", "tcg", "q35")

    assert run.status == 0
    assert run.console == "poweroff: now\n"


def test_an_exception_is_reported_with_its_place(accel: str) -> None:
    """An exception nobody expects names vector, error code, place and address, and leaves with 0x7f."""
    run = Run("script r4@0x8000000000000000", accel)

    assert run.status == 0x7F << 1 | 1
    assert run.console.startswith("payload: exception 13 error 0x0 rip 0x1")
