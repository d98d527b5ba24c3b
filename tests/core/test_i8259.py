"""The 8259A pair as a PC's software drives it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.intc_bench import LVT_LINT0, MASKED, SVR, Bench, Chip, bench

EXTINT = 0x700


@pytest.fixture
def pc() -> Iterator[Bench]:
    with bench() as made:
        initialise(made)
        yield made


def initialise(pc: Bench, icw4: int = 1) -> None:
    for pic, base, cascade in ((pc.pics[0], 0x20, 4), (pc.pics[1], 0x28, 2)):
        pic.write(0, 0x11, 1)
        for word in (base, cascade, icw4, 0):
            pic.write(1, word, 1)


def in_service(pic: Chip) -> int:
    pic.write(0, 0x0B, 1)
    return pic.read(0, 1)


def requests(pic: Chip) -> int:
    pic.write(0, 0x0A, 1)
    return pic.read(0, 1)


def test_vectors_and_cascade(pc: Bench) -> None:
    """Each line is its controller's base plus its number; the second's come through the first's line 2."""
    pc.irq(3, 1)
    assert pc.take() == 0x23
    pc.pics[0].write(0, 0x20, 1)
    pc.irq(12, 1)
    assert pc.take() == 0x2C
    assert (in_service(pc.pics[0]), in_service(pc.pics[1])) == (0x04, 0x10)


def test_priority_and_eoi(pc: Bench) -> None:
    """A lower number interrupts a higher one, not the other way round, until EOI."""
    pc.irq(5, 1)
    assert pc.take() == 0x25
    pc.irq(6, 1)
    assert pc.take() == -1
    pc.irq(1, 1)
    assert pc.take() == 0x21
    pc.pics[0].write(0, 0x20, 1)
    assert in_service(pc.pics[0]) == 0x20
    pc.pics[0].write(0, 0x65, 1)
    assert pc.take() == 0x26


def test_mask_holds_back(pc: Bench) -> None:
    """A masked request stays in IRR and comes when it is unmasked."""
    pc.pics[0].write(1, 0xFF, 1)
    pc.irq(4, 1)
    assert pc.take() == -1
    assert requests(pc.pics[0]) == 0x10
    pc.pics[0].write(1, 0xEF, 1)
    assert pc.take() == 0x24


def test_request_that_goes_away_is_spurious(pc: Bench) -> None:
    """When the line falls before INTA the processor is given IRQ7 and no bit is in service."""
    pc.irq(12, 1)
    pc.pics[1].write(1, 0xFF, 1)
    pc.pics[1].write(1, 0x00, 1)
    pc.irq(12, 0)
    assert pc.take() == -1
    assert in_service(pc.pics[1]) == 0


def test_automatic_eoi(pc: Bench) -> None:
    """With AEOI the request is done when it is taken."""
    initialise(pc, icw4=3)
    pc.irq(3, 1)
    assert pc.take() == 0x23
    assert in_service(pc.pics[0]) == 0
    pc.irq(6, 1)
    assert pc.take() == 0x26


def test_level_triggered_line_interrupts_until_it_falls(pc: Bench) -> None:
    """ELCR makes a line a level; lines 0, 1, 2, 8 and 13 cannot be one."""
    pc.elcr.write(0, 0xFF, 1)
    pc.elcr.write(1, 0xFF, 1)
    assert (pc.elcr.read(0, 1), pc.elcr.read(1, 1)) == (0xF8, 0xDE)
    pc.irq(5, 1)
    for _ in range(3):
        assert pc.take() == 0x25
        pc.pics[0].write(0, 0x20, 1)
    pc.irq(5, 0)
    assert pc.take() == -1


def test_rotation_makes_the_served_line_the_lowest(pc: Bench) -> None:
    """Rotate on EOI: equals take turns."""
    pc.irq(0, 1)
    pc.irq(3, 1)
    assert pc.take() == 0x20
    pc.irq(0, 0)
    pc.pics[0].write(0, 0xA0, 1)
    pc.irq(0, 1)
    assert pc.take() == 0x23


def test_special_mask_lets_lower_lines_in(pc: Bench) -> None:
    """In special mask mode a masked line in service blocks nobody."""
    pc.irq(1, 1)
    assert pc.take() == 0x21
    pc.irq(6, 1)
    assert pc.take() == -1
    pc.pics[0].write(1, 0x02, 1)
    pc.pics[0].write(0, 0x68, 1)
    assert pc.take() == 0x26


def test_poll_is_an_acknowledge(pc: Bench) -> None:
    """A polled read gives the line with bit 7 and puts it in service; without a request it gives 0."""
    pc.irq(4, 1)
    pc.pics[0].write(0, 0x0C, 1)
    assert pc.pics[0].read(0, 1) == 0x84
    assert in_service(pc.pics[0]) == 0x10
    pc.pics[0].write(0, 0x20, 1)
    pc.pics[0].write(0, 0x0C, 1)
    assert pc.pics[0].read(0, 1) & 0x80 == 0


def test_virtual_wire_through_lint0(pc: Bench) -> None:
    """With the APIC on, the pair reaches the processor while LINT0 is ExtINT and not masked."""
    pc.apics[0].write(SVR, 0x1FF)
    pc.apics[0].write(LVT_LINT0, MASKED | EXTINT)
    pc.irq(3, 1)
    assert pc.take() == -1
    pc.apics[0].write(LVT_LINT0, EXTINT)
    assert pc.take() == 0x23


def test_state_goes_and_comes_back(pc: Bench) -> None:
    """A half-done initialisation and requests in service survive."""
    pc.irq(1, 1)
    pc.take()
    pc.pics[1].write(0, 0x11, 1)
    pc.pics[1].write(1, 0x70, 1)
    saved = [pic.save() for pic in pc.pics]
    initialise(pc)
    assert all(pic.load(state) for pic, state in zip(pc.pics, saved, strict=True))
    assert [pic.save() for pic in pc.pics] == saved
    pc.pics[1].write(1, 2, 1)
    pc.pics[1].write(1, 1, 1)
    pc.irq(9, 1)
    assert pc.take() == -1
    pc.pics[0].write(0, 0x61, 1)
    assert pc.take() == 0x71


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 255)), max_size=40),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 1)), max_size=20),
    st.binary(min_size=19, max_size=19),
)
def test_any_words_leave_an_answering_pair(
    words: list[tuple[int, int, int]], lines: list[tuple[int, int]], state: bytes
) -> None:
    """Whatever is written, loaded and driven, every acknowledge ends with a vector or none."""
    with bench() as pc:
        pc.pics[0].load(state)
        for chip, port, value in words:
            pc.pics[chip].write(port, value, 1)
            pc.pics[chip].read(port, 1)
        for line, level in lines:
            pc.irq(line, level)
            assert -1 <= pc.take() <= 255
