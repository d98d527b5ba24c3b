"""A virtio driver in a few lines: sets a device up over virtio-mmio and works its rings, split or packed.

It can also misbehave: the rings' addresses are known, and tests write into them what no driver would.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aioemu._core import ffi, lib
from aioemu.bus.registers import access
from aioemu.devices.virtio.device import EVENT_IDX, RING_PACKED, VERSION_1, VirtioDevice
from aioemu.devices.virtio.mmio import VirtioMmio
from aioemu.memory.guest import GuestMemory
from aioemu.memory.ranges import RamRange

RAM_BYTES = 1 << 20
RINGS_AT, BUFFERS_AT = 0x10000, 0x80000
NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15
ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, NEEDS_RESET = 1, 2, 8, 4, 0x40
DEVICE_SEL, DEVICE_FEATURES, DRIVER_SEL, DRIVER_FEATURES = 0x14, 0x10, 0x24, 0x20
QUEUE_SEL, QUEUE_MAX, QUEUE_SIZE, QUEUE_READY, NOTIFY, ISR, ACK, STATUS = 0x30, 0x34, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70
DESC, AVAIL_AT, USED_AT = 0x80, 0x90, 0xA0


class Board:
    """A machine without a processor: memory, and one device on it."""

    def __init__(self, device: VirtioDevice, ram: Sequence[RamRange] = (RamRange(0, RAM_BYTES),)) -> None:
        self.machine = ffi.gc(lib.core_machine_new(1), lib.core_machine_free)
        lib.core_none_attach(self.machine)
        self.memory = GuestMemory(self.machine, ram)
        self.device = device
        self.mmio = VirtioMmio(device)
        assert lib.core_notify_bind(self.machine, device.chip, 1) == 0
        lib.core_chip_wire(device.chip, self.machine, 5)

    def read(self, offset: int) -> int:
        return access(self.mmio, offset, 4, False)

    def write(self, offset: int, value: int) -> None:
        access(self.mmio, offset, 4, True, value)

    def close(self) -> None:
        self.memory.close()


@dataclass
class Ring:
    """One queue as its driver sees it."""

    board: Board
    index: int
    size: int
    packed: bool
    event_idx: bool
    at: int
    free: list[int] = field(default_factory=list)
    chains: dict[int, list[int]] = field(default_factory=dict)
    idx: int = 0  # available so far (split) or place in the ring (packed)
    seen: int = 0
    wrap: bool = True
    seen_wrap: bool = True

    @property
    def avail_at(self) -> int:
        return self.at + 16 * self.size

    @property
    def used_at(self) -> int:
        return self.avail_at + 0x1000

    def put(self, address: int, layout: str, *values: int) -> None:
        self.board.memory.write(address, struct.pack("<" + layout, *values))

    def get(self, address: int, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.board.memory.read(address, struct.calcsize("<" + layout)))

    def want_interrupts(self, on: bool) -> None:
        if self.packed:
            self.put(self.avail_at, "HH", 0, 0 if on else 1)
        else:
            self.put(self.avail_at, "H", 0 if on else 1)

    def add(self, pieces: Sequence[tuple[int, int, bool]], table: int | None = None) -> int:
        """Offer a chain of (address, size, writable); `table`: as an indirect table there. Its id."""
        if table is not None:
            for n, (address, size, writable) in enumerate(pieces):
                flags = WRITE if writable else 0
                if self.packed:
                    self.put(table + 16 * n, "QIHH", address, size, 0, flags)
                else:
                    last = n + 1 == len(pieces)
                    self.put(table + 16 * n, "QIHH", address, size, flags | (0 if last else NEXT), 0 if last else n + 1)
            pieces = [(table, 16 * len(pieces), False)]
        indirect = INDIRECT if table is not None else 0
        return self._add_packed(pieces, indirect) if self.packed else self._add_split(pieces, indirect)

    def _add_split(self, pieces: Sequence[tuple[int, int, bool]], indirect: int) -> int:
        slots = [self.free.pop() for _ in pieces]
        for n, (address, size, writable) in enumerate(pieces):
            last = n + 1 == len(pieces)
            flags = (WRITE if writable else 0) | (0 if last else NEXT) | indirect
            self.put(self.at + 16 * slots[n], "QIHH", address, size, flags, 0 if last else slots[n + 1])
        self.put(self.avail_at + 4 + 2 * (self.idx % self.size), "H", slots[0])
        self.idx = (self.idx + 1) & 0xFFFF
        self.put(self.avail_at + 2, "H", self.idx)
        self.chains[slots[0]] = slots
        return slots[0]

    def _add_packed(self, pieces: Sequence[tuple[int, int, bool]], indirect: int) -> int:
        slots = [self.free.pop() for _ in pieces]
        number, first = slots[0], None
        for n, (address, size, writable) in enumerate(pieces):
            owner = AVAIL if self.wrap else USED
            flags = owner | (WRITE if writable else 0) | (NEXT if n + 1 < len(pieces) else 0) | indirect
            place = self.at + 16 * self.idx
            self.put(place, "QIH", address, size, number)
            if first is None:
                first = (place + 14, flags)
            else:
                self.put(place + 14, "H", flags)
            self.idx += 1
            if self.idx == self.size:
                self.idx, self.wrap = 0, not self.wrap
        assert first is not None
        self.put(first[0], "H", first[1])
        self.chains[number] = slots
        return number

    def kick(self) -> None:
        self.board.write(NOTIFY, self.index)
        self.board.device.notified()

    def used(self) -> list[tuple[int, int]]:
        """What came back since the last look: (id, bytes written)."""
        found = []
        while (element := self._next_used()) is not None:
            self.free += self.chains.pop(element[0])
            found.append(element)
        return found

    def _next_used(self) -> tuple[int, int] | None:
        if not self.packed:
            (idx,) = self.get(self.used_at + 2, "H")
            if idx == self.seen:
                return None
            number, size = self.get(self.used_at + 4 + 8 * (self.seen % self.size), "II")
            self.seen = (self.seen + 1) & 0xFFFF
            return number, size
        _, size, number, flags = self.get(self.at + 16 * self.seen, "QIHH")
        if not bool(flags & AVAIL) == bool(flags & USED) == self.seen_wrap:
            return None
        self.seen += len(self.chains[number])
        if self.seen >= self.size:
            self.seen, self.seen_wrap = self.seen - self.size, not self.seen_wrap
        return number, size if flags & WRITE else 0


def features_of(board: Board) -> int:
    bits = 0
    for half in (0, 1):
        board.write(DEVICE_SEL, half)
        bits |= board.read(DEVICE_FEATURES) << (32 * half)
    return bits


def negotiate(board: Board, features: int) -> bool:
    """Up to FEATURES_OK; whether the device took them."""
    board.write(STATUS, 0)
    board.write(STATUS, ACKNOWLEDGE)
    board.write(STATUS, ACKNOWLEDGE | DRIVER)
    for half in (0, 1):
        board.write(DRIVER_SEL, half)
        board.write(DRIVER_FEATURES, features >> (32 * half) & 0xFFFFFFFF)
    board.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK)
    return bool(board.read(STATUS) & FEATURES_OK)


def set_up_queue(board: Board, index: int, size: int = 0, *, at: int = 0, features: int = 0) -> Ring:
    board.write(QUEUE_SEL, index)
    size = size or board.read(QUEUE_MAX)
    ring = Ring(
        board, index, size, bool(features & RING_PACKED), bool(features & EVENT_IDX), at or RINGS_AT + index * 0x8000
    )
    ring.free = list(range(size))
    ring.board.memory.write(ring.at, bytes(16 * size))
    ring.board.memory.write(ring.avail_at, bytes(0x2000))
    board.write(QUEUE_SIZE, size)
    for register, address in ((DESC, ring.at), (AVAIL_AT, ring.avail_at), (USED_AT, ring.used_at)):
        board.write(register, address)
        board.write(register + 4, 0)
    board.write(QUEUE_READY, 1)
    return ring


def drive(
    device: VirtioDevice, features: int | None = None, *, size: int = 0, setup: Callable[[Board], None] | None = None
) -> tuple[Board, list[Ring]]:
    """A board on which a driver uses all queues of the device."""
    board = Board(device)
    accepted = features_of(board) if features is None else features | VERSION_1
    assert negotiate(board, accepted)
    rings = [set_up_queue(board, index, size, features=accepted) for index in range(len(device.queues))]
    if setup is not None:
        setup(board)
    board.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    return board, rings
