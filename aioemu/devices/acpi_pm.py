"""ACPI fixed hardware: PM1 events and control (ACPI 4.8.3.1, 4.8.3.2), always in ACPI mode.

Power and sleep button, S5 and the system control interrupt. Not modelled: S1 to S4 (the board does not offer them), bus
master status, the global lock. The timer counts in `pm_timer`; only its overflow event is here.
"""

from __future__ import annotations

from aioemu.bus.registers import Reg, RegisterBlock, bit, field
from aioemu.bus.wires import IrqLine, Timer, Timers, Trigger
from aioemu.devices.pm_timer import next_overflow_ns

S5_SLEEP_TYPE = 0  # what the DSDT's _S5 says


class Pm1Status(Reg):
    """What happened; written ones clear."""

    width, kind, clear = 2, "w1c", 0x8731
    tmr, bm, gbl, pwrbtn, slpbtn, rtc, wak = bit(0), bit(4), bit(5), bit(8), bit(9), bit(10), bit(15)


class Pm1Enable(Reg):
    """What interrupts."""

    width, writable = 2, 0x0721
    tmr, gbl, pwrbtn, slpbtn, rtc = bit(0), bit(5), bit(8), bit(9), bit(10)


class Pm1Control(Reg):
    """SCI_EN is always set; SLP_EN acts and reads zero."""

    width, reset, writable = 2, 0x0001, 0x1C02
    sci_en, bm_rld, gbl_rls, slp_typ, slp_en = bit(0), bit(1), bit(2), field(12, 10), bit(13)


class AcpiPm(RegisterBlock):
    """PM1a event block at 0, control block at 4."""

    layout = {0: Pm1Status, 2: Pm1Enable, 4: Pm1Control}
    pm1_status: int
    pm1_enable: int
    pm1_control: int

    def __init__(self, sci: IrqLine, power_off: Trigger, timers: Timers, timer_bits: int = 24) -> None:
        self.timer_bits = timer_bits
        self.sci = sci
        self.power_off = power_off
        self.timers = timers
        self.overflow: Timer = timers.timer(self._overflowed)
        super().__init__()

    def press_power_button(self) -> None:
        """The user asks the guest to shut down."""
        self.raise_event(Pm1Status.pwrbtn)

    def press_sleep_button(self) -> None:
        self.raise_event(Pm1Status.slpbtn)

    def raise_event(self, mask: int) -> None:
        """Set status bits; they interrupt if enabled."""
        self.set_bits("pm1_status", mask)
        self._drive()

    def write_pm1_status(self, value: int) -> None:
        self._drive()

    def write_pm1_enable(self, value: int) -> None:
        self._drive()
        self._arm()

    def write_pm1_control(self, value: int) -> None:
        if value & Pm1Control.slp_en and Pm1Control.slp_typ.of(value) == S5_SLEEP_TYPE:
            self.power_off()

    def on_reset(self) -> None:
        self.overflow.cancel()
        self._drive()

    def loaded(self) -> None:
        self._drive()
        self._arm()

    def _drive(self) -> None:
        self.sci.set(bool(self.pm1_status & self.pm1_enable))

    def _arm(self) -> None:
        if self.pm1_enable & Pm1Enable.tmr:
            self.overflow.arm(next_overflow_ns(self.timers.now_ns(), self.timer_bits))
        else:
            self.overflow.cancel()

    def _overflowed(self) -> None:
        self.raise_event(Pm1Status.tmr)
        self._arm()


class Status(Reg):
    """One bit per general purpose event."""

    width, kind = 8, "w1c"


class Enable(Reg):
    """Which of them interrupt."""

    width = 8


class Gpe(RegisterBlock):
    """General purpose event block 0 (ACPI 4.8.4.1): 64 events, for hot plug and wake."""

    layout = {0: Status, 8: Enable}
    status: int
    enable: int

    def __init__(self, sci: IrqLine) -> None:
        self.sci = sci
        super().__init__()

    def raise_event(self, number: int) -> None:
        """Event `number` happened."""
        self.set_bits("status", 1 << number)
        self._drive()

    def write_status(self, value: int) -> None:
        self._drive()

    def write_enable(self, value: int) -> None:
        self._drive()

    def on_reset(self) -> None:
        self._drive()

    def loaded(self) -> None:
        self._drive()

    def _drive(self) -> None:
        self.sci.set(bool(self.status & self.enable))
