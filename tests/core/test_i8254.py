"""The 8254 and port 61H as a PC's software uses them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu._core import lib
from tests.core.intc_bench import EOI, Bench, bench

HZ = 1193182
SECOND_NS = 10**9
CONTROL = 3


@pytest.fixture
def pc() -> Iterator[Bench]:
    with bench() as made:
        made.enable_apics()
        made.redirect(2, 0x30)
        yield made


def program(pc: Bench, channel: int, mode: int, count: int) -> None:
    pc.pit.write(CONTROL, channel << 6 | 0x30 | mode << 1, 1)
    pc.pit.write(channel, count & 0xFF, 1)
    pc.pit.write(channel, count >> 8, 1)


def latched(pc: Bench, channel: int) -> int:
    pc.pit.write(CONTROL, channel << 6, 1)
    return pc.pit.read(channel, 1) | pc.pit.read(channel, 1) << 8


def interrupts(pc: Bench, ns: int, step_ns: int) -> int:
    """How many times line 0 interrupted while time passed."""
    seen, end = 0, pc.now_ns + ns
    while pc.now_ns < end:
        pc.advance(min(step_ns, end - pc.now_ns))
        while pc.take() == 0x30:
            pc.apics[0].write(EOI, 0)
            seen += 1
    return seen


@pytest.mark.parametrize("mode", [2, 3])
def test_periodic_modes_interrupt_at_their_rate(pc: Bench, mode: int) -> None:
    """Count 11932 is 100 Hz: a hundred interrupts a second."""
    program(pc, 0, mode, 11932)
    assert interrupts(pc, SECOND_NS, 1_000_000) in (99, 100)


@pytest.mark.parametrize("mode", [0, 4])
def test_one_shot_modes_interrupt_once(pc: Bench, mode: int) -> None:
    """One interrupt at terminal count, none after, and none before."""
    program(pc, 0, mode, 1193)
    assert interrupts(pc, 990_000, 10_000) == 0
    assert interrupts(pc, 20_000, 1_000) == 1
    assert interrupts(pc, SECOND_NS // 10, 1_000_000) == 0


def test_stopped_timer_asks_nothing_of_the_host(pc: Bench) -> None:
    """Mode 0 with its count done, and a timer never programmed, need no wake-up."""
    assert pc.poll() == 0
    program(pc, 0, 0, 10)
    pc.advance(SECOND_NS)
    assert pc.poll() == 0


def test_count_of_two_cannot_flood_the_host(pc: Bench) -> None:
    """600 kHz is more than the host serves: the floor bounds it."""
    program(pc, 0, 2, 2)
    pc.advance(10_000)
    assert pc.poll() >= pc.now_ns + 30_000
    assert interrupts(pc, SECOND_NS // 100, 10_000) <= 201


def test_count_runs_down_and_latches(pc: Bench) -> None:
    """A latched count stays until both bytes are read; a later latch before that changes nothing."""
    program(pc, 2, 0, 0xFFFF)
    pc.port61.write(0, 1, 1)
    pc.advance(10_000_000)
    expected = 0xFFFF - 10_000_000 * HZ // SECOND_NS
    pc.pit.write(CONTROL, 0x80, 1)
    pc.advance(1_000_000)
    pc.pit.write(CONTROL, 0x80, 1)
    value = pc.pit.read(2, 1) | pc.pit.read(2, 1) << 8
    assert abs(value - expected) <= 1
    assert latched(pc, 2) < expected - 1000


def test_gate_of_channel_2_stops_the_count(pc: Bench) -> None:
    """Port 61H bit 0 is the gate: without it nothing counts; bit 5 is the output."""
    pc.port61.write(0, 0, 1)
    program(pc, 2, 0, 1000)
    pc.advance(SECOND_NS)
    assert latched(pc, 2) == 1000
    pc.port61.write(0, 1, 1)
    assert not pc.port61.read(0, 1) & 0x20
    pc.advance(1000 * SECOND_NS // HZ + 1000)
    assert pc.port61.read(0, 1) & 0x20


def test_read_back_gives_status_then_count(pc: Bench) -> None:
    """Status: output, null count, access, mode, BCD; after it the latched count."""
    program(pc, 2, 3, 1000)
    pc.pit.write(CONTROL, 0xC8, 1)
    assert pc.pit.read(2, 1) == 0x80 | 0x30 | 3 << 1
    assert pc.pit.read(2, 1) | pc.pit.read(2, 1) << 8 == 1000
    pc.pit.write(CONTROL, 0xB0, 1)
    pc.pit.write(CONTROL, 0xE8, 1)
    assert pc.pit.read(2, 1) & 0x40


def test_bcd_counts_in_decimal(pc: Bench) -> None:
    """In BCD the count is four decimal digits and 0 means 10000."""
    pc.port61.write(0, 1, 1)
    pc.pit.write(CONTROL, 0xB1, 1)
    pc.pit.write(2, 0x00, 1)
    pc.pit.write(2, 0x20, 1)
    pc.advance(1000 * SECOND_NS // HZ + 100)
    assert latched(pc, 2) == 0x1000


def test_refresh_toggles(pc: Bench) -> None:
    """Port 61H bit 4 changes about every 15 us: old delay loops count on it."""
    seen = set()
    for _ in range(8):
        seen.add(pc.port61.read(0, 1) & 0x10)
        pc.advance(10_000)
    assert seen == {0, 0x10}


def test_state_goes_and_comes_back(pc: Bench) -> None:
    """A running periodic timer goes on in phase at another time of the clock."""
    program(pc, 0, 2, 11932)
    pc.advance(5_000_000)
    state = pc.pit.save()
    lib.core_chip_reset(pc.pit.chip)
    pc.set_clock(pc.now_ns + 7 * SECOND_NS)
    assert pc.pit.load(state)
    assert pc.pit.save() == state
    assert interrupts(pc, 4_900_000, 10_000) == 0
    assert interrupts(pc, 200_000, 10_000) == 1


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255), st.integers(0, 10**7)), max_size=40),
    st.lists(st.tuples(st.integers(0, 135), st.integers(0, 255)), max_size=4),
)
def test_any_words_leave_an_answering_timer(writes: list[tuple[int, int, int]], damage: list[tuple[int, int]]) -> None:
    """Whatever is written or loaded, reads answer and the host is asked for a bounded number of wake-ups."""
    with bench() as pc:
        state = bytearray(pc.pit.save())
        for at, value in damage:
            state[at % len(state)] = value
        pc.pit.load(bytes(state))
        for port, value, wait in writes:
            pc.pit.write(port, value, 1)
            pc.pit.read(port, 1)
            pc.port61.write(0, value, 1)
            pc.port61.read(0, 1)
            pc.set_clock(pc.now_ns + wait)
            due = pc.poll()
            assert due == 0 or due > pc.now_ns - 1
