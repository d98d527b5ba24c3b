"""ACPI fixed hardware: buttons, sleep, events, timer and the reset register."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from aioemu._core import ffi, lib
from aioemu.bus.registers import access
from aioemu.devices.acpi_pm import AcpiPm, Gpe
from aioemu.devices.pm_timer import HZ, PmTimer, next_overflow_ns, ticks
from aioemu.devices.reset_control import ResetControl
from tests.devices.fakes import FakeTimers, Line

STATUS, ENABLE, CONTROL = 0, 2, 4
PWRBTN, TMR, SLP_EN = 0x0100, 0x0001, 0x2000


class Bench:
    def __init__(self) -> None:
        self.sci, self.timers = Line(), FakeTimers()
        self.offs = 0
        self.pm = AcpiPm(self.sci, self.count_off, self.timers)

    def count_off(self) -> None:
        self.offs += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_power_button_interrupts_when_enabled_until_cleared(bench: Bench) -> None:
    """The status is there in any case; the interrupt needs the enable bit and ends with the written one."""
    bench.pm.press_power_button()
    assert bench.pm.read(STATUS, 2) == PWRBTN
    assert not bench.sci.up()
    bench.pm.write(ENABLE, 2, PWRBTN)
    assert bench.sci.up()
    bench.pm.write(STATUS, 2, PWRBTN)
    assert not bench.sci.up()
    assert bench.pm.read(STATUS, 2) == 0


def test_status_and_enable_are_reached_by_one_wide_access(bench: Bench) -> None:
    """A 32-bit access covers both registers, each with its own meaning."""
    bench.pm.press_power_button()
    bench.pm.write(STATUS, 4, PWRBTN << 16 | PWRBTN)
    assert bench.pm.read(STATUS, 4) == PWRBTN << 16


def test_only_s5_switches_off(bench: Bench) -> None:
    """SLP_EN with the sleep type of S5 powers off; other types do nothing, and SLP_EN reads zero."""
    bench.pm.write(CONTROL, 2, SLP_EN | 1 << 10)
    assert bench.offs == 0
    bench.pm.write(CONTROL, 2, SLP_EN)
    assert bench.offs == 1
    assert bench.pm.read(CONTROL, 2) == 0x0001  # SCI_EN: always in ACPI mode


def test_timer_overflow_is_an_event(bench: Bench) -> None:
    """TMR_STS comes each time the 24-bit counter's top bit changes, if enabled."""
    bench.pm.write(ENABLE, 2, TMR)
    half_ns = -(-(1 << 23) * 1_000_000_000 // HZ)
    bench.timers.advance(half_ns - 1)
    assert not bench.sci.up()
    bench.timers.advance(1)
    assert bench.sci.up()
    bench.pm.write(STATUS, 2, TMR)
    bench.timers.advance(half_ns)
    assert bench.sci.up()


def test_next_overflow_is_after_now() -> None:
    """The moment of an overflow is never now or before, so no timer rings for ever."""
    now = 0
    for _ in range(5):
        then = next_overflow_ns(now, 24)
        assert then > now
        assert ticks(then) >> 23 == (ticks(now) >> 23) + 1
        now = then


def test_reset_and_load_drive_the_interrupt(bench: Bench) -> None:
    """After reset nothing is pending; after a load the line is as the registers say."""
    bench.pm.write(ENABLE, 2, PWRBTN)
    bench.pm.press_power_button()
    state = bench.pm.save()
    bench.pm.reset()
    assert not bench.sci.up()
    bench.pm.load(state)
    assert bench.sci.up()


def test_general_purpose_events_interrupt_byte_by_byte() -> None:
    """Status and enable are reached as bytes; clearing one event leaves the others."""
    sci = Line()
    gpe = Gpe(sci)
    gpe.write(8 + 1, 1, 0x06)
    gpe.raise_event(9)
    gpe.raise_event(10)
    assert sci.up()
    assert gpe.read(1, 1) == 0x06
    gpe.write(1, 1, 0x02)
    assert gpe.read(1, 1) == 0x04
    assert sci.up()
    gpe.write(1, 1, 0x04)
    assert not sci.up()


@pytest.mark.parametrize(("values", "resets"), [([0x02], 0), ([0x02, 0x06], 1), ([0x0E], 1), ([0x04], 1), ([0x0F], 1)])
def test_reset_register_resets_with_bit_two(values: list[int], resets: int) -> None:
    """0x02 only prepares; each write with RST_CPU resets, whatever kind is asked for."""
    count = []
    control = ResetControl(lambda: count.append(1))
    for value in values:
        control.write(0, 1, value)
    assert len(count) == resets
    assert not control.read(0, 1) & 0x04


@pytest.fixture
def machine() -> Iterator[Any]:
    made = lib.core_machine_new(1)
    yield made
    lib.core_machine_free(made)


@pytest.mark.parametrize("counter_bits", [24, 32])
def test_timer_counts_the_machines_clock(machine: Any, counter_bits: int) -> None:
    """The counter runs at 3.579545 MHz of the virtual clock, wraps at its width, and cannot be written."""
    timer = PmTimer(counter_bits)
    lib.core_chip_wire(timer.chip, machine, -1)
    for now_ns in (0, 1_000_000_000, 10_000_000_000, 3_000_000_000_000):
        lib.core_clock_own(machine, now_ns)
        access(timer, 0, 4, True, 0xFFFFFFFF)
        value = access(timer, 0, 4, False)
        assert value == ticks(now_ns) & ((1 << counter_bits) - 1)
        assert access(timer, 1, 2, False) == value >> 8 & 0xFFFF
    lib.core_chip_wire(timer.chip, ffi.NULL, -1)
