"""One queue goes and comes again while the device runs (Virtio 1.2, 2.6.1 and 4.2.2.2): nothing of it lives on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aioemu._core import lib
from aioemu.bus.virtqueue import Queue
from aioemu.devices.virtio.device import RING_RESET, RingProperties, VirtioDevice
from tests.devices.virtio.devices import ALL
from tests.devices.virtio.disks import OK, READ, WRITE, Disk, disk
from tests.devices.virtio.driver import QUEUE_READY, QUEUE_SEL, QUEUE_SIZE, drive, features_of, set_up_queue

QUEUE_RESET = 0xC0
SECTOR, SECTORS = 512, 2048
every_thread = pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])
every_way = pytest.mark.parametrize("reset", [False, True], ids=["ready", "reset"])
every_ring = pytest.mark.parametrize("features", [ALL & ~(1 << 34), ALL], ids=["split", "packed"])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(os.urandom(SECTORS * SECTOR))
    return path


def take_back(d: Disk, queue: int, reset: bool) -> None:
    """The driver takes a queue back."""
    d.board.write(QUEUE_SEL, queue)
    d.board.write(QUEUE_RESET if reset else QUEUE_READY, int(reset))
    assert d.board.read(QUEUE_READY) == 0
    assert d.board.read(QUEUE_RESET) == 0


def enable(d: Disk, queue: int, size: int) -> None:
    """And gives it again."""
    rings = list(d.rings)
    rings[queue] = set_up_queue(d.board, queue, size, features=d.device.features)
    d.rings = rings
    d.lengths[queue] = {}


@every_thread
@every_way
@every_ring
async def test_a_queue_of_a_disk(raw: Path, thread: bool, reset: bool, features: int) -> None:
    """Its requests are gone and touch nothing, the other queue's are not; enabled anew, smaller, it is served."""
    slow = {"iotype": "read", "delay-ms": 100, "times": 8}
    node = {
        "driver": "blkdebug",
        "image": {"driver": "file", "filename": str(raw)},
        "aioemu-faults": [slow],
    }
    async with disk(node, thread=thread, queues=2, packed=True, features=features | RING_RESET) as d:
        assert d.device.features & RING_RESET
        asked = [(q, *d.put(READ, n, room=SECTOR, q=q)) for q in range(2) for n in range(4)]
        for ring in d.rings:
            ring.kick()
        await d.until(lambda: len(d.device.engine._tasks) == 8)
        take_back(d, 0, reset)
        d.board.write(QUEUE_SEL, 0)
        if reset:
            assert d.board.read(QUEUE_SIZE) == 256
        enable(d, 0, 8)
        for q, number, writable, room in asked:
            if q == 1:
                await d.wait(number, 1)
                assert d.back(writable, room)[0] == OK
        await d.until(lambda: not d.device.engine._tasks)
        assert [d.back(writable, room)[0] for q, _, writable, room in asked if q == 0] == [0xEE] * 4
        assert await d.ask(WRITE, 9, b"w" * SECTOR) == (OK, b"")
        for _ in range(20):
            assert await d.ask(READ, 9, room=SECTOR) == (OK, b"w" * SECTOR)


@every_thread
@every_way
async def test_a_queue_goes_while_it_is_worked_on(raw: Path, thread: bool, reset: bool) -> None:
    """Again and again with requests under way natively: what it was told before is all that reaches memory."""
    node = {"driver": "raw", "file": {"driver": "file", "filename": str(raw), "cache": {"direct": True}}}
    content = raw.read_bytes()
    async with disk(node, thread=thread, features=ALL & ~(1 << 34) | RING_RESET) as d:
        for turn in range(150):
            asked = [d.put(READ, 8 * n, room=4096) for n in range(turn % 24 + 1)]
            d.rings[0].kick()
            take_back(d, 0, reset)
            before = [d.back(writable, room) for _, writable, room in asked]
            enable(d, 0, 1 << (turn % 4 + 5))
            assert await d.ask(READ, 8, room=512) == (OK, content[8 * SECTOR :][:512])
            assert [d.back(writable, room) for _, writable, room in asked[8:]] == before[8:]


class Holder(VirtioDevice):
    """Takes chains and keeps them."""

    device_id = 42

    def __init__(self, ring: RingProperties | None = None) -> None:
        super().__init__([8, 8], ring=ring)
        self.lost: list[int] = []

    def queue_lost(self, queue: Queue) -> None:
        self.lost.append(queue.index)


@every_way
def test_a_queue_of_a_device_in_python(reset: bool) -> None:
    """Its chains read and write nothing any more, the device is told, and the next chain comes out of the new queue."""
    device = Holder()
    board, rings = drive(device, RING_RESET)
    try:
        board.memory.write(0x80000, b"old!" + bytes(60))
        rings[0].add([(0x80000, 4, False), (0x80010, 4, True)])
        chain = device.queues[0].pop()
        assert chain is not None
        board.write(QUEUE_SEL, 0)
        board.write(QUEUE_RESET if reset else QUEUE_READY, int(reset))
        assert device.lost == [0]
        assert chain.read(4) == b""
        assert chain.write(b"new!") == 0
        chain.complete()
        assert board.memory.read(0x80010, 4) == bytes(4)
        ring = set_up_queue(board, 0, 4, features=device.features)
        assert device.queues[0].pop() is None
        ring.add([(0x80000, 4, False)])
        again = device.queues[0].pop()
        assert again is not None
        assert again.read(4) == b"old!"
    finally:
        device.close()
        board.close()


@pytest.mark.parametrize("given", [RingProperties(), RingProperties(queue_reset=False)])
def test_it_is_a_property(given: RingProperties) -> None:
    """queue_reset=off: not offered; and a driver that did not accept it resets nothing by that register."""
    device = Holder(given)
    board, _ = drive(device, 0)
    try:
        board.write(QUEUE_SEL, 1)
        board.write(QUEUE_RESET, 1)
        assert board.read(QUEUE_READY) == 1
        assert device.lost == []
        board.write(QUEUE_SEL, 7)
        board.write(QUEUE_RESET, 1)
        board.write(QUEUE_READY, 0)
        assert lib.core_virtio_selected(device.chip) == -1
        assert bool(features_of(board) & RING_RESET) is given.queue_reset
    finally:
        device.close()
        board.close()
