"""A slot that devices come to and go from while the guest runs: native hot plug (PCIe 2.0, 6.7 and 7.8.9 to 7.8.11).

A device that comes brings its link up, and the guest takes it at once. One that is to go is announced by the attention
button: the guest blinks the power indicator, waits as its users may expect, lets go of the device and turns the
indicator off. An indicator that goes back to on is a refusal. Commands complete at once (no command completed events);
there is no power controller, lock or latch.
"""

from __future__ import annotations

from collections.abc import Callable

from aioemu.bus.registers import bit, field
from aioemu.bus.state import Flag
from aioemu.bus.wires import Trigger, no_trigger
from aioemu.devices.pci.capabilities import ROOT_PORT, Express, SlotStatus
from aioemu.errors import EmuError

BUTTON, INDICATOR, HOT_PLUG, NO_COMMAND_EVENTS = bit(0), bit(4), bit(6), bit(18)  # slot capabilities
LINK_REPORTS = bit(20)  # link capabilities
LINK_ACTIVE = bit(13)  # link status
PRESSED, PRESENCE_CHANGED, LINK_CHANGED = bit(0), bit(3), bit(8)  # slot status
INTERRUPTS, LINK_ENABLE = bit(5), bit(12)  # slot control; its bits 0 to 4 enable the events of those bits
POWER_INDICATOR = field(9, 8)
ON, BLINKING, OFF = 1, 2, 3
PATIENCE_NS = 5_000_000_000  # in which a guest that has a driver takes notice of the button

Signal = Callable[[bool], None]


class HotSlot(Express):
    """The Express capability of a root port with such a slot. Its port hears of interrupts by `signal`."""

    state = {"removing": Flag(), "blinked": Flag()}
    slot_control: int

    def __init__(self, slot_number: int, link_port: int = 0) -> None:
        super().__init__(ROOT_PORT, slot_number, link_port)
        can = int(BUTTON | INDICATOR | HOT_PLUG | NO_COMMAND_EVENTS)
        self.tuning = {
            **self.tuning,
            "slot_capabilities": {"reset": slot_number << 19 | can},
            "link_capabilities": {"reset": 0x11 | LINK_REPORTS | (link_port & 0xFF) << 24},
        }
        self.removing = False  # the button was pressed for the device in the slot
        self.blinked = False  # and the guest has taken notice
        self.asked_ns = 0  # when the button was pressed last
        self.signal: Signal = _nobody
        self.released: Trigger = no_trigger  # the guest let go of the device
        self.refused: Trigger = no_trigger  # it keeps it
        self.settled: list[Trigger] = []  # who waits until the guest is done with the slot

    def occupied(self, present: bool) -> None:
        """A device is in the slot, with its link up; without events."""
        if present:
            self.set_bits("slot_status", SlotStatus.present)
            self.set_bits("link_status", LINK_ACTIVE)
        else:
            self.clear_bits("slot_status", SlotStatus.present)
            self.clear_bits("link_status", LINK_ACTIVE)

    def start(self, present: bool) -> None:
        """Power-on state: the indicator shows whether there is a device, and nothing has happened yet."""
        self.removing = self.blinked = False
        self.clear_bits("slot_status", PRESSED | PRESENCE_CHANGED | LINK_CHANGED)
        self.occupied(present)
        self.slot_control = (ON if present else OFF) << 8
        self._settle()

    def announce(self) -> None:
        """A device came or went: tell the guest."""
        self.set_bits("slot_status", PRESENCE_CHANGED | LINK_CHANGED)
        self._drive()

    @property
    def is_busy(self) -> bool:
        """The guest is bringing a device in, or letting it go; `settled` are called when it is done."""
        return POWER_INDICATOR.of(self.slot_control) == BLINKING

    def ask_to_remove(self, released: Trigger, refused: Trigger, now_ns: int = 0) -> bool:
        """Press the attention button; one of both is called, or none if the guest never answers. False when that was
        done less than five seconds ago: the button would take the first one back. EmuError while the guest is at it.
        """
        if self.removing and now_ns < self.asked_ns + PATIENCE_NS:
            return False
        if self.is_busy:
            raise EmuError("Hot-unplug failed: guest is busy (power indicator blinking)")
        self.released, self.refused, self.asked_ns = released, refused, now_ns
        if POWER_INDICATOR.of(self.slot_control) == OFF:  # the guest let go of it before
            self.released()
            return True
        self.removing, self.blinked = True, False
        self.set_bits("slot_status", PRESSED)
        self._drive()
        return True

    def write_slot_control(self, value: int) -> None:
        shown = POWER_INDICATOR.of(self.slot_control)
        if self.removing and shown == BLINKING:
            self.blinked = True
        elif self.removing and (shown == OFF or (shown == ON and self.blinked)):
            self.removing = False
            (self.released if shown == OFF else self.refused)()
        if not self.is_busy:
            self._settle()
        self._drive()

    def _settle(self) -> None:
        waiting, self.settled = self.settled, []
        for settled in waiting:
            settled()

    def write_slot_status(self, value: int) -> None:
        self._drive()

    def loaded(self) -> None:
        self._drive()

    def _drive(self) -> None:
        """The interrupt is asked for while an event is enabled and there (PCIe 2.0, 6.7.3.4)."""
        control, status = self.slot_control, self.slot_status
        enabled = control & 0x1F | (LINK_CHANGED if control & LINK_ENABLE else 0)
        self.signal(bool(control & INTERRUPTS and status & enabled))


def _nobody(level: bool) -> None:
    """No port yet."""
