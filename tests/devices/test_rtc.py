"""MC146818: time as guests set and read it, alarms and interrupts, CMOS memory."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.devices import calendar
from aioemu.devices.rtc import Rtc
from aioemu.devices.rtc_clock import NS, make_clock
from aioemu.errors import ConfigError, StateError
from tests.devices.fakes import FakeTimers, Line

START = int(datetime(2024, 2, 28, 23, 59, 58, tzinfo=UTC).timestamp()) * NS
SET, PIE, AIE, UIE, BINARY, HOURS24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D


class Bench:
    """A clock chip on a virtual clock."""

    def __init__(self, **options: Any) -> None:
        self.timers = FakeTimers()
        self.irq = Line()
        self.rtc = Rtc(self.irq, self.timers, lambda: START + self.timers.now, **options)

    def read(self, register: int) -> int:
        self.rtc.write(0, 1, register)
        return self.rtc.read(1, 1)

    def write(self, register: int, value: int) -> None:
        self.rtc.write(0, 1, register)
        self.rtc.write(1, 1, value)

    def clock(self) -> str:
        return " ".join(f"{self.read(r):02x}" for r in (0x32, 9, 8, 7, 4, 2, 0))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_time_reads_as_bcd_and_goes_on(bench: Bench) -> None:
    """The time is the wall clock's in BCD, over midnight of a leap day, with weekday and century."""
    assert bench.clock() == "20 24 02 28 23 59 58"
    assert bench.read(6) == 4  # Wednesday
    bench.timers.advance(3 * NS)
    assert bench.clock() == "20 24 02 29 00 00 01"
    assert bench.read(D) == 0x80


def test_binary_and_twelve_hours(bench: Bench) -> None:
    """Register B chooses binary or BCD and 12 or 24 hours; noon and midnight are twelve."""
    bench.write(B, HOURS24 | BINARY)
    assert (bench.read(4), bench.read(2)) == (23, 59)
    bench.write(B, 0)
    assert bench.read(4) == 0x91
    bench.timers.advance(2 * NS)
    assert bench.read(4) == 0x12


def test_guest_sets_the_time(bench: Bench) -> None:
    """A driver's sequence (SET, divider reset, time, divider, SET off) sets the time, half a second before the next."""
    bench.write(B, SET | HOURS24)
    bench.write(A, 0x76)
    for register, value in ((0, 0x30), (2, 0x45), (4, 0x06), (7, 0x01), (8, 0x03), (9, 0x30), (0x32, 0x20)):
        bench.write(register, value)
    bench.timers.advance(10 * NS)
    assert bench.clock() == "20 30 03 01 06 45 30"
    bench.write(A, 0x26)
    bench.write(B, HOURS24)
    bench.timers.advance(NS // 2 - 1)
    assert bench.clock() == "20 30 03 01 06 45 30"
    bench.timers.advance(1)
    assert bench.clock() == "20 30 03 01 06 45 31"


def test_setting_the_time_is_told(bench: Bench) -> None:
    """The host learns how far the guest's time is from its own, in seconds."""
    told: list[int] = []
    bench.rtc.on_change = told.append
    before = bench.rtc.guest_seconds
    bench.write(B, SET | HOURS24)
    bench.write(0, 0x00)
    assert told == []
    bench.write(B, HOURS24)

    assert told == [bench.rtc.guest_seconds - before]


def test_time_written_without_set_counts_at_once(bench: Bench) -> None:
    """Writing one register of a running clock changes just that."""
    bench.write(9, 0x31)
    bench.timers.advance(NS)
    assert bench.clock() == "20 31 02 28 23 59 59"


def test_update_in_progress_shows_only_before_the_second_turns(bench: Bench) -> None:
    """UIP is off but for the last eight periods of the crystal in a second, and off while the clock is stopped."""
    assert not bench.read(A) & 0x80
    bench.timers.advance(NS - 244_141)
    assert not bench.read(A) & 0x80
    bench.timers.advance(1)
    assert bench.read(A) & 0x80
    bench.write(B, SET | HOURS24)
    assert not bench.read(A) & 0x80


def test_update_interrupt_each_second(bench: Bench) -> None:
    """UIE interrupts when the second turns; reading C tells why, and lowers the line."""
    bench.write(B, HOURS24 | UIE)
    bench.read(C)
    bench.timers.advance(NS)
    assert bench.irq.up()
    assert bench.read(C) & 0x90 == 0x90
    assert not bench.irq.up()
    bench.timers.advance(NS)
    assert bench.irq.rises == 2


@pytest.mark.parametrize(("rate", "hertz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_periodic_interrupt_has_the_tables_rate(bench: Bench, rate: int, hertz: int) -> None:
    """PIE interrupts at the rate of the sheet's table; each is taken by reading C."""
    bench.write(A, 0x20 | rate)
    bench.write(B, HOURS24 | PIE)
    bench.read(C)
    rises = 0
    for _ in range(10):
        bench.timers.advance(-(-NS // hertz))
        rises += bool(bench.read(C) & 0x40)
    assert rises == 10


def test_alarm_rings_once_a_day_at_its_time(bench: Bench) -> None:
    """The alarm interrupts at the time it is set for, and not again before the next day."""
    for register, value in ((1, 0x05), (3, 0x00), (5, 0x00)):
        bench.write(register, value)
    bench.write(B, HOURS24 | AIE)
    bench.read(C)
    bench.timers.advance(6 * NS)
    assert not bench.irq.up()
    bench.timers.advance(NS)
    assert bench.irq.up()
    assert bench.read(C) & 0xA0 == 0xA0
    bench.timers.advance(23 * 3600 * NS)
    assert not bench.irq.up()
    bench.timers.advance(3600 * NS)
    assert bench.irq.up()


def test_alarm_with_wildcards_rings_each_minute(bench: Bench) -> None:
    """Alarm registers with both top bits set match always."""
    for register, value in ((1, 0x10), (3, 0xC0), (5, 0xFF)):
        bench.write(register, value)
    bench.write(B, HOURS24 | AIE)
    bench.read(C)
    for wait in (12, 60, 60):
        bench.timers.advance(wait * NS)
        assert bench.read(C) & 0x20


def test_impossible_alarm_never_rings(bench: Bench) -> None:
    """An alarm at second 99 arms nothing."""
    bench.write(1, 0x99)
    bench.write(B, HOURS24 | AIE)
    bench.read(C)
    bench.timers.advance(48 * 3600 * NS)
    assert not bench.irq.up()


def test_reset_stops_interrupts_and_keeps_time_and_memory(bench: Bench) -> None:
    """The reset pin does not reach what the battery feeds."""
    bench.write(0x40, 0xA5)
    bench.write(9, 0x40)
    bench.write(B, HOURS24 | UIE | PIE)
    bench.timers.advance(NS)
    bench.rtc.reset()
    assert not bench.irq.up()
    assert (bench.read(0x40), bench.read(9), bench.read(B)) == (0xA5, 0x40, HOURS24)


def test_nmi_bit_is_not_part_of_the_index(bench: Bench) -> None:
    """Bit 7 of the index port is the NMI mask; the byte found is the same."""
    bench.write(0x40, 0x11)
    assert bench.read(0x40 | 0x80) == 0x11
    assert bench.rtc.nmi_masked


def test_firmware_memory_is_there_from_the_start() -> None:
    """A board can fill CMOS bytes for its firmware."""
    assert Bench(cmos={0x34: 0x12}).read(0x34) == 0x12


def test_saved_clock_goes_on(bench: Bench) -> None:
    """Time, alarm and pending interrupt come back."""
    bench.write(9, 0x35)
    bench.write(B, HOURS24 | UIE)
    bench.timers.advance(NS)
    other = Bench()
    other.timers.now = bench.timers.now
    other.rtc.load(bench.rtc.save())
    assert other.irq.up()
    assert other.clock() == bench.clock()
    other.read(C)
    other.timers.advance(NS)
    assert other.irq.up()


def test_torn_state_is_refused(bench: Bench) -> None:
    """Too little memory or an absurd offset is an error by name, and nothing changes."""
    before = bench.rtc.save()
    for field, value in (("cmos", "00"), ("offset_ns", 1 << 80), ("seen_ns", -1)):
        state = bench.rtc.save()
        state[""]["fields"][field] = value
        with pytest.raises(StateError, match=field):
            bench.rtc.load(state)
    assert bench.rtc.save() == before


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 10**10)), max_size=40))
def test_any_register_contents_are_survived(steps: list[tuple[int, int, int]]) -> None:
    """No value in any register raises, stalls or arms a timer in the past."""
    bench = Bench()
    for register, value, wait in steps:
        bench.write(register, value)
        bench.timers.advance(wait)
        bench.read(register)
    other = Bench()
    other.rtc.load(bench.rtc.save())


@given(st.integers(0, calendar.LAST_SECOND), st.booleans(), st.booleans())
def test_every_second_has_registers_and_back(second: int, binary: bool, hours24: bool) -> None:
    """Registers say exactly one second, in each format, as the calendar of the standard library does."""
    form = calendar.Format(binary, hours24)
    values = calendar.registers(second, form)
    assert calendar.seconds(values, form) == second
    moment = datetime.fromtimestamp(second, UTC)
    assert form.number(values[calendar.DAY]) == moment.day
    assert form.number(values[calendar.MONTH]) == moment.month
    assert form.number(values[calendar.WEEKDAY]) == moment.isoweekday() % 7 + 1


def test_base_and_source_of_the_clock() -> None:
    """`base=` sets where the clock starts, `clock=` what makes it go on; nonsense is named."""
    timers = FakeTimers()
    host = [1_700_000_000 * NS]
    follow = make_clock("utc", "host", timers, lambda: host[0])
    still = make_clock("2000-01-01T00:00:00", "vm", timers, lambda: host[0])
    assert (follow(), still()) == (host[0], 946684800 * NS)
    host[0] += NS
    assert (follow(), still()) == (host[0], 946684800 * NS)
    timers.now += 5
    assert still() == 946684800 * NS + 5
    for base, source in (("noon", "host"), ("utc", "sun")):
        with pytest.raises(ConfigError, match="-rtc"):
            make_clock(base, source, timers)


def test_a_new_rate_counts_from_the_last_interrupt(bench: Bench) -> None:
    """Switching between two periods loses nothing: each lasts from one interrupt to the next."""
    start = bench.timers.now
    bench.write(A, 13)  # of another crystal, as firmware may leave it: 8 Hz
    bench.write(B, HOURS24 | PIE)
    bench.read(C)
    times = []
    for rate in (15, 13, 15, 13):
        while not bench.irq.up():
            bench.timers.advance(NS // 1024)
        times.append(bench.timers.now)
        bench.read(C)
        bench.write(A, rate)

    assert [round((after - before) * 8 / NS) for before, after in pairwise(times)] == [4, 1, 4]
    assert times[0] - start <= NS // 8 + NS // 512
