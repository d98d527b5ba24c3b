"""A driver on virtio-pci that does things out of order, at odd widths and far outside: ignored, or it needs a reset."""

from __future__ import annotations

import random

import pytest

from aioemu.bus.registers import access
from aioemu.devices.virtio.device import VERSION_1
from aioemu.devices.virtio.pci import CONFIG_AT, ISR_AT, NOTIFY_AT
from tests.devices.virtio.devices import Keeper, Shout
from tests.devices.virtio.driver import NEEDS_RESET, RAM_BYTES, RINGS_AT
from tests.devices.virtio.test_transports import (
    DRIVER_FEATURE,
    DRIVER_SEL,
    FEATURE,
    FEATURE_SEL,
    PCI_STATUS,
    QUEUE_ENABLE,
    QUEUE_OFF,
    QUEUE_SEL,
    QUEUE_SIZE,
    QUEUE_VECTOR,
    Card,
    cards,  # noqa: F401 - a fixture
    put,
)

QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE = 0x20, 0x28, 0x30


def settle(card: Card, features: int = VERSION_1) -> int:
    """A driver up to FEATURES_OK; the status then."""
    for status in (0, 1, 3):
        card.write(PCI_STATUS, 1, status)
    for half in (0, 1):
        card.write(DRIVER_SEL, 4, half)
        card.write(DRIVER_FEATURE, 4, features >> (32 * half) & 0xFFFFFFFF)
    card.write(PCI_STATUS, 1, 0xB)
    return card.read(PCI_STATUS, 1)


def test_a_queue_in_use_stays_as_it_is(cards: list[Card]) -> None:  # noqa: F811
    """After DRIVER_OK size, rings, features and enabling change nothing, whatever is written in whatever parts."""
    card = put(cards, Shout())
    ring = card.start()
    for size in (0, 1, 3, 4, 8, 17, 0x8000, 0xFFFF):
        card.write(QUEUE_SIZE, 2, size)
        card.write(QUEUE_SIZE, 1, size & 0xFF)
        assert card.read(QUEUE_SIZE, 2) == ring.size
    for value in (0, 1, 2, 0xFFFF, 1):
        card.write(QUEUE_ENABLE, 2, value)
        assert card.read(QUEUE_ENABLE, 2) == 1
    for register in (QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE):
        before = card.read(register, 8)
        for width, value in ((8, 0), (8, (1 << 64) - 1), (4, 0x1230), (1, 7)):
            card.write(register, width, value)
        assert card.read(register, 8) == before
    for half in (0, 1, 2, 0xFFFFFFFF):
        card.write(DRIVER_SEL, 4, half)
        card.write(DRIVER_FEATURE, 4, 0xFFFFFFFF)
    assert card.device.features == VERSION_1
    card.serve_one(ring)
    assert not card.read(PCI_STATUS, 1) & NEEDS_RESET


@pytest.mark.parametrize("features", [0, 1 << 41 | VERSION_1, (1 << 64) - 1, 1 << 5 | VERSION_1, VERSION_1 | 1 << 37])
def test_features_that_were_not_offered(cards: list[Card], features: int) -> None:  # noqa: F811
    """FEATURES_OK does not stick, and no queue can be enabled."""
    card = put(cards, Keeper())
    card.write(FEATURE_SEL, 4, 2)
    assert card.read(FEATURE, 4) == 0
    assert not settle(card, features) & 8
    card.write(QUEUE_ENABLE, 2, 1)
    assert card.read(QUEUE_ENABLE, 2) == 0
    card.write(PCI_STATUS, 1, 0xF)
    assert not card.device.running


@pytest.mark.parametrize("size", [0, 3, 17, 0x8000, 0xFFFF])
def test_sizes_that_cannot_be(cards: list[Card], size: int) -> None:  # noqa: F811
    """Enabling such a queue needs a reset; nothing is served with it."""
    card = put(cards, Shout())
    assert settle(card) & 8
    card.write(QUEUE_SIZE, 2, size)
    for register, address in ((QUEUE_DESC, RINGS_AT), (QUEUE_DRIVER, RINGS_AT + 0x1000), (QUEUE_DEVICE, 0x20000)):
        card.write(register, 8, address)
    card.write(QUEUE_ENABLE, 2, 1)
    assert card.read(QUEUE_ENABLE, 2) == 0
    assert card.read(PCI_STATUS, 1) & NEEDS_RESET
    card.serve_one(card.start())


def test_queues_and_vectors_that_there_are_not(cards: list[Card]) -> None:  # noqa: F811
    """Selecting, sizing, enabling, ringing and giving vectors outside of what there is disturbs nothing."""
    card = put(cards, Shout())
    ring = card.start()
    for queue in (1, 2, 63, 64, 1023, 1024, 0x7FFF, 0xFFFF):
        card.write(QUEUE_SEL, 2, queue)
        for register in (QUEUE_SIZE, QUEUE_VECTOR, QUEUE_ENABLE):
            card.write(register, 2, 1)
            assert card.read(register, 2) == 0
        card.write(QUEUE_DESC, 8, 0x1000)
        assert card.read(QUEUE_OFF, 2) == 0
    for offset in range(NOTIFY_AT, NOTIFY_AT + 0x1000, 4):
        card.write(offset, 2, 0xFFFF)
        card.write(offset, 4, 0xFFFFFFFF)
    card.write(QUEUE_SEL, 2, 0)
    for vector in (2, 3, 0x7FF, 0x800, 0xFFFE):
        card.write(QUEUE_VECTOR, 2, vector)
        assert card.read(QUEUE_VECTOR, 2) == 0xFFFF
        card.serve_one(ring)


def test_rings_in_the_card_s_own_registers(cards: list[Card]) -> None:  # noqa: F811
    """Rings at the address of a BAR are not in memory."""
    card = put(cards, Shout())
    assert settle(card) & 8
    for register in (QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE):
        card.write(register, 8, 0xFE000000)
    card.write(QUEUE_ENABLE, 2, 1)
    assert card.read(PCI_STATUS, 1) & NEEDS_RESET


@pytest.mark.parametrize("seed", range(8))
def test_any_access_anywhere(cards: list[Card], seed: int) -> None:  # noqa: F811
    """Every width at every offset of the BAR, across structures and the BAR's end too; the card works after a reset."""
    chooser = random.Random(seed)
    card = put(cards, Shout())
    places = (0, QUEUE_SEL, QUEUE_DESC, ISR_AT, CONFIG_AT, NOTIFY_AT, 0x3FF8, 0x4000)
    for _ in range(3000):
        offset = max(0, chooser.choice(places) + chooser.randrange(-9, 64))
        width = chooser.choice((1, 2, 4, 8, 3, 5, 7))
        value = chooser.choice((0, 1, 0xB, 0xF, 0xFFFF, RAM_BYTES, chooser.getrandbits(64)))
        access(card.function.face, offset, width, chooser.random() < 0.6, value & (1 << 8 * width) - 1)
        if chooser.random() < 0.05:
            card.device.notified()
    card.write(PCI_STATUS, 1, 0)
    card.serve_one(card.start())


@pytest.mark.parametrize(
    "at", [0x0, 0x1000, 0xFEE00000, 0xFEC00000, 0xFFFFFFFFFFFFC000, 0x7FFFFFFFFFFFC000, 0xDEADBEEF123]
)
def test_a_bar_in_odd_places(cards: list[Card], at: int) -> None:  # noqa: F811
    """Over memory, over interrupt controllers, at the end of the world: the card lives, and comes back where it was."""
    card = put(cards, Shout())
    ring = card.start()
    bar = 0x10 + 4 * 4
    before = [card.function.read(bar + 4 * n, 4) for n in range(2)]
    for half in range(2):
        card.function.write(bar + 4 * half, 4, at >> (32 * half) & 0xFFFFFFFF)
    card.serve_one(ring)
    for half in range(2):
        card.function.write(bar + 4 * half, 4, before[half])
    card.serve_one(ring)
