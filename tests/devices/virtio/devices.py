"""Devices for the ring's tests: one that answers, one that keeps what it gets; and what asks them."""

from __future__ import annotations

from aioemu.bus.virtqueue import Chain, Queue
from aioemu.devices.virtio.device import EVENT_IDX, INDIRECT_DESC, RING_PACKED, RingProperties, VirtioDevice
from tests.devices.virtio.driver import BUFFERS_AT, Board, Ring, drive

ALL = INDIRECT_DESC | EVENT_IDX | RING_PACKED
LAYOUTS = {
    "split": 0,
    "split-events": EVENT_IDX,
    "split-indirect": INDIRECT_DESC | EVENT_IDX,
    "packed": RING_PACKED,
    "packed-events": RING_PACKED | EVENT_IDX,
    "packed-indirect": ALL,
}


class Shout(VirtioDevice):
    """Answers with what it was told, in capitals."""

    device_id = 0x2A

    def __init__(self, size: int = 16) -> None:
        super().__init__([size], ring=RingProperties(packed=True))

    def kicked(self, queue: Queue) -> None:
        while (chain := queue.pop()) is not None:
            chain.write(chain.readable.tobytes().upper())
            chain.complete()


class Keeper(VirtioDevice):
    """Keeps every chain until it is told."""

    device_id = 0x2A

    def __init__(self, size: int = 16) -> None:
        super().__init__([size], ring=RingProperties(packed=True))
        self.kept: list[Chain] = []

    def kicked(self, queue: Queue) -> None:
        while (chain := queue.pop()) is not None:
            self.kept.append(chain)


def start(boards: list[Board], device: VirtioDevice, features: int, size: int = 0) -> Ring:
    board, rings = drive(device, features, size=size)
    boards.append(board)
    return rings[0]


def ask(ring: Ring, text: bytes, room: int = 64) -> bytes:
    """One request and its answer."""
    memory = ring.board.memory
    memory.write(BUFFERS_AT, text)
    half = len(text) // 2
    table = BUFFERS_AT + 0x8000 if ring.board.device.features & INDIRECT_DESC else None
    pieces = [(BUFFERS_AT, half, False), (BUFFERS_AT + half, len(text) - half, False)]
    number = ring.add([*pieces, (BUFFERS_AT + 0x1000, room, True)], table)
    ring.kick()
    [(got, size)] = ring.used()
    assert got == number
    return memory.read(BUFFERS_AT + 0x1000, size)
