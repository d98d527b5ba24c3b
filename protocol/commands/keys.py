"""Keys: typed whole, or down and up one by one (QAPI ui.json). There is a keyboard and no mouse."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from aioemu.devices.scancodes import key_numbers
from aioemu.errors import MonitorError
from aioemu.protocol.machine import Keys, Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record, Union

HOLD_MS = 100
HOLD_LIMIT_MS = 60_000


class QKeyCode(StrEnum):
    """The keys of a PC keyboard."""

    ESC = "esc"
    DIGIT_1 = "1"
    DIGIT_2 = "2"
    DIGIT_3 = "3"
    DIGIT_4 = "4"
    DIGIT_5 = "5"
    DIGIT_6 = "6"
    DIGIT_7 = "7"
    DIGIT_8 = "8"
    DIGIT_9 = "9"
    DIGIT_0 = "0"
    MINUS = "minus"
    EQUAL = "equal"
    BACKSPACE = "backspace"
    TAB = "tab"
    KEY_Q = "q"
    KEY_W = "w"
    KEY_E = "e"
    KEY_R = "r"
    KEY_T = "t"
    KEY_Y = "y"
    KEY_U = "u"
    KEY_I = "i"
    KEY_O = "o"
    KEY_P = "p"
    BRACKET_LEFT = "bracket_left"
    BRACKET_RIGHT = "bracket_right"
    RET = "ret"
    CTRL = "ctrl"
    KEY_A = "a"
    KEY_S = "s"
    KEY_D = "d"
    KEY_F = "f"
    KEY_G = "g"
    KEY_H = "h"
    KEY_J = "j"
    KEY_K = "k"
    KEY_L = "l"
    SEMICOLON = "semicolon"
    APOSTROPHE = "apostrophe"
    GRAVE_ACCENT = "grave_accent"
    SHIFT = "shift"
    BACKSLASH = "backslash"
    KEY_Z = "z"
    KEY_X = "x"
    KEY_C = "c"
    KEY_V = "v"
    KEY_B = "b"
    KEY_N = "n"
    KEY_M = "m"
    COMMA = "comma"
    DOT = "dot"
    SLASH = "slash"
    SHIFT_R = "shift_r"
    KP_MULTIPLY = "kp_multiply"
    ASTERISK = "asterisk"
    ALT = "alt"
    SPC = "spc"
    CAPS_LOCK = "caps_lock"
    F1 = "f1"
    F2 = "f2"
    F3 = "f3"
    F4 = "f4"
    F5 = "f5"
    F6 = "f6"
    F7 = "f7"
    F8 = "f8"
    F9 = "f9"
    F10 = "f10"
    NUM_LOCK = "num_lock"
    SCROLL_LOCK = "scroll_lock"
    KP_7 = "kp_7"
    KP_8 = "kp_8"
    KP_9 = "kp_9"
    KP_SUBTRACT = "kp_subtract"
    KP_4 = "kp_4"
    KP_5 = "kp_5"
    KP_6 = "kp_6"
    KP_ADD = "kp_add"
    KP_1 = "kp_1"
    KP_2 = "kp_2"
    KP_3 = "kp_3"
    KP_0 = "kp_0"
    KP_DECIMAL = "kp_decimal"
    SYSRQ = "sysrq"
    LESS = "less"
    F11 = "f11"
    F12 = "f12"
    KP_ENTER = "kp_enter"
    CTRL_R = "ctrl_r"
    KP_DIVIDE = "kp_divide"
    PRINT = "print"
    ALT_R = "alt_r"
    HOME = "home"
    UP = "up"
    PGUP = "pgup"
    LEFT = "left"
    RIGHT = "right"
    END = "end"
    DOWN = "down"
    PGDN = "pgdn"
    INSERT = "insert"
    DELETE = "delete"
    META_L = "meta_l"
    META_R = "meta_r"
    MENU = "menu"
    POWER = "power"
    SLEEP = "sleep"
    WAKE = "wake"
    PAUSE = "pause"


class KeyValueKind(StrEnum):
    """How a key is told."""

    NUMBER = "number"
    QCODE = "qcode"


class IntWrapper(Record):
    """A scan code of set 1, with bit 7 where 0xE0 comes first."""

    data: int


class QKeyCodeWrapper(Record):
    """A key by name."""

    data: QKeyCode


class KeyValue(Union, kw_only=True):
    """A key."""

    tag = "type"
    cases: ClassVar = {KeyValueKind.NUMBER: IntWrapper, KeyValueKind.QCODE: QKeyCodeWrapper}

    type: KeyValueKind

    @property
    def number(self) -> int:
        """Its number on the keyboard."""
        data: int | QKeyCode = self.branch.data
        return key_numbers()[data] if isinstance(data, QKeyCode) else data


class InputEventKind(StrEnum):
    """What can happen to an input device."""

    KEY = "key"


class InputKeyEvent(Record):
    """A key goes down or up."""

    key: KeyValue
    down: bool


class InputKeyEventWrapper(Record):
    """Its place in the union."""

    data: InputKeyEvent


class InputEvent(Union, kw_only=True):
    """Something that a person does."""

    tag = "type"
    cases: ClassVar = {InputEventKind.KEY: InputKeyEventWrapper}

    type: InputEventKind


class SendKey(Record):
    """Keys that are held together."""

    keys: list[KeyValue]
    hold_time: int | None = None


class InputSendEvent(Record):
    """Events in their order; there are no displays that a device could belong to."""

    events: list[InputEvent]
    device: str | None = None
    head: int | None = None


class KeyboardMachine(Machine):
    """A machine with a keyboard."""

    keyboard: Keys


@command("send-key", needs=("keyboard",))
def send_key(machine: KeyboardMachine, args: SendKey) -> None:
    """Press keys together, hold them, let go; the answer comes when that is under way."""
    hold_ms = HOLD_MS if args.hold_time is None else args.hold_time
    if not 0 <= hold_ms <= HOLD_LIMIT_MS:
        raise MonitorError(f"Parameter 'hold-time' expects a value from 0 to {HOLD_LIMIT_MS}")
    machine.keyboard.press([key.number for key in args.keys], hold_ms)


@command("input-send-event", needs=("keyboard",))
def input_send_event(machine: KeyboardMachine, args: InputSendEvent) -> None:
    """Let keys go down and up."""
    if args.device is not None:
        raise MonitorError(f"Device '{args.device}' not found", "DeviceNotFound")
    moves = [each.branch.data for each in args.events]
    machine.keyboard.move([(each.key.number, each.down) for each in moves])


COMMANDS = (send_key, input_send_event)
