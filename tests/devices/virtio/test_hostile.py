"""Hostile rings and drivers: whatever a guest writes, its device answers, waits or asks for a reset, and no more."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioemu.devices.virtio.device import RING_PACKED, VERSION_1
from tests.devices.virtio.devices import ALL, Keeper, Shout, ask, start
from tests.devices.virtio.driver import (
    AVAIL_AT,
    BUFFERS_AT,
    DESC,
    INDIRECT,
    ISR,
    NEEDS_RESET,
    NEXT,
    QUEUE_READY,
    QUEUE_SEL,
    QUEUE_SIZE,
    RAM_BYTES,
    STATUS,
    USED_AT,
    WRITE,
    Board,
    Ring,
    drive,
    negotiate,
    set_up_queue,
)


def broken(ring: Ring) -> bool:
    return bool(ring.board.read(STATUS) & NEEDS_RESET)


Descriptors = list[tuple[int, int, int, int]]
HOSTILE: dict[str, Descriptors] = {
    "loop": [(BUFFERS_AT, 4, NEXT, 0)],
    "long loop": [(BUFFERS_AT, 4, NEXT, 1), (BUFFERS_AT, 4, NEXT, 0)],
    "next outside": [(BUFFERS_AT, 4, NEXT, 16)],
    "next 65535": [(BUFFERS_AT, 4, NEXT, 65535)],
    "beyond memory": [(RAM_BYTES, 4, 0, 0)],
    "crosses the end": [(RAM_BYTES - 2, 4, 0, 0)],
    "wraps": [((1 << 64) - 2, 4, 0, 0)],
    "size all ones": [(BUFFERS_AT, 0xFFFFFFFF, 0, 0)],
    "mmio": [(0xFEB00000, 4, WRITE, 0)],
    "readable after writable": [(BUFFERS_AT, 4, WRITE | NEXT, 1), (BUFFERS_AT, 4, 0, 0)],
    "indirect of nothing": [(BUFFERS_AT, 0, INDIRECT, 0)],
    "indirect not whole": [(BUFFERS_AT, 17, INDIRECT, 0)],
    "indirect beyond memory": [(RAM_BYTES - 16, 32, INDIRECT, 0)],
    "indirect wraps": [((1 << 64) - 16, 32, INDIRECT, 0)],
    "indirect too long": [(0, 16 * 1025, INDIRECT, 0)],
    "indirect and next": [(BUFFERS_AT, 16, INDIRECT | NEXT, 1)],
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("packed", [False, True])
def test_hostile_chain_breaks_only_the_device(boards: list[Board], name: str, packed: bool) -> None:
    """Each chain that cannot be makes the device ask for a reset; after that reset it works."""
    if packed and name in ("next outside", "next 65535", "loop", "long loop"):
        name = "size all ones"  # a packed ring has no links
    reasons: list[str] = []
    device = Shout()
    device.on_broken = reasons.append
    ring = start(boards, device, ALL if packed else ALL & ~RING_PACKED)
    for n, (address, size, flags, link) in enumerate(HOSTILE[name]):
        if packed:
            ring.put(ring.at + 16 * n, "QIHH", address, size, 0, flags | 1 << 7)
        else:
            ring.put(ring.at + 16 * n, "QIHH", address, size, flags, link)
    ring.put(ring.avail_at + 2, "HH", 1, 0) if not packed else None
    ring.kick()

    device.notified()
    assert broken(ring)
    assert reasons
    assert ring.board.read(ISR) & 2
    assert device.queues[0].pop() is None
    assert negotiate(ring.board, VERSION_1)
    fresh = set_up_queue(ring.board, 0)
    ring.board.write(STATUS, 0xF)
    assert ask(fresh, b"again") == b"AGAIN"


@pytest.mark.parametrize("flags", [INDIRECT, INDIRECT | WRITE])
@pytest.mark.parametrize("packed", [False, True])
def test_indirect_table_in_an_indirect_table(boards: list[Board], flags: int, packed: bool) -> None:
    """Tables do not nest."""
    ring = start(boards, Shout(), ALL if packed else ALL & ~RING_PACKED)
    place = (0, flags) if packed else (flags, 0)
    ring.put(BUFFERS_AT, "QIHH", BUFFERS_AT, 16, *place)
    ring.add([(BUFFERS_AT, 16, False)])
    ring.put(
        ring.at + (16 * 15 if not packed else 0) + (14 if packed else 12), "H", INDIRECT | (1 << 7 if packed else 0)
    )
    ring.kick()
    assert broken(ring)


@pytest.mark.parametrize("idx", [17, 0x8000, 0xFFFF])
def test_available_index_jumps(boards: list[Board], idx: int) -> None:
    """An index further ahead than the ring is long, or going back, breaks the device."""
    ring = start(boards, Shout(), 0)
    ring.put(ring.avail_at + 2, "H", idx)
    ring.kick()
    assert broken(ring)


@pytest.mark.parametrize("head", [16, 0xFFFF])
def test_head_outside(boards: list[Board], head: int) -> None:
    """A head that is no descriptor breaks the device."""
    ring = start(boards, Shout(), 0)
    ring.put(ring.avail_at + 2, "HH", 1, head)
    ring.kick()
    assert broken(ring)


@pytest.mark.parametrize("size", [0, 3, 17, 65535])
def test_queue_size_that_cannot_be(boards: list[Board], size: int) -> None:
    """A size of zero, of no power of two or beyond the maximum never becomes a ring."""
    device = Shout()
    board = Board(device)
    boards.append(board)
    assert negotiate(board, VERSION_1)
    board.write(QUEUE_SEL, 0)
    board.write(QUEUE_SIZE, size)
    board.write(QUEUE_READY, 1)
    assert board.read(QUEUE_READY) == 0
    assert board.read(STATUS) & NEEDS_RESET


def test_driver_out_of_order(boards: list[Board]) -> None:
    """Queues, features and status follow their order: what comes too late or too early is ignored."""
    device = Shout()
    board = Board(device)
    boards.append(board)
    board.write(QUEUE_READY, 1)  # before features are settled
    assert board.read(QUEUE_READY) == 0
    assert not negotiate(board, VERSION_1 | 1 << 41)  # never offered
    assert not negotiate(board, 0)  # a legacy driver
    board.write(STATUS, 0xF)
    assert not device.running
    assert negotiate(board, VERSION_1)
    ring = set_up_queue(board, 0)
    for register, value in ((QUEUE_SIZE, 4), (DESC, 0x123), (AVAIL_AT, 0), (USED_AT, 0xFFFFFFFF), (QUEUE_READY, 1)):
        board.write(register, value)  # enabled already
    board.write(0x20, 0xFFFFFFFF)  # features are settled
    board.write(STATUS, 0xF)
    assert device.features == VERSION_1
    assert ask(ring, b"still") == b"STILL"
    board.write(QUEUE_SEL, 0xFFFF)
    assert board.read(QUEUE_SIZE) == 0
    board.write(QUEUE_READY, 1)
    for queue in (1, 0xFFFF, 0xFFFFFFFF):
        board.write(0x50, queue)
    device.notified()
    assert ask(ring, b"yes") == b"YES"


@pytest.mark.parametrize("register", [DESC, AVAIL_AT, USED_AT])
@pytest.mark.parametrize("address", [1, RAM_BYTES - 16, RAM_BYTES, 0xFFFFFFFFFFFFFFF0])
def test_ring_outside_memory(boards: list[Board], register: int, address: int) -> None:
    """A ring that is misaligned or not in memory is not enabled."""
    device = Shout(256)
    board = Board(device)
    boards.append(board)
    assert negotiate(board, VERSION_1)
    board.write(QUEUE_SEL, 0)
    board.write(register, address & 0xFFFFFFFF)
    board.write(register + 4, address >> 32)
    board.write(QUEUE_READY, 1)
    assert board.read(STATUS) & NEEDS_RESET


@settings(max_examples=300)
@given(data=st.data())
def test_any_bytes_in_the_rings(data: st.DataObject) -> None:
    """Whatever a guest writes into its rings and registers, the device answers, breaks or waits; nothing else."""
    packed = data.draw(st.booleans())
    device = data.draw(st.sampled_from([Shout, Keeper]))()
    board, [ring] = drive(device, ALL if packed else ALL & ~RING_PACKED)
    small = st.one_of(st.integers(0, 20), st.sampled_from([0xFFFF, 0x8000, 0x7FFF]))
    address = st.one_of(st.integers(0, RAM_BYTES + 64), st.just((1 << 64) - 1), st.just(ring.at), st.just(ring.used_at))
    size = st.one_of(st.integers(0, 600), st.sampled_from([16, 32, 0xFFFFFFFF]))
    try:
        for _ in range(data.draw(st.integers(1, 12))):
            for n in range(data.draw(st.integers(1, 6))):
                flags = data.draw(st.integers(0, 7)) | data.draw(
                    st.sampled_from([0, 1 << 7, 1 << 15, 1 << 7 | 1 << 15])
                )
                fields = (data.draw(address), data.draw(size), *((n, flags) if packed else (flags, data.draw(small))))
                board.memory.write(ring.at + 16 * n, struct.pack("<QIHH", *fields))
            board.memory.write(ring.avail_at, struct.pack("<HHHHH", *(data.draw(small) for _ in range(5))))
            if data.draw(st.booleans()):
                board.write(data.draw(st.sampled_from([0x30, 0x38, 0x44, 0x70, 0x80, 0x90, 0xA0])), data.draw(small))
            ring.kick()
            kept: list[Any] = getattr(device, "kept", [])
            for chain in kept:
                chain.write(chain.read())
                chain.complete()
            kept.clear()
        assert 0 <= board.read(STATUS) <= 0xFF
        device.load(device.save())
    finally:
        board.close()
