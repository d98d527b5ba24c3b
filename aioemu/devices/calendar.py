"""Time and date as the clock chip's registers: binary or BCD, 24 or 12 hours, with a century byte.

A guest may write anything into the registers; every combination gives some second, and no other.
"""

from __future__ import annotations

from dataclasses import dataclass

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9  # registers of the MC146818
CENTURY = 0x32  # where PCs keep it
PM = 0x80
DAY_SECONDS = 86400
LAST_SECOND = 253402300799  # the end of 9999: two digits of century


@dataclass(frozen=True, slots=True)
class Format:
    """Register B: DM (binary) and 24/12."""

    binary: bool = False
    hours24: bool = True

    def number(self, value: int) -> int:
        """A register's value as a number; a digit beyond nine counts as what its bits say."""
        return value if self.binary else (value >> 4) * 10 + (value & 15)

    def code(self, number: int) -> int:
        return number if self.binary else number // 10 * 16 + number % 10

    def hour(self, value: int) -> int:
        if self.hours24:
            return self.number(value)
        return self.number(value & ~PM) % 12 + (12 if value & PM else 0)

    def hour_code(self, hour: int) -> int:
        if self.hours24:
            return self.code(hour)
        return self.code(hour % 12 or 12) | (PM if hour >= 12 else 0)


def registers(seconds: int, form: Format) -> dict[int, int]:
    """The time registers at a time in seconds since 1970."""
    seconds = min(max(seconds, 0), LAST_SECOND)
    days, rest = divmod(seconds, DAY_SECONDS)
    year, month, day = civil(days)
    plain = {SECONDS: rest % 60, MINUTES: rest // 60 % 60, WEEKDAY: (days + 4) % 7 + 1}
    plain |= {DAY: day, MONTH: month, YEAR: year % 100, CENTURY: year // 100}
    coded = {register: form.code(value) for register, value in plain.items()}
    return coded | {HOURS: form.hour_code(rest // 3600)}


def seconds(values: dict[int, int], form: Format) -> int:
    """The time that the registers say, in seconds since 1970."""
    year = form.number(values[CENTURY]) * 100 + form.number(values[YEAR])
    month = min(max(form.number(values[MONTH]), 1), 12)
    days = day_number(year, month, form.number(values[DAY]))
    clock = form.hour(values[HOURS]) * 3600 + form.number(values[MINUTES]) * 60 + form.number(values[SECONDS])
    return min(max(days * DAY_SECONDS + clock, 0), LAST_SECOND)


def day_number(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a Gregorian date; years begin in March here, so that leap days come last."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


def civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a day number."""
    era, day_of_era = divmod(days + 719468, 146097)
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    return year + era * 400 + (month >= 10), (month + 2) % 12 + 1, day
