"""MC146818 real time clock with the PC's CMOS memory: index at port 0x70, data at 0x71.

Time follows a wall clock plus what the guest set; nothing ticks: flags are found when somebody looks, and one timer is
armed only while an interrupt is enabled. UIP shows in the last 244 µs of each second. Missed periodic interrupts are
not made up for. Not modelled: daylight saving, square wave, the oscillator's other dividers (they stop the clock).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aioemu.bus.registers import Reg, RegisterBlock, bit, field
from aioemu.bus.state import Bytes, Int
from aioemu.bus.wires import IrqLine, Timer, Timers
from aioemu.devices import calendar
from aioemu.devices.rtc_clock import NS, WallClock

CMOS_BYTES = 128
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
TIME = (0, 2, 4, 6, 7, 8, 9, calendar.CENTURY)
ALARM = {calendar.SECONDS: 1, calendar.MINUTES: 3, calendar.HOURS: 5}
ANY = 0xC0  # alarm registers with both top bits set match always

UIP, DIVIDER, RATE = bit(7), field(6, 4), field(3, 0)  # register A
SET, PIE, AIE, UIE, SQWE, BINARY, HOURS24 = bit(7), bit(6), bit(5), bit(4), bit(3), bit(2), bit(1)  # register B
IRQF, PF, AF, UF = bit(7), bit(6), bit(5), bit(4)  # register C
VRT = 0x80  # register D: the battery is good
RUNS = 0b010  # the divider for a 32.768 kHz crystal; 0 and 1 are other crystals', and the clock runs with its own
UIP_NS = 8 * NS // 32768  # sheet: an update follows within 244 µs, eight periods of the crystal
BASE_HZ = 32768
HALF = NS // 2  # after a divider reset the first update comes half a second later
YEARS_NS = 1 << 68  # no offset that dates of four digits could need is beyond this


class Index(Reg):
    """Which CMOS byte the data port shows; bit 7 keeps NMIs away. Stored without leaving the core."""

    number, nmi_off = field(6, 0), bit(7)


class Rtc(RegisterBlock):
    """The chip with its two ports. `clock` is the wall clock, `cmos` what the board's firmware expects in memory."""

    layout = {0: Index, 1: "data"}
    state = {
        "cmos": Bytes(CMOS_BYTES, CMOS_BYTES),
        "offset_ns": Int(-YEARS_NS, YEARS_NS),
        "seen_ns": Int(0, YEARS_NS),
        "phase": Int(0, BASE_HZ),
    }
    index: int

    def __init__(self, irq: IrqLine, timers: Timers, clock: WallClock, cmos: Mapping[int, int] | None = None) -> None:
        self.irq = irq
        self.timers = timers
        self.clock = clock
        self.timer: Timer = timers.timer(self._timer_fired)
        self.cmos = bytearray(CMOS_BYTES)
        for where, value in (cmos or {}).items():
            self.cmos[where] = value
        self.cmos[A], self.cmos[B], self.cmos[D] = RUNS << 4 | 6, HOURS24, VRT
        self.offset_ns = 0  # guest's time minus the wall clock
        self.seen_ns = 0  # until when flags have been looked for
        self.on_change: Callable[[int], None] = lambda offset_s: None  # the guest set the time
        self.phase = 0  # ticks by which periodic interrupts are off the period's multiples
        super().__init__()
        self.seen_ns = self._now()
        self._latch(self.seen_ns)

    # ---- ports -------------------------------------------------------------------------------------------------------

    def read_data(self) -> int:
        number = self.index & Index.number
        if number == C:
            return self._take_flags()
        if number == A:
            return self.cmos[A] | (UIP if self._updating() else 0)
        if number in TIME and self._runs():
            self._latch(self._now())
        return self.cmos[number]

    def write_data(self, value: int) -> None:
        number = self.index & Index.number
        if number in (A, B):
            self._write_control(number, value)
        elif number in TIME:
            self._write_time(number, value)
        elif number not in (C, D):
            self.cmos[number] = value
            if number in ALARM.values():
                self._look()

    @property
    def guest_seconds(self) -> int:
        """The guest's time, seconds since 1970 as its date says."""
        if self._runs():
            return self._now() // NS
        return calendar.seconds({register: self.cmos[register] for register in TIME}, self._format())

    # ---- time --------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return max(0, self.clock() + self.offset_ns)

    def _runs(self) -> bool:
        return not self.cmos[B] & SET and DIVIDER.of(self.cmos[A]) <= RUNS

    def _format(self) -> calendar.Format:
        return calendar.Format(bool(self.cmos[B] & BINARY), bool(self.cmos[B] & HOURS24))

    def _updating(self) -> bool:
        return self._runs() and self._now() % NS >= NS - UIP_NS

    def _latch(self, now_ns: int) -> None:
        for register, value in calendar.registers(now_ns // NS, self._format()).items():
            self.cmos[register] = value

    def _adopt(self) -> None:
        """Go on from what the registers say; the fraction of the second stays."""
        said = calendar.seconds({register: self.cmos[register] for register in TIME}, self._format())
        self.offset_ns += said * NS - self._now() // NS * NS
        self.seen_ns = self._now()
        self.on_change(self.offset_ns // NS)

    def _write_time(self, number: int, value: int) -> None:
        if self._runs():
            self._look()
            self._latch(self._now())
        self.cmos[number] = value
        if self._runs():
            self._adopt()
            self._arm()

    def _write_control(self, number: int, value: int) -> None:
        self._look()
        ran, halted = self._runs(), DIVIDER.of(self.cmos[A]) > RUNS
        if ran:
            self._latch(self._now())
        before = self._period_ticks()
        if number == A:
            self.cmos[A] = value & ~UIP
            self._change_period(before)
        else:
            self.cmos[B] = value & ~UIE if value & SET else value  # sheet: SET clears UIE
        if halted and DIVIDER.of(self.cmos[A]) <= RUNS:
            self.offset_ns += HALF - self._now() % NS
        if self._runs() and not ran:
            self._adopt()
        self._look()

    # ---- flags and interrupts ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Raise the flags of everything that happened since the last look, and arm for what comes."""
        now = self._now()
        since, self.seen_ns = min(self.seen_ns, now), now
        flags = 0
        period = self._period_ticks()
        if period and (_ticks(now) - self.phase) // period != (_ticks(since) - self.phase) // period:
            flags |= PF
        if self._runs():
            if now // NS != since // NS:
                flags |= UF
            due = self._next_alarm(since // NS)
            if due is not None and due <= now // NS:
                flags |= AF
        self.cmos[C] |= flags
        self._drive()
        self._arm()

    def _drive(self) -> None:
        asked = self.cmos[C] & self.cmos[B] & (PF | AF | UF)
        self.cmos[C] = self.cmos[C] | IRQF if asked else self.cmos[C] & ~IRQF
        self.irq.set(bool(asked))

    def _take_flags(self) -> int:
        self._look()
        flags, self.cmos[C] = self.cmos[C], 0
        self._drive()
        self._arm()
        return flags

    def _timer_fired(self) -> None:
        self._look()

    def _arm(self) -> None:
        now, enabled = self._now(), self.cmos[B] & ~self.cmos[C]
        moments = []
        period = self._period_ticks()
        if enabled & PIE and period:
            tick = ((_ticks(now) - self.phase) // period + 1) * period + self.phase
            moments.append(-(-tick * NS // BASE_HZ))
        if enabled & UIE and self._runs():
            moments.append((now // NS + 1) * NS)
        if enabled & AIE and self._runs():
            alarm = self._next_alarm(now // NS)
            if alarm is not None:
                moments.append(alarm * NS)
        if moments:
            self.timer.arm(self.timers.now_ns() + max(0, min(moments) - now))
        else:
            self.timer.cancel()

    def _change_period(self, before: int) -> None:
        """A new period counts from the last interrupt of the one before: guests switch rates while they keep time."""
        period = self._period_ticks()
        if before and period and before != period:
            ticks = _ticks(self._now())
            self.phase = (ticks - (ticks - self.phase) % before) % period

    def _period_ticks(self) -> int:
        """Ticks of the crystal from one periodic interrupt to the next; 0: none (sheet, table 5)."""
        rate = RATE.of(self.cmos[A])
        if rate == 0 or DIVIDER.of(self.cmos[A]) > RUNS:
            return 0
        return 1 << (rate + 6 if rate <= 2 else rate - 1)

    def _next_alarm(self, after: int) -> int | None:
        """The next second after `after` that the alarm registers match, within a day; None if none does."""
        form = self._format()
        second = self._alarm(calendar.SECONDS, form.number)
        minute = self._alarm(calendar.MINUTES, form.number)
        hour = self._alarm(calendar.HOURS, form.hour)
        if (second or 0) > 59 or (minute or 0) > 59 or (hour or 0) > 23:
            return None
        start, day = after + 1, calendar.DAY_SECONDS
        for midnight in (start // day * day, start // day * day + day):
            for h in range(24) if hour is None else [hour]:
                for m in range(60) if minute is None else [minute]:
                    at = midnight + h * 3600 + m * 60
                    found = max(start, at) if second is None else at + second
                    if start <= found < at + 60:
                        return found
        return None

    def _alarm(self, register: int, number: Callable[[int], int]) -> int | None:
        value = self.cmos[ALARM[register]]
        return None if value >= ANY else number(value)

    # ---- state -------------------------------------------------------------------------------------------------------

    @property
    def nmi_masked(self) -> bool:
        """Whether the guest keeps NMIs away (bit 7 of the index port)."""
        return bool(self.index & Index.nmi_off)

    def on_reset(self) -> None:
        """The RESET pin: interrupts off. Time and memory are the battery's."""
        self.cmos[B] &= ~(PIE | AIE | UIE | SQWE)
        self.cmos[C] = 0
        self._drive()
        self._arm()

    def loaded(self) -> None:
        self.cmos = bytearray(self.cmos)
        self._drive()
        self._arm()


def _ticks(now_ns: int) -> int:
    return now_ns * BASE_HZ // NS
