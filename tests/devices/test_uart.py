"""16550A: what the data sheet promises the guest, and that no byte is lost on the way to or from the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu._core import ffi, lib
from aioemu.chardev.base import Event
from aioemu.devices.uart import RX_RING_BYTES, TX_RING_BYTES, Uart
from aioemu.errors import StateError

DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 1, 2, 2, 3, 4, 5, 6, 7
FIFO = 16
NONE, MODEM, TX, RX, TIMEOUT, LINE = 0x1, 0x0, 0x2, 0x4, 0xC, 0x6
DR, OE, FE, BI, THRE, TEMT, FIFO_ERROR = 0x01, 0x02, 0x08, 0x10, 0x20, 0x40, 0x80
LOOP = 0x10


class Cable:
    """The other end: takes as many bytes as the test allows."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.data = b""
        self.breaks = 0
        self.accepts = 0

    def write(self, data: bytes) -> int:
        taken = data[: self.room]
        self.room -= len(taken)
        self.data += taken
        return len(taken)

    def accept_input(self) -> None:
        self.accepts += 1

    def send_break(self) -> None:
        self.breaks += 1


@pytest.fixture
def uart() -> Uart:
    return Uart(Cable())


@pytest.fixture
def fifo(uart: Uart) -> Uart:
    uart.write(FCR, 1, 0x01)
    return uart


class Notifier:
    """A machine without processors, to see when the chip rings."""

    def __init__(self, uart: Uart) -> None:
        self.machine = lib.core_machine_new(1)
        self.events = ffi.new("core_event[16]")
        assert lib.core_notify_bind(self.machine, uart.chip, 7) == 0

    def rang(self) -> bool:
        count = lib.core_machine_collect(self.machine, self.events, 16)
        return any(self.events[i].kind == lib.CORE_EVENT_NOTIFY and self.events[i].tag == 7 for i in range(count))


@pytest.fixture
def bell(uart: Uart) -> Iterator[Notifier]:
    notifier = Notifier(uart)
    yield notifier
    lib.core_chip_wire(uart.chip, ffi.NULL, -1)
    lib.core_machine_free(notifier.machine)


def cause(uart: Uart) -> int:
    return uart.read(IIR) & 0x0F


def test_sent_bytes_arrive_in_order(uart: Uart) -> None:
    """What the guest writes reaches the line, and the transmitter is empty again at once."""
    for byte in b"hello":
        uart.write(DATA, 1, byte)
    assert uart.read(LSR) == THRE | TEMT
    assert uart.take() == b"hello"


def test_chip_rings_when_output_begins_and_not_for_each_byte(uart: Uart, bell: Notifier) -> None:
    """The reactor is told once that there is output, and again for the first byte after it took everything."""
    uart.write(DATA, 1, 1)
    assert bell.rang()
    uart.write(DATA, 1, 2)
    assert not bell.rang()
    assert uart.take() == b"\1\2"
    uart.write(DATA, 1, 3)
    assert bell.rang()


def test_taking_a_part_rings_for_the_rest(uart: Uart, bell: Notifier) -> None:
    """Output that was left in the ring is announced again: nothing sleeps there."""
    for byte in b"abc":
        uart.write(DATA, 1, byte)
    bell.rang()
    assert uart.take(1) == b"a"
    assert bell.rang()


def test_slow_host_holds_the_transmitter_and_loses_nothing(uart: Uart) -> None:
    """With the ring full THRE and TEMT stay off; a guest that writes all the same waits, and every byte arrives."""
    sent = bytes(i % 251 for i in range(TX_RING_BYTES + FIFO))
    for byte in sent[:TX_RING_BYTES]:
        uart.write(DATA, 1, byte)
    assert uart.read(LSR) & (THRE | TEMT)
    for byte in sent[TX_RING_BYTES:]:
        uart.write(DATA, 1, byte)
        assert not uart.read(LSR) & (THRE | TEMT)
    with pytest.raises(RuntimeError, match="no answer yet"):
        uart.write(DATA, 1, 0xAA)
    waiting = uart._waiting[0][1]
    states = [waiting.done]
    data = uart.take()
    states.append(waiting.done)
    assert states == [False, True]
    assert data + uart.take() == sent + b"\xaa"
    assert uart.read(LSR) & (THRE | TEMT) == THRE | TEMT


def test_emptied_transmitter_interrupts_again(fifo: Uart) -> None:
    """When back-pressure ends, a guest that waits for the transmitter interrupt gets it."""
    for _ in range(TX_RING_BYTES + 1):
        fifo.write(DATA, 1, 0)
    fifo.write(IER, 1, 0x02)
    assert cause(fifo) == NONE
    fifo.take()
    assert cause(fifo) == TX


def test_line_that_accepts_little_gets_everything_in_order(uart: Uart) -> None:
    """A chardev that takes a few bytes at a time holds the rest back with the port until it is writable."""
    cable = Cable(room=3)
    uart.connect(cable)
    for byte in b"0123456789":
        uart.write(DATA, 1, byte)
    uart.notified()
    assert cable.data == b"012"
    cable.room = 4
    uart.writable()
    uart.write(DATA, 1, ord("!"))
    cable.room = 100
    uart.writable()
    uart.notified()
    assert cable.data == b"0123456789!"


def test_input_waits_for_the_guest_and_is_not_lost(fifo: Uart) -> None:
    """Input beyond the FIFO waits on the host's side and follows as the guest reads; there is no overrun."""
    text = bytes(range(256)) * 8
    assert fifo.feed(text) == len(text)
    got = bytearray()
    while fifo.read(LSR) & DR:
        assert not fifo.read(LSR) & OE
        got.append(fifo.read(DATA))
    assert got == text


def test_full_input_is_refused_and_room_is_announced(uart: Uart, bell: Notifier) -> None:
    """The host is told how much was accepted, and hears from the chip when there is room."""
    cable = Cable()
    uart.connect(cable)
    assert uart.feed(b"x" * (RX_RING_BYTES + 100)) == RX_RING_BYTES + 1
    assert uart.can_receive() == 0
    bell.rang()
    for _ in range(RX_RING_BYTES):
        uart.read(DATA)
    assert bell.rang()
    uart.notified()
    assert cable.accepts == 1


@pytest.mark.parametrize(("setting", "level"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_receiver_interrupts_at_its_trigger_level(uart: Uart, setting: int, level: int) -> None:
    """Below the level set in FCR it is a character timeout, from it on received data available."""
    uart.write(FCR, 1, setting)
    uart.write(IER, 1, 0x01)
    for count in range(1, FIFO + 1):
        uart.feed(b"x")
        assert cause(uart) == (RX if count >= level else TIMEOUT)
    for _ in range(FIFO):
        uart.read(DATA)
    assert cause(uart) == NONE


def test_interrupts_have_the_sheets_priority(fifo: Uart) -> None:
    """Line status comes before data, data before the transmitter, that before the modem; each is cleared its way."""
    fifo.write(IER, 1, 0x0F)
    lib.core_uart_break(fifo.chip)
    fifo.set_modem(0x00)
    assert cause(fifo) == LINE
    assert fifo.read(LSR) & (BI | FE) == BI | FE
    assert cause(fifo) == RX
    fifo.read(DATA)
    assert cause(fifo) == TX  # reading the identification clears this one
    assert cause(fifo) == MODEM
    assert fifo.read(MSR) == 0x0B
    assert cause(fifo) == NONE


def test_transmitter_interrupt_comes_with_enabling_it(uart: Uart) -> None:
    """Enabling it while the transmitter is empty interrupts at once, each time it is enabled."""
    for _ in range(2):
        uart.write(IER, 1, 0x02)
        assert cause(uart) == TX
        assert cause(uart) == NONE
        uart.write(IER, 1, 0x00)


def test_fifo_shows_in_identification(uart: Uart) -> None:
    """A driver finds a 16550A: the two top bits follow FCR's enable, and the scratch register keeps a byte."""
    assert uart.read(IIR) == 0x01
    uart.write(FCR, 1, 0x01)
    assert uart.read(IIR) == 0xC1
    uart.write(SCR, 1, 0x5A)
    assert uart.read(SCR) == 0x5A
    uart.write(IER, 1, 0xFF)
    assert uart.read(IER) == 0x0F


def test_divisor_latch_hides_data_and_interrupt_enable(uart: Uart) -> None:
    """With DLAB set, offsets 0 and 1 are the divisor; neither the line nor the interrupt mask changes."""
    uart.write(IER, 1, 0x01)
    uart.write(LCR, 1, 0x83)
    uart.write(DATA, 1, 0x01)
    uart.write(IER, 1, 0x02)
    assert (uart.read(DATA), uart.read(IER)) == (0x01, 0x02)
    uart.write(LCR, 1, 0x03)
    assert uart.read(IER) == 0x01
    assert uart.take() == b""


def test_loopback_receives_what_it_sends_and_reports_overrun_once(fifo: Uart) -> None:
    """In loopback the line hears nothing; bytes beyond the FIFO are lost and LSR.OE says so, until it is read."""
    fifo.write(MCR, 1, LOOP)
    for byte in range(FIFO + 1):
        fifo.write(DATA, 1, byte)
    assert fifo.read(LSR) & OE
    assert not fifo.read(LSR) & OE
    assert bytes(fifo.read(DATA) for _ in range(FIFO)) == bytes(range(FIFO))
    assert fifo.take() == b""


def test_without_fifo_an_overrun_replaces_the_character(uart: Uart) -> None:
    """In 16450 mode the newer character stays."""
    uart.write(MCR, 1, LOOP)
    uart.write(DATA, 1, 1)
    uart.write(DATA, 1, 2)
    assert uart.read(LSR) & (DR | OE) == DR | OE
    assert uart.read(DATA) == 2


def test_loopback_connects_the_modem_lines(uart: Uart) -> None:
    """DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD; changes are reported once, RI's only when it falls."""
    uart.write(MCR, 1, LOOP)
    uart.read(MSR)
    for control, status in ((0x01, 0x20 | 0x02), (0x02, 0x10 | 0x01 | 0x02), (0x04, 0x40 | 0x01), (0x08, 0x80 | 0x0C)):
        uart.write(MCR, 1, LOOP | control)
        assert uart.read(MSR) == status
        assert uart.read(MSR) == status & 0xF0


def test_input_waits_while_in_loopback(uart: Uart) -> None:
    """A driver's loopback test does not eat what is coming in."""
    uart.write(MCR, 1, LOOP)
    uart.feed(b"k")
    assert not uart.read(LSR) & DR
    uart.write(MCR, 1, 0)
    assert uart.read(DATA) == ord("k")


def test_break_reaches_both_ends(fifo: Uart) -> None:
    """A break from the line is a zero with BI and FE, which reading LSR clears; LCR's break reaches the line once."""
    fifo.event(Event.BREAK)
    assert fifo.read(LSR) == DR | FE | BI | FIFO_ERROR | THRE | TEMT
    assert fifo.read(LSR) == DR | THRE | TEMT
    assert fifo.read(DATA) == 0
    assert isinstance(fifo.line, Cable)
    fifo.write(LCR, 1, 0x43)
    fifo.notified()
    fifo.notified()
    assert fifo.line.breaks == 1


def test_modem_lines_are_connected_by_default(uart: Uart) -> None:
    """A peer is there from the start: CTS, DSR and DCD, and no change is reported."""
    assert uart.read(MSR) == 0xB0


def test_reset_keeps_what_was_sent(uart: Uart) -> None:
    """A guest's last words survive the reset that follows them, and the registers are those of power-on."""
    uart.write(DATA, 1, ord("!"))
    uart.write(IER, 1, 0x0F)
    uart.write(MCR, 1, 0x0B)
    uart.reset()
    assert [uart.read(r) for r in (IER, IIR, LCR, MCR, LSR, SCR)] == [0, 1, 0, 0, THRE | TEMT, 0]
    assert uart.take() == b"!"


def test_saved_port_goes_on_where_it_was(fifo: Uart) -> None:
    """Registers, both FIFOs and bytes on their way in both directions come back; a late reader misses nothing."""
    fifo.write(IER, 1, 0x01)
    fifo.feed(b"typed by the user, more than a FIFO full")
    for byte in b"printed":
        fifo.write(DATA, 1, byte)
    other = Uart()
    other.load(fifo.save())
    assert other.save() == fifo.save()
    assert other.take() == b"printed"
    assert cause(other) == RX
    assert bytes(other.read(DATA) for _ in range(40)) == b"typed by the user, more than a FIFO full"


def test_bytes_not_accepted_yet_are_saved(uart: Uart) -> None:
    """Output that the line did not take is part of the state."""
    uart.connect(Cable(room=2))
    for byte in b"abcdef":
        uart.write(DATA, 1, byte)
    uart.notified()
    cable = Cable()
    other = Uart(cable)
    other.load(uart.save())
    other.notified()
    assert cable.data == b"cdef"


@pytest.mark.parametrize("position", [0, 1, 3, 5, 8, 9, 10, 11, 12, 13])
def test_impossible_chip_state_is_refused(uart: Uart, position: int) -> None:
    """A register or count that the chip cannot have is refused, and the port stays as it was."""
    before = uart.save()
    state = dict(before)
    chip = bytearray.fromhex(state["chip"])
    chip[position] = 0xFF
    state["chip"] = chip.hex()
    with pytest.raises(StateError):
        uart.load(state)
    assert uart.save() == before


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 8), st.integers(0, 2**64 - 1), st.booleans()), max_size=60))
def test_any_guest_is_answered(accesses: list[tuple[int, int, int, bool]]) -> None:
    """No sequence of accesses and feeds upsets the chip, and its state can always be saved and loaded."""
    uart = Uart(Cable())
    for offset, size, value, is_write in accesses:
        if is_write:
            uart.write(offset, size, value)
        else:
            assert uart.read(offset, size) < 1 << (8 * size)
        uart.feed(b"fed")
    state: Any = uart.save()
    other = Uart()
    other.load(state)
    assert other.save() == state
