"""i8042: what kernels ask of it while they probe, the reset pulse, and the keyboard behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.devices.i8042 import I8042
from aioemu.errors import StateError
from tests.devices.fakes import Line

OBF, IBF, A2, MOBF, TIMEOUT = 0x01, 0x02, 0x08, 0x20, 0x40
XLATE_OFF = 0x03


class Bench:
    def __init__(self) -> None:
        self.keyboard_irq, self.mouse_irq = Line(), Line()
        self.resets = 0
        self.chip = I8042(self.keyboard_irq, self.mouse_irq, self.count_reset)

    def count_reset(self) -> None:
        self.resets += 1

    def status(self) -> int:
        return self.chip.port64.read(0, 1)

    def command(self, value: int, *arguments: int) -> None:
        self.chip.port64.write(0, 1, value)
        for argument in arguments:
            self.send(argument)

    def send(self, value: int) -> None:
        self.chip.port60.write(0, 1, value)

    def take(self) -> int:
        assert self.status() & OBF
        return self.chip.port60.read(0, 1)

    def take_all(self) -> list[int]:
        taken = []
        while self.status() & OBF:
            taken.append(self.take())
        return taken


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("command", "answer"), [(0xAA, 0x55), (0xAB, 0x00), (0xA9, 0x00), (0x20, 0x47), (0xC0, 0xBF), (0xE0, 0x00)]
)
def test_controller_commands_answer_at_once(bench: Bench, command: int, answer: int) -> None:
    """Tests pass and registers read, and the input buffer is never full, so nobody waits for a time-out."""
    bench.command(command)
    assert not bench.status() & IBF
    assert bench.status() & A2
    assert bench.take() == answer
    assert not bench.status() & OBF


def test_command_byte_and_memory_are_kept(bench: Bench) -> None:
    """What is written with 0x60..0x7f is read with 0x20..0x3f."""
    bench.command(0x60, 0x65)
    bench.command(0x20)
    assert bench.take() == 0x65
    bench.command(0x7F, 0xAB)
    bench.command(0x3F)
    assert bench.take() == 0xAB


@pytest.mark.parametrize(
    "pulse",
    [
        lambda bench: bench.command(0xFE),
        lambda bench: bench.command(0xF0),
        lambda bench: bench.command(0xD1, 0xDE),
    ],
)
def test_reset_pulse_reaches_the_board(bench: Bench, pulse: Callable[[Bench], None]) -> None:
    """Pulsing or writing output bit 0 low resets the machine, once."""
    pulse(bench)
    assert bench.resets == 1


def test_other_pulses_do_not_reset(bench: Bench) -> None:
    """0xff pulses nothing."""
    bench.command(0xFF)
    assert bench.resets == 0


@pytest.mark.parametrize(("command", "is_open"), [((0xD1, 0xDD), False), ((0xD1, 0xDF), True), ((0xDD,), False)])
def test_a20_follows_the_output_port(bench: Bench, command: tuple[int, ...], is_open: bool) -> None:
    """A20 is read back as it was written, by the output port or the short commands."""
    bench.command(*command)
    assert bench.chip.a20 is is_open
    bench.command(0xD0)
    assert bool(bench.take() & 0x02) is is_open


@pytest.mark.parametrize(
    ("bytes_sent", "answers"),
    [
        ([0xFF], [0xFA, 0xAA]),
        ([0xF2], [0xFA, 0xAB, 0x83]),
        ([0xED, 0x07], [0xFA, 0xFA]),
        ([0xF3, 0x00], [0xFA, 0xFA]),
        ([0xF0, 0x00], [0xFA, 0xFA, 0x02]),
        ([0xEE], [0xEE]),
        ([0xF4], [0xFA]),
        ([0xF5], [0xFA]),
        ([0x12], [0xFE]),
    ],
)
def test_keyboard_answers_its_commands(bench: Bench, bytes_sent: list[int], answers: list[int]) -> None:
    """A kernel that resets, identifies and sets up a keyboard gets each answer at once."""
    bench.command(0x60, XLATE_OFF)
    for byte in bytes_sent:
        bench.send(byte)
    assert bench.take_all() == answers


def test_keys_are_translated_and_interrupt(bench: Bench) -> None:
    """Set 2 arrives as set 1, a release with its top bit, one interrupt a byte."""
    bench.chip.keyboard.type(b"\x1c")
    bench.chip.keyboard.type(b"\xf0\x1c")
    assert bench.keyboard_irq.up()
    assert bench.take() == 0x1E
    assert bench.take() == 0x9E
    assert not bench.keyboard_irq.up()
    assert bench.keyboard_irq.rises == 2  # an edge each


def test_disabled_keyboard_waits(bench: Bench) -> None:
    """Keys typed while the port is off arrive when it is enabled."""
    bench.command(0xAD)
    bench.chip.keyboard.type(b"\x1c")
    assert not bench.status() & OBF
    bench.command(0xAE)
    assert bench.take() == 0x1E


def test_too_many_keys_are_lost_and_reported(bench: Bench) -> None:
    """The keyboard's buffer is bounded: beyond it one overrun code says so."""
    bench.command(0x60, XLATE_OFF)
    for _ in range(100):
        bench.chip.keyboard.type(b"\x1c")
    keys = bench.take_all()
    assert len(keys) <= 17
    assert keys[-1] == 0


def test_absent_mouse_times_out_at_once(bench: Bench) -> None:
    """The mouse port loops back; a byte for a mouse that is not there gives a time-out, with the mouse's interrupt."""
    bench.command(0xD3, 0x5A)
    assert bench.status() & (OBF | MOBF) == OBF | MOBF
    assert bench.take() == 0x5A
    bench.command(0xD4, 0xF2)
    assert bench.status() & (OBF | MOBF | TIMEOUT) == OBF | MOBF | TIMEOUT
    assert bench.mouse_irq.up()
    assert bench.take() == 0xFE
    assert not bench.status() & (MOBF | TIMEOUT)


def test_saved_controller_goes_on(bench: Bench) -> None:
    """Buffers, a command that waits for its argument, and the lines come back."""
    bench.chip.keyboard.type(b"\x1c\x1b")
    bench.command(0xD1)
    other = Bench()
    other.chip.load(bench.chip.save())
    assert other.chip.save() == bench.chip.save()
    assert other.keyboard_irq.up()
    other.send(0xDD)
    assert not other.chip.a20
    assert other.take_all() == [0x1E, 0x1F]


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("controller", "ram", "00"), ("controller", "full", 2), ("keyboard", "keys", "00" * 17), ("keyboard", "x", 1)],
)
def test_torn_state_is_refused(bench: Bench, part: str, field: str, value: object) -> None:
    """An impossible value is an error, and nothing changes."""
    before = bench.chip.save()
    state = bench.chip.save()
    state[part][field] = value
    with pytest.raises(StateError):
        bench.chip.load(state)
    assert bench.chip.save() == before


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 255)), max_size=60))
def test_any_guest_is_answered(steps: list[tuple[bool, bool, int]]) -> None:
    """No sequence of commands and bytes raises, and whatever state follows can be saved and loaded."""
    bench = Bench()
    for is_data, is_write, value in steps:
        port = bench.chip.port60 if is_data else bench.chip.port64
        if is_write:
            port.write(0, 1, value)
        else:
            port.read(0, 1)
    other = Bench()
    other.chip.load(bench.chip.save())
    assert other.chip.save() == bench.chip.save()
