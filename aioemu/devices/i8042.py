"""i8042 keyboard controller: ports 0x60 and 0x64, A20, the reset pulse, and a keyboard port (IBM PC/AT, section 1).

The mouse port exists and passes its tests; without a mouse it answers with a time-out at once, so that kernels find out
without waiting. Everything is answered in no time: the input buffer is never full. Scan codes are translated to set 1
when the command byte says so. Not modelled: the password lock, test inputs.
"""

from __future__ import annotations

from typing import Any

from aioemu.bus.registers import Reg, RegisterBlock, bit
from aioemu.bus.state import Bytes, Fields, Flag, Int, Optional, State, dump_fields, parse_fields
from aioemu.bus.wires import IrqLine, Trigger
from aioemu.devices.ps2 import Keyboard, Ps2Device
from aioemu.devices.scancodes import SET_1
from aioemu.errors import StateError

OBF, SYS, A2, UNLOCKED, MOBF, TIMEOUT = bit(0), bit(2), bit(3), bit(4), bit(5), bit(6)  # status
KIE, MIE, CB_SYS, KDIS, MDIS, XLATE = bit(0), bit(1), bit(2), bit(4), bit(5), bit(6)  # command byte
RUNNING, A20, OUT_OBF, OUT_MOBF = bit(0), bit(1), bit(4), bit(5)  # output port
INPUT_PORT = 0xBF  # keyboard not locked, colour display
TEST_PASSED, PORT_GOOD, NO_DEVICE, BREAK_PREFIX = 0x55, 0x00, 0xFE, 0xF0
RAM_BYTES = 32


class Status(Reg):
    """Read at port 0x64; kept current, so that polling it stays in the core."""

    name, writable, reset = "status", 0, UNLOCKED


class Port60(RegisterBlock):
    """The data port."""

    layout = {0: "data"}

    def __init__(self, controller: I8042) -> None:
        self.controller = controller
        super().__init__()

    def read_data(self) -> int:
        return self.controller.take()

    def write_data(self, value: int) -> None:
        self.controller.data(value)


class Port64(RegisterBlock):
    """The command port, which reads as the status."""

    layout = {0: Status}
    status: int

    def __init__(self, controller: I8042) -> None:
        self.controller = controller
        super().__init__()

    def write_status(self, value: int) -> None:
        self.controller.command(value)


class I8042:
    """The chip: place `port60` at 0x60 and `port64` at 0x64."""

    state: Fields = {
        "ram": Bytes(RAM_BYTES, RAM_BYTES),
        "output_port": Int(0, 255),
        "pending": Optional(Int(0, 255)),
        "output": Int(0, 255),
        "full": Flag(),
        "from_mouse": Flag(),
        "timed_out": Flag(),
        "after_command": Flag(),
        "passed_test": Flag(),
        "breaking": Flag(),
        "mouse_waits": Flag(),
    }

    def __init__(
        self, keyboard_irq: IrqLine, mouse_irq: IrqLine, reset_machine: Trigger, mouse: Ps2Device | None = None
    ) -> None:
        self.keyboard_irq, self.mouse_irq = keyboard_irq, mouse_irq
        self.reset_machine = reset_machine
        self.keyboard = Keyboard()
        self.mouse = mouse
        self.keyboard.changed = self._fill
        if mouse is not None:
            mouse.changed = self._fill
        self.port60 = Port60(self)
        self.port64 = Port64(self)
        self.blocks = (self.port60, self.port64)
        self._power_on()

    def _power_on(self) -> None:
        self.ram = bytearray(RAM_BYTES)
        self.ram[0] = KIE | MIE | CB_SYS | XLATE  # as firmware leaves it
        self.output_port = 0xC0 | A20 | RUNNING
        self.pending: int | None = None  # a command that waits for its byte at port 0x60
        self.output = 0
        self.full = self.from_mouse = self.timed_out = self.after_command = self.breaking = False
        self.mouse_waits = False  # a time-out from the absent mouse still has to be told
        self.passed_test = True
        self._show()

    # ---- the guest ---------------------------------------------------------------------------------------------------

    def take(self) -> int:
        """Port 0x60 read: the output buffer, which the next byte then fills."""
        value = self.output
        self.full = self.from_mouse = self.timed_out = False
        self._show()  # the line falls between two bytes: interrupt controllers look for its edge
        self._fill()
        return value

    def data(self, value: int) -> None:
        """Port 0x60 written: the argument of a command, or a byte for the keyboard."""
        command, self.pending = self.pending, None
        self.after_command = False
        if command is None:
            self.ram[0] &= ~KDIS  # sheet: talking to the keyboard enables it
            self.keyboard.command(value)
        elif 0x60 <= command <= 0x7F:
            self.ram[command & 0x1F] = value
        elif command == 0xD1:
            self._write_output_port(value)
        elif command in (0xD2, 0xD3):
            self._answer(value, from_mouse=command == 0xD3)
        elif self.mouse is not None:
            self.ram[0] &= ~MDIS
            self.mouse.command(value)
        else:
            self.mouse_waits = True
        self._fill()

    def command(self, value: int) -> None:
        """Port 0x64 written."""
        self.after_command = True
        self.pending = value if 0x60 <= value <= 0x7F or value in (0xD1, 0xD2, 0xD3, 0xD4) else None
        if 0x20 <= value <= 0x3F:
            self._answer(self.ram[value & 0x1F])
        elif value in (0xA7, 0xA8, 0xAD, 0xAE):
            disable = MDIS if value < 0xAA else KDIS
            self.ram[0] = self.ram[0] | disable if value in (0xA7, 0xAD) else self.ram[0] & ~disable
        elif value == 0xAA:
            self.passed_test = True
            self.ram[0] |= CB_SYS
            self._answer(TEST_PASSED)
        elif value in (0xA9, 0xAB):
            self._answer(PORT_GOOD)
        elif value in (0xC0, 0xE0):
            self._answer(INPUT_PORT if value == 0xC0 else 0)
        elif value == 0xD0:
            self._answer(self._read_output_port())
        elif value in (0xDD, 0xDF):
            self._write_output_port(self.output_port & ~A20 | (A20 if value == 0xDF else 0))
        elif value >= 0xF0 and not value & RUNNING:
            self.reset_machine()  # bit 0 low: pulses the processor's reset
        self._fill()

    def _read_output_port(self) -> int:
        busy = (OUT_MOBF if self.from_mouse else OUT_OBF) if self.full else 0
        return self.output_port | busy

    def _write_output_port(self, value: int) -> None:
        self.output_port = value & ~(OUT_OBF | OUT_MOBF)
        if not value & RUNNING:
            self.output_port |= RUNNING
            self.reset_machine()

    # ---- the output buffer -------------------------------------------------------------------------------------------

    def _answer(self, value: int, *, from_mouse: bool = False, timed_out: bool = False) -> None:
        self.output, self.full = value, True
        self.from_mouse, self.timed_out = from_mouse, timed_out

    def _fill(self) -> None:
        """Take the next byte from a device if the buffer is free, then drive status and interrupts."""
        if not self.full and not self.ram[0] & KDIS:
            self._fill_from_keyboard()
        if not self.full and self.mouse_waits:
            self.mouse_waits = False
            self._answer(NO_DEVICE, from_mouse=True, timed_out=True)
        if not self.full and self.mouse is not None and not self.ram[0] & MDIS:
            byte = self.mouse.take()
            if byte is not None:
                self._answer(byte, from_mouse=True)
        self._show()

    def _fill_from_keyboard(self) -> None:
        while (byte := self.keyboard.take()) is not None:
            if not self.ram[0] & XLATE:
                return self._answer(byte)
            if byte == BREAK_PREFIX:
                self.breaking = True  # one byte in set 1: the code with its top bit set
                continue
            code = SET_1[byte] if byte < len(SET_1) else byte
            breaking, self.breaking = self.breaking, False
            return self._answer(code | 0x80 if breaking else code)
        return None

    def _show(self) -> None:
        status = UNLOCKED | (A2 if self.after_command else 0) | (SYS if self.passed_test else 0)
        if self.full:
            status |= OBF | (MOBF if self.from_mouse else 0) | (TIMEOUT if self.timed_out else 0)
        self.port64.status = status
        self.keyboard_irq.set(self.full and not self.from_mouse and bool(self.ram[0] & KIE))
        self.mouse_irq.set(self.full and self.from_mouse and bool(self.ram[0] & MIE))

    # ---- state -------------------------------------------------------------------------------------------------------

    @property
    def a20(self) -> bool:
        """Address line 20; the machine has it open always, so this only reads back."""
        return bool(self.output_port & A20)

    def reset(self) -> None:
        for block in self.blocks:
            block.reset()
        self.keyboard.reset()
        if self.mouse is not None:
            self.mouse.reset()
        self._power_on()

    def save(self) -> State:
        keyboard = {**vars(self.keyboard), "answers": bytes(self.keyboard.answers), "keys": bytes(self.keyboard.keys)}
        fields = {name: kind.dump(keyboard[name]) for name, kind in Keyboard.state.items()}
        return {"controller": dump_fields(self.state, self), "keyboard": fields}

    def load(self, state: Any) -> None:
        """Take over a saved state, or StateError and nothing changed."""
        if not isinstance(state, dict) or state.keys() != {"controller", "keyboard"}:
            raise StateError("i8042: not a state of this chip")
        fields = parse_fields(self.state, state["controller"], "i8042")
        keyboard = parse_fields(Keyboard.state, state["keyboard"], "keyboard")
        for name, value in fields.items():
            setattr(self, name, bytearray(value) if name == "ram" else value)
        for name in ("answers", "keys"):
            queue = getattr(self.keyboard, name)
            queue.clear()
            queue.extend(keyboard.pop(name))
        for name, value in keyboard.items():
            setattr(self.keyboard, name, value)
        self._show()
