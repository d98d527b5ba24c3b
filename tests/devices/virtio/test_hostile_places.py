"""Buffers where none should be: of no length, over holes, over the ring itself, in registers, without end."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from aioemu.bus.wires import MMIO
from aioemu.config import DeviceOptions, MachineConfig, MachineOptions, OptionGroup
from aioemu.config.model import AccelOptions
from aioemu.devices.virtio.device import RING_PACKED
from aioemu.machine.machine import Machine
from aioemu.memory.ranges import RamRange
from tests.devices.virtio.devices import ALL, Keeper, Shout, ask, start
from tests.devices.virtio.disks import FLUSH, OK, READ, WRITE, disk
from tests.devices.virtio.driver import (
    BUFFERS_AT,
    NEEDS_RESET,
    RAM_BYTES,
    RINGS_AT,
    STATUS,
    Board,
    drive,
    features_of,
    negotiate,
    set_up_queue,
)

MIB = 1 << 20
SLOT, NOTIFY = 0xFEB00000, 0x50
packed_or_not = pytest.mark.parametrize("features", [ALL & ~RING_PACKED, ALL], ids=["split", "packed"])


@packed_or_not
def test_descriptors_of_no_length(boards: list[Board], features: int) -> None:
    """They are nothing: alone a chain without bytes, among others as if they were not there, wherever they point."""
    device = Keeper()
    ring = start(boards, device, features)
    ring.add([(BUFFERS_AT, 0, False)])
    ring.add([(1 << 63, 0, False), (BUFFERS_AT, 4, False), (RAM_BYTES, 0, False), (BUFFERS_AT + 64, 2, True)])
    ring.kick()
    nothing, chain = device.kept
    assert (nothing.readable_bytes, nothing.writable_bytes, nothing.read(), nothing.write(b"x")) == (0, 0, b"", 0)
    assert (chain.readable_bytes, chain.writable_bytes) == (4, 2)
    for each in device.kept:
        each.complete()
    assert len(ring.used()) == 2


@packed_or_not
@pytest.mark.parametrize("indirect", [False, True])
def test_buffers_over_a_hole(features: int, indirect: bool) -> None:
    """What reaches from memory into a hole, or over it, is no buffer; what reaches from memory into memory is one."""
    for second, fits in ((RAM_BYTES, True), (RAM_BYTES + 0x1000, False)):
        device = Shout()
        board = Board(device, [RamRange(0, RAM_BYTES), RamRange(second, RAM_BYTES)])
        try:
            assert negotiate(board, features_of(board) if features == ALL else features | 1 << 32)
            ring = set_up_queue(board, 0, features=features)
            board.write(STATUS, 0xF)
            board.memory.write(RAM_BYTES - 4, b"abcd")
            ring.add([(RAM_BYTES - 4, 8, False), (BUFFERS_AT, 8, True)], 0x70000 if indirect else None)
            ring.kick()
            assert bool(board.read(STATUS) & NEEDS_RESET) is not fits
            assert board.memory.read(BUFFERS_AT, 4) == (b"ABCD" if fits else bytes(4))
        finally:
            board.close()


@packed_or_not
@pytest.mark.parametrize("place", ["descriptors", "driver area", "device area"])
def test_buffers_over_the_ring_itself(boards: list[Board], features: int, place: str) -> None:
    """A device that writes its answer over its own ring hurts nobody but this driver, and a reset mends that."""
    device = Shout()
    ring = start(boards, device, features)
    at = {"descriptors": ring.at, "driver area": ring.avail_at, "device area": ring.used_at}[place]
    for filling in (b"\xff", b"\0", b"\x80", b"\1"):
        ring.board.memory.write(BUFFERS_AT, filling * 256)
        ring.add([(BUFFERS_AT, 256, False), (at, 256, True)])
        ring.kick()
        assert negotiate(ring.board, features | 1 << 32)
        ring = set_up_queue(ring.board, 0, features=features)
        ring.board.write(STATUS, 0xF)
        assert ask(ring, b"again") == b"AGAIN"


@pytest.mark.parametrize("count", [4, 5, 1024])
def test_a_chain_of_gibibytes(count: int) -> None:
    """One buffer named again and again: up to 4 GiB a chain is one, in an indirect table too, and costs no memory."""
    device = Keeper(1024)
    board = Board(device, [RamRange(0, 1 << 30)])
    try:
        assert negotiate(board, features_of(board) & ~RING_PACKED)
        ring = set_up_queue(board, 0, features=ALL & ~RING_PACKED)
        board.write(STATUS, 0xF)
        ring.add([(0, (1 << 30) - 4096, True)] * count, 0x100000)
        ring.kick()
        assert bool(board.read(STATUS) & NEEDS_RESET) is (count > 4)
        assert [chain.writable_bytes for chain in device.kept] == ([4 * ((1 << 30) - 4096)] if count == 4 else [])
    finally:
        board.close()


async def test_a_driver_that_offers_all_it_has_and_takes_nothing_back(tmp_path: Path) -> None:
    """The ring full of requests for the same memory, again and again, without a look at what came back."""
    path = tmp_path / "image"
    path.write_bytes(b"s" * 512 * 256)
    async with disk(path, queue_size=64) as d:
        ring = d.rings[0]
        for _ in range(40):
            numbers = [d.put(READ, n, room=512)[0] for n in range(64)]
            ring.kick()
            await d.until(lambda: (ring.idx - ring.get(ring.used_at + 2, "H")[0]) & 0xFFFF == 0)
            ring.free += [slot for number in numbers for slot in ring.chains.pop(number)]
        ring.seen = ring.idx
        assert await d.ask(FLUSH, 0) == (OK, b"")


@pytest.mark.parametrize("own", ["status", "data", "rings"])
async def test_a_device_s_own_registers_are_no_memory(tmp_path: Path, own: str) -> None:
    """A disk told to read into its own registers, or to have its rings there, needs a reset and touches none."""
    path = tmp_path / "image"
    path.write_bytes(bytes(MIB))
    machine = Machine(
        MachineConfig(
            machine=MachineOptions("microvm", {}),
            accel=(AccelOptions("qtest"),),
            drives=(OptionGroup("drive", None, "d", {"file": str(path), "format": "raw", "if": "none"}),),
            devices=(DeviceOptions("virtio-blk-device", "b", "virtio-mmio-bus.0", None, {"drive": "d"}),),
        )
    )
    await machine.open()
    try:
        await machine.start()
        bus, memory = machine.native.router, machine.memory

        def write(offset: int, value: int) -> None:
            bus.write(MMIO, SLOT + offset, 4, value)

        rings = SLOT if own == "rings" else RINGS_AT
        data, status = (SLOT if own == word else BUFFERS_AT for word in ("data", "status"))
        for n, (at, size, flags) in enumerate(((BUFFERS_AT, 16, 1), (data, 512, 3), (status, 1, 2))):
            memory.write(RINGS_AT + 16 * n, struct.pack("<QIHH", at, size, flags, n + 1))
        memory.write(RINGS_AT + 0x1000, struct.pack("<HHH", 0, 1, 0))
        for offset, value in ((0x70, 0), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x38, 8), (0x80, rings)):
            write(offset, value)
        for offset, value in ((0x90, RINGS_AT + 0x1000), (0xA0, RINGS_AT + 0x2000), (0x44, 1), (0x70, 15), (NOTIFY, 0)):
            write(offset, value)
        async with asyncio.timeout(20):
            while not bus.read(MMIO, SLOT + STATUS, 4) & NEEDS_RESET:
                await asyncio.sleep(0)
        assert bus.read(MMIO, SLOT, 4) == 0x74726976
        write(STATUS, 0)
        assert bus.read(MMIO, SLOT + STATUS, 4) == 0
    finally:
        machine.close()


async def test_a_disk_s_request_that_goes_over_the_ring(tmp_path: Path) -> None:
    """Data read over the ring and header in the ring: the host is as it was, and the next driver is served."""
    path = tmp_path / "image"
    path.write_bytes(b"\x55" * MIB)
    async with disk(path) as d:
        for at in (d.rings[0].at, d.rings[0].avail_at, d.rings[0].used_at):
            for write in (False, True):
                header = d.take(16)
                d.board.memory.write(header, struct.pack("<IIQ", WRITE if write else READ, 0, 8))
                d.rings[0].add([(header, 16, False), (at, 512, not write), (d.take(1), 1, True)])
                d.rings[0].kick()
                for _ in range(3):
                    d.device.notified()
                d.board.write(STATUS, 0)
                d.again()
        assert (await d.ask(READ, 2047, room=512)) == (OK, b"\x55" * 512)


def test_nothing_comes_out_of_a_queue_that_is_not_there(boards: list[Board]) -> None:
    """Popping before the driver is ready, after a reset, and ringing for queues that are off, or far out."""
    device = Keeper()
    board, [ring] = drive(device, 0)
    boards.append(board)
    ring.add([(BUFFERS_AT, 1, False)])
    board.write(STATUS, 0)
    for queue in (0, 1, 63, 64, 0x7FFFFFFF, 0xFFFFFFFF):
        board.write(NOTIFY, queue)
    device.notified()
    assert device.queues[0].pop() is None
    assert negotiate(board, 1 << 32)
    board.write(STATUS, 0xF)
    board.write(NOTIFY, 0)
    device.notified()
    assert device.queues[0].pop() is None
    assert not device.kept
