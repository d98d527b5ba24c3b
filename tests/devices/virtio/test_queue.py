"""The queue engine: chains go out and come back whole, in both ring layouts, and only who wants one is interrupted."""

from __future__ import annotations

import asyncio

import pytest

from aioemu.bus.virtqueue import TURN_CHAINS
from aioemu.devices.virtio.device import EVENT_IDX, INDIRECT_DESC, RING_PACKED, VERSION_1
from tests.devices.virtio.devices import LAYOUTS, Keeper, Shout, ask, start
from tests.devices.virtio.driver import (
    BUFFERS_AT,
    ISR,
    RAM_BYTES,
    STATUS,
    Board,
    negotiate,
    set_up_queue,
)

every_layout = pytest.mark.parametrize("features", list(LAYOUTS.values()), ids=list(LAYOUTS))


@every_layout
@pytest.mark.parametrize("size", [1, 4, 16])
def test_chains_come_back_over_many_laps(boards: list[Board], features: int, size: int) -> None:
    """Requests are answered once each, around the ring and around 16 bits, whatever the layout."""
    if size < 3 and not features & INDIRECT_DESC:
        size = 4
    ring = start(boards, Shout(), features, size)
    for n in range(300):
        assert ask(ring, b"hello %d" % n) == b"HELLO %d" % n


def test_packed_rings_of_any_size(boards: list[Board]) -> None:
    """A packed ring need not be a power of two long."""
    ring = start(boards, Shout(), RING_PACKED, 5)
    for n in range(50):
        assert ask(ring, b"x%d" % n) == b"X%d" % n


def test_split_index_wraps(boards: list[Board]) -> None:
    """The 16-bit indices of a split ring wrap without notice."""
    ring = start(boards, Shout(), 0)
    memory = ring.board.memory
    memory.write(BUFFERS_AT, b"a")
    for n in range(70_000 // 16):
        for _ in range(16):
            ring.add([(BUFFERS_AT, 1, False)])
        ring.kick()
        assert len(ring.used()) == 16, n
    assert ring.idx == (70_000 // 16 * 16) & 0xFFFF


@every_layout
def test_completion_in_any_order(boards: list[Board], features: int) -> None:
    """A device may give chains back in another order than it got them."""
    device = Keeper()
    ring = start(boards, device, features)
    for lap in range(20):
        numbers = [ring.add([(BUFFERS_AT + n * 16, 16, True)]) for n in range(8)]
        ring.kick()
        order = sorted(range(8), key=lambda n: (n * 5 + lap) % 8)
        for n in order:
            device.kept[n].write(bytes([n]) * n)
            device.kept[n].complete()
        device.kept.clear()
        assert ring.used() == [(numbers[n], n) for n in order]


@every_layout
def test_interrupts_only_when_wanted(boards: list[Board], features: int) -> None:
    """With interrupts suppressed none comes; wanted, one comes, and with EVENT_IDX only for the chain asked about."""
    ring = start(boards, Shout(), features)
    if not features & EVENT_IDX:
        ring.want_interrupts(False)
        ask(ring, b"a")
        assert ring.board.read(ISR) == 0
        ring.want_interrupts(True)
        ask(ring, b"a")
        assert ring.board.read(ISR) == 1
    elif features & RING_PACKED:
        ring.put(ring.avail_at, "HH", 1 << 15 | (3 if not features & INDIRECT_DESC else 1), 2)
        ask(ring, b"a")
        assert ring.board.read(ISR) == 0
        ask(ring, b"a")
        assert ring.board.read(ISR) == 1
    else:
        ring.put(ring.avail_at + 4 + 2 * ring.size, "H", 1)
        ask(ring, b"a")
        assert ring.board.read(ISR) == 0
        ask(ring, b"a")
        assert ring.board.read(ISR) == 1
    ring.board.write(0x64, 1)
    assert ring.board.read(ISR) == 0


@every_layout
def test_a_reset_makes_chains_void(boards: list[Board], features: int) -> None:
    """Chains that are out when the driver resets read nothing, write nothing and complete into nothing."""
    device = Keeper()
    ring = start(boards, device, features)
    ring.add([(BUFFERS_AT, 8, False), (BUFFERS_AT + 0x100, 8, True)])
    ring.kick()
    [chain] = device.kept
    ring.board.write(STATUS, 0)
    ring.board.memory.write(BUFFERS_AT, b"secret!!")
    before = ring.board.memory.read(0, RAM_BYTES)

    assert chain.read() == b""
    assert chain.write(b"x") == 0
    chain.complete()
    assert ring.board.memory.read(0, RAM_BYTES) == before


async def test_iteration_waits_and_goes_on(boards: list[Board]) -> None:
    """`async for` takes what is there, waits for more, and goes on after a reset."""
    device = Keeper()
    device.kicked = lambda queue: None  # type: ignore[method-assign]
    served: list[bytes] = []

    async def serve() -> None:
        async for chain in device.queues[0]:
            served.append(chain.read())
            chain.complete()

    task = asyncio.ensure_future(serve())
    ring = start(boards, device, 0)
    for lap in range(3):
        ring.board.memory.write(BUFFERS_AT, b"%d" % lap)
        ring.add([(BUFFERS_AT, 1, False)])
        ring.kick()
        while len(served) <= lap:
            await asyncio.sleep(0)
        assert ring.used() == [(15, 0)]
        ring.free = list(range(16))
    ring.board.write(STATUS, 0)
    assert negotiate(ring.board, VERSION_1)
    fresh = set_up_queue(ring.board, 0)
    ring.board.write(STATUS, 0xF)
    fresh.add([(BUFFERS_AT, 1, False)])
    fresh.kick()
    while len(served) < 4:
        await asyncio.sleep(0)
    task.cancel()


async def test_an_iteration_without_end_leaves_the_loop_its_turn(boards: list[Board]) -> None:
    """A driver that puts the next chain in before the last is done does not keep the program from everything else."""
    device = Keeper()
    device.kicked = lambda queue: None  # type: ignore[method-assign]
    served = 0
    ring = start(boards, device, 0)

    async def serve() -> None:
        nonlocal served
        async for chain in device.queues[0]:
            served += 1
            chain.complete()
            ring.used()
            if served < 1000:  # in the end the test ends, whatever the queue does
                ring.add([(BUFFERS_AT, 1, False)])

    ring.add([(BUFFERS_AT, 1, False)])
    task = asyncio.ensure_future(serve())
    ring.kick()
    await asyncio.sleep(0)
    assert served == TURN_CHAINS
    await asyncio.sleep(0)
    assert TURN_CHAINS < served <= 2 * TURN_CHAINS
    task.cancel()


def test_saved_chains_come_again(boards: list[Board]) -> None:
    """A device that is saved with chains out gets them again where it is loaded, and the driver gets all back."""
    for features in LAYOUTS.values():
        device = Keeper()
        ring = start(boards, device, features)
        numbers = [ring.add([(BUFFERS_AT + n, 1, True)]) for n in range(4)]
        ring.kick()
        device.kept[2].complete()
        state = device.save()
        device.kept.clear()
        device.load(state)
        device.notified()
        assert len(device.kept) == 3
        for chain in device.kept:
            chain.complete()
        assert sorted(number for number, _ in ring.used()) == sorted(numbers)
