"""One-port devices: debug console, debug exit and the panic port."""

from __future__ import annotations

import pytest

from aioemu.devices.debugcon import DebugCon
from aioemu.devices.isa_debug_exit import IsaDebugExit
from aioemu.devices.pvpanic import Pvpanic, PvpanicPci
from tests.devices.fakes import Sink


class Panic:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def guest_panicked(self) -> None:
        self.heard.append("panicked")

    def guest_crash_loaded(self) -> None:
        self.heard.append("crash loaded")

    def guest_shutdown(self) -> None:
        self.heard.append("shutdown")


def test_debug_console_prints_and_is_found() -> None:
    """Bytes reach the host; reading gives the value by which firmware knows the port."""
    sink = Sink()
    console = DebugCon(sink)
    for byte in b"POST":
        console.write(0, 1, byte)
    assert sink.data == b"POST"
    assert console.read(0, 1) == 0xE9
    assert DebugCon(sink, readback=0x42).read(0, 1) == 0x42


@pytest.mark.parametrize(
    ("iosize", "size", "value", "status"),
    [(2, 1, 0x10, 0x21), (1, 1, 0xFF, 0x1FF), (4, 4, 0x10, 0x21), (4, 1, 3, 7), (2, 2, 0, 1), (8, 4, 5, 11)],
)
def test_debug_exit_ends_with_an_odd_status(iosize: int, size: int, value: int, status: int) -> None:
    """The status is twice the value plus one, so never zero; reading does nothing."""
    left: list[int] = []
    port = IsaDebugExit(left.append, iosize)
    assert port.read(0, 1) == 0
    assert left == []
    port.write(0, size, value)
    assert left == [status]


def test_panic_port_tells_what_it_takes_and_what_it_heard() -> None:
    """The register reads as the events that it takes; each bit written is one event, others are ignored."""
    wires = Panic()
    port = Pvpanic(wires)
    assert port.read(0, 1) == 0x07
    port.write(0, 1, 0x01)
    port.write(0, 1, 0x06)
    port.write(0, 1, 0xF8)
    assert wires.heard == ["panicked", "crash loaded", "shutdown"]


def test_events_not_offered_are_not_heard() -> None:
    """A board that offers only panics hears only panics."""
    wires = Panic()
    port = Pvpanic(wires, events=1)
    port.write(0, 1, 0x07)
    assert (port.read(0, 1), wires.heard) == (1, ["panicked"])


def test_panic_function_has_its_register_in_a_bar() -> None:
    """The PCI form is the same register behind BAR 0."""
    wires = Panic()
    function = PvpanicPci(wires)
    assert function.read(0, 4) == 0x00111B36
    assert function.bars[0].spec.parts[0][1] is function.port
