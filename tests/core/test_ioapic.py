"""The I/O APIC as a guest and its devices see it (82093AA)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu._core import lib
from tests.core.intc_bench import EOI, SVR, Bench, bench

LEVEL, MASKED, REMOTE_IRR = 1 << 15, 1 << 16, 1 << 14


@pytest.fixture
def pc() -> Iterator[Bench]:
    with bench() as made:
        made.enable_apics()
        yield made


def test_starts_masked_with_24_lines(pc: Bench) -> None:
    """Version 11H, 24 entries, all masked."""
    pc.ioapic.write(0x00, 0x01)
    assert pc.ioapic.read(0x10) == 0x00170011
    assert all(pc.entry(pin) == MASKED for pin in range(24))


def test_edge_sends_once_per_rise(pc: Bench) -> None:
    """A rising edge is one interrupt; a line that stays high is none."""
    pc.redirect(5, 0x45)
    pc.irq(5, 1)
    pc.irq(5, 1)
    assert pc.take() == 0x45
    pc.apics[0].write(EOI, 0)
    assert pc.take() == -1
    pc.irq(5, 0)
    pc.irq(5, 1)
    assert pc.take() == 0x45


def test_masked_edge_is_lost_and_masked_level_is_not(pc: Bench) -> None:
    """Unmasking delivers a level that is still there, not an edge that has passed."""
    pc.irq(5, 1)
    pc.irq(6, 1)
    pc.redirect(5, 0x45)
    assert pc.take() == -1
    pc.redirect(6, LEVEL | 0x46)
    assert pc.take() == 0x46


def test_level_comes_again_after_eoi_until_it_falls(pc: Bench) -> None:
    """Remote IRR holds further messages back until EOI; a line still high interrupts again."""
    pc.redirect(10, LEVEL | 0x50)
    pc.irq(10, 1)
    assert pc.entry(10) & REMOTE_IRR
    assert pc.take() == 0x50
    pc.irq(10, 0)
    pc.irq(10, 1)
    assert pc.take() == -1
    pc.apics[0].write(EOI, 0)
    assert pc.take() == 0x50
    pc.irq(10, 0)
    pc.apics[0].write(EOI, 0)
    assert pc.take() == -1
    assert not pc.entry(10) & REMOTE_IRR


def test_switching_to_edge_clears_remote_irr(pc: Bench) -> None:
    """What a kernel without an EOI register does to free a stuck line."""
    pc.redirect(10, LEVEL | 0x50)
    pc.irq(10, 1)
    pc.redirect(10, MASKED | 0x50)
    assert not pc.entry(10) & REMOTE_IRR
    pc.redirect(10, LEVEL | 0x50)
    assert pc.entry(10) & REMOTE_IRR


def test_level_waits_for_a_processor_that_accepts(pc: Bench) -> None:
    """While no APIC takes the message, remote IRR stays clear and the entry can be written again."""
    pc.apics[0].write(SVR, 0xFF)
    pc.redirect(10, LEVEL | 0x50)
    pc.irq(10, 1)
    assert not pc.entry(10) & REMOTE_IRR
    pc.apics[0].write(SVR, 0x1FF)
    pc.redirect(10, LEVEL | 0x50)
    assert pc.take() == 0x50


def test_isa_timer_reaches_pin_2(pc: Bench) -> None:
    """Line 0 is wired to pin 2, as the MADT's override says."""
    pc.redirect(2, 0x30)
    pc.irq(0, 1)
    assert pc.take() == 0x30


def test_there_is_no_line_24(pc: Bench) -> None:
    """A line the chip does not have is refused."""
    assert pc.irq(24, 1) < 0


def test_msi_must_be_addressed_to_an_apic(pc: Bench) -> None:
    """Only FEExxxxxH is a message address."""
    assert pc.msi(0xFED00000, 0x41) < 0
    assert pc.msi(0xFEE00000, 0x41) == 1
    assert pc.take() == 0x41


def test_state_goes_and_comes_back(pc: Bench) -> None:
    """Entries, levels and remote IRR survive; an EOI after loading still frees the line."""
    pc.redirect(10, LEVEL | 0x50)
    pc.irq(10, 1)
    assert pc.take() == 0x50
    state = pc.ioapic.save()
    lib.core_chip_reset(pc.ioapic.chip)
    assert pc.entry(10) == MASKED
    assert pc.ioapic.load(state)
    assert pc.ioapic.save() == state
    pc.apics[0].write(EOI, 0)
    assert pc.take() == 0x50


@given(st.lists(st.tuples(st.integers(0, 0x1F), st.integers(0, 2**32 - 1)), max_size=60), st.integers(0, 23))
def test_any_writes_leave_an_answering_chip(writes: list[tuple[int, int]], pin: int) -> None:
    """Reserved bits never stick and remote IRR is never set by the guest."""
    with bench() as pc:
        for offset, value in writes:
            pc.ioapic.write(offset, value)
        assert pc.entry(pin) & 0x00FFFFFFFFFE5000 == 0
        pc.irq(pin, 1)
        pc.irq(pin, 0)


@given(st.binary(min_size=208, max_size=208))
def test_a_foreign_state_is_refused_whole(state: bytes) -> None:
    """A state that no writes could have led to changes nothing."""
    with bench() as pc:
        before = pc.ioapic.save()
        assert len(before) == 208
        if not pc.ioapic.load(state):
            assert pc.ioapic.save() == before
