"""Register maps: what a declaration promises about reads, writes, hooks, arrays and saved state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.bus.deferred import Deferred
from aioemu.bus.registers import Reg, RegisterBlock, RegisterGroup, bit, describe, field
from aioemu.bus.state import Bytes, Flag, Int
from aioemu.errors import StateError


class Control(Reg):
    """What the chip does."""

    reset, writable = 0x12, 0x3F
    enable, mode = bit(0), field(5, 4)


class Ident(Reg):
    reset, kind, fixed = 0xA5, "read-only", True


class Events(Reg):
    width, kind, reset, clear = 2, "w1c", 0x8001, 0xFFFF


class Wide(Reg):
    width = 4


class Count(Reg):
    kind, reset = "rc", 7


class Lane(Reg):
    count, stride, width, reset = 3, 4, 2, 0x1111


class Chip(RegisterBlock):
    layout = {0: Control, 1: Ident, 2: Events, 4: Wide, 8: Count, 9: "data", 0x10: Lane}
    state = {"log": Bytes(8), "armed": Flag(), "level": Int(0, 9)}
    control: int
    events: int
    wide: int
    lane: Any

    def __init__(self) -> None:
        self.log = b""
        self.armed = False
        self.level = 0
        self.writes: list[tuple[str, int]] = []
        super().__init__()

    def read_data(self) -> int:
        return 0xE9

    def write_wide(self, value: int) -> None:
        self.writes.append(("wide", value))

    def write_events(self, value: int) -> None:
        self.writes.append(("events", value))

    def write_lane(self, index: int, value: int) -> None:
        self.writes.append((f"lane{index}", value))


@pytest.fixture
def chip() -> Chip:
    return Chip()


def test_plain_registers_store_only_writable_bits(chip: Chip) -> None:
    """A write changes the bits of `writable` and no other."""
    assert chip.read(0, 1) == 0x12
    chip.write(0, 1, 0xFF)
    assert chip.read(0, 1) == 0x3F
    chip.write(1, 1, 0)
    assert chip.read(1, 1) == 0xA5


def test_ones_clear_and_zeros_keep(chip: Chip) -> None:
    """A write-1-to-clear register loses exactly the bits written as one, and the hook sees those."""
    chip.write(2, 2, 0x0001)
    assert chip.read(2, 2) == 0x8000
    assert chip.writes == [("events", 0x0001)]


def test_partial_write_shows_no_bits_of_other_bytes_as_cleared(chip: Chip) -> None:
    """A hook of a partly written w1c register is not told of ones that nobody wrote."""
    chip.write(2, 1, 0x01)
    assert chip.writes == [("events", 0x0001)]
    assert chip.events == 0x8000


def test_read_clears(chip: Chip) -> None:
    """A read-to-clear register reads its value once."""
    assert [chip.read(8, 1), chip.read(8, 1)] == [7, 0]


def test_hook_sees_the_whole_register_after_a_partial_write(chip: Chip) -> None:
    """Bytes that were not written come from what the register held; the stored value is there when the hook runs."""
    chip.write(4, 4, 0x44332211)
    chip.write(6, 1, 0xEE)
    assert chip.writes == [("wide", 0x44332211), ("wide", 0x44EE2211)]
    assert chip.wide == 0x44EE2211


def test_wide_access_is_split_at_registers(chip: Chip) -> None:
    """An access over several registers reaches each of them, hooks included; bytes of no register read zero."""
    assert chip.read(8, 4) == 0x0000E907
    assert chip.read(0, 8) == 0x00000000_8001A512
    chip.write(0x10, 8, 0xAAAA_BBBB_CCCC_DDDD)
    assert chip.writes == [("lane0", 0xDDDD), ("lane1", 0xBBBB)]


def test_arrays_are_indexed(chip: Chip) -> None:
    """An array of registers is one name with an index, for values as for hooks."""
    chip.lane[2] = 0x1234
    assert chip.read(0x18, 2) == 0x1234
    assert [chip.lane[i] for i in range(len(chip.lane))] == [0x1111, 0x1111, 0x1234]


def test_named_bits_test_extract_and_insert(chip: Chip) -> None:
    """A named bit field is a mask that also extracts and inserts."""
    chip.control = Control.mode.put(chip.control, 3) | Control.enable
    assert chip.read(0, 1) == 0x33
    assert Control.mode.of(chip.control) == 3


def test_device_changes_single_bits_in_one_step(chip: Chip) -> None:
    """set_bits and clear_bits leave the other bits to whoever writes them meanwhile."""
    chip.set_bits("events", 0x0100)
    chip.clear_bits("events", 0x8000)
    assert chip.events == 0x0101


def test_reset_restores_every_register(chip: Chip) -> None:
    """After reset each register has the value its declaration says."""
    for offset in range(chip.size):
        chip.write(offset, 1, 0x5A)
    chip.reset()
    assert {r.name: chip.peek(r) for r in chip.registers} == {r.name: r.reset for r in chip.registers}


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8), st.integers(0, 2**64 - 1), st.booleans())))
def test_any_access_is_answered(accesses: list[tuple[int, int, int, bool]]) -> None:
    """No offset, size or value raises, also beyond the window; a read never exceeds its size."""
    chip = Chip()
    for offset, size, value, is_write in accesses:
        if is_write:
            chip.write(offset, size, value)
        else:
            assert chip.read(offset, size) < 1 << (8 * size)
    state = chip.save()
    other = Chip()
    other.load(state)
    assert other.save() == state


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("registers", "wide"), 1 << 32, "Chip.wide"),
        (("registers", "wide"), -1, "Chip.wide"),
        (("registers", "wide"), "1", "Chip.wide"),
        (("registers", "ident"), 0xA4, "Chip.ident"),
        (("registers", "more"), 0, "more"),
        (("fields", "log"), "00" * 9, "Chip.log"),
        (("fields", "log"), "0 ", "Chip.log"),
        (("fields", "level"), True, "Chip.level"),
        (("fields", "armed"), 1, "Chip.armed"),
    ],
)
def test_impossible_state_is_named_and_changes_nothing(
    chip: Chip, path: tuple[str, str], value: object, message: str
) -> None:
    """A state with an impossible value is refused by name, and the device stays as it was."""
    chip.write(4, 4, 77)
    before = chip.save()
    state = chip.save()
    state[""]["registers"]["control"] = 0
    state[""][path[0]][path[1]] = value
    with pytest.raises(StateError, match=message):
        chip.load(state)
    assert chip.save() == before


def test_misspelt_hook_fails_at_class_creation() -> None:
    """A hook whose register does not exist is an error before anything runs."""
    with pytest.raises(TypeError, match="read_dta"):
        type("Bad", (RegisterBlock,), {"layout": {0: "data"}, "write_data": print, "read_dta": print})


@pytest.mark.parametrize(
    "layout",
    [
        {0: Wide, 3: Control},
        {0: Control, 1: Control},
        {-1: Control},
        {0: type("Three", (Reg,), {"width": 3})},
        {0: type("Big", (Reg,), {"reset": 256})},
        {0: type("Both", (Reg,), {"writable": 3, "clear": 1})},
        {0: type("Posted", (Reg,), {"posted": True})},
        {0: type("Chip", (Reg,), {"name": "read"})},
        {0: "hookless"},
        {0: int},
    ],
)
def test_impossible_layout_fails_at_class_creation(layout: dict[int, object]) -> None:
    """Overlaps, odd widths, values that do not fit and names that are taken cannot be declared."""
    with pytest.raises(TypeError):
        type("Bad", (RegisterBlock,), {"layout": layout})


class Later(RegisterBlock):
    layout = {0: type("Answer", (Reg,), {"width": 4})}

    def __init__(self) -> None:
        self.pending = Deferred()
        super().__init__()

    def read_answer(self) -> Deferred:
        return self.pending


def test_deferred_answer_is_cut_to_the_bytes_asked_for() -> None:
    """A late answer is the register's value; the guest gets the bytes it asked for."""
    device = Later()
    answer = device.handle(0, 1, 2, False, 0)
    assert isinstance(answer, Deferred)
    got: list[int] = []
    answer.then(got.append)
    device.pending.complete(0x44332211)
    assert got == [0x3322]


def test_abandoned_access_reads_ones_and_a_late_answer_is_ignored() -> None:
    """When the machine resets, the guest reads all ones; the device may answer too late, but not twice."""
    answer = Later().pending
    answer.abandon()
    answer.complete(1)
    assert answer.value == (1 << 64) - 1
    twice = Deferred()
    twice.complete(1)
    with pytest.raises(RuntimeError, match="already"):
        twice.complete(2)


async def test_coroutine_hook_answers_with_a_coroutine() -> None:
    """A user's `async def` hook comes back as a coroutine of the cut value for the reactor to run."""

    class Async(RegisterBlock):
        layout = {0: type("Answer", (Reg,), {"width": 2})}

        async def read_answer(self) -> int:
            return 0xBEEF

    answer = Async().handle(0, 1, 1, False, 0)
    assert not isinstance(answer, int | Deferred)
    assert await answer == 0xBE


class Part(RegisterGroup):
    layout = {0: Control, 4: Wide}
    state = {"level": Int(0, 3)}
    wide: int
    level = 0

    def write_wide(self, value: int) -> None:
        self.level = value & 3

    def on_reset(self) -> None:
        self.level = 0


def test_groups_live_in_the_window_of_their_block() -> None:
    """A part placed in a block answers at its offset, resets and is saved with the block."""
    part, other = Part(), Part()
    chip = RegisterBlock(groups={"a": (0x10, part), "b": (0x40, other)})
    chip.write(0x14, 4, 0x22)
    assert (part.wide, part.level, other.wide) == (0x22, 2, 0)
    state = chip.save()
    chip.reset()
    assert (part.wide, part.level) == (0, 0)
    chip.load(state)
    assert (part.wide, part.level) == (0x22, 2)


def test_map_describes_itself() -> None:
    """The docs' table names every register with its kind and bits."""
    text = describe(Chip)
    assert "| 0x0 | control | 1 | plain | 0x12 | 0x3f | enable 0, mode 5:4 |" in text
    assert "| 0x2 | events | 2 | sync (w) |" in text
