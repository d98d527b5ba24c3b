"""Virtio devices of the program, on a machine: what they raise, hold, leave undone and are asked meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioemu.bus.virtqueue import Chain, Queue
from aioemu.bus.wires import MMIO
from aioemu.config import MachineConfig, MachineOptions
from aioemu.config.model import AccelOptions
from aioemu.devices.virtio.device import VERSION_1, VirtioDevice
from aioemu.machine.machine import Machine
from tests.devices.virtio.driver import BUFFERS_AT, NEEDS_RESET, STATUS, Ring, negotiate, set_up_queue

SLOT = 0xFEB00000
LIMIT_S = 20.0


class Guest:
    """The driver of a device in the first slot of a microvm."""

    def __init__(self, machine: Machine, device: VirtioDevice) -> None:
        self.machine = machine
        self.memory: Any = machine.memory
        self.device = device

    def read(self, offset: int) -> int:
        return self.machine.native.router.read(MMIO, SLOT + offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.machine.native.router.write(MMIO, SLOT + offset, 4, value)

    def start(self) -> Ring:
        """Reset the device and drive its queue."""
        board: Any = self
        assert negotiate(board, VERSION_1)
        ring = set_up_queue(board, 0)
        self.write(STATUS, 0xF)
        return ring

    def offer(self, ring: Ring, count: int = 1) -> None:
        for n in range(count):
            ring.add([(BUFFERS_AT + n, 1, False), (BUFFERS_AT + 64 + n, 1, True)])
        self.write(0x50, 0)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not is_so():
                await asyncio.sleep(0)

    async def served(self, ring: Ring, count: int = 1) -> None:
        await self.until(lambda: ring.get(ring.used_at + 2, "H")[0] == count)

    def broken(self) -> bool:
        return bool(self.read(STATUS) & NEEDS_RESET)


@asynccontextmanager
async def guest_of(device: VirtioDevice) -> AsyncIterator[Guest]:
    machine = Machine(MachineConfig(machine=MachineOptions("microvm", {}), accel=(AccelOptions("qtest"),)))
    machine.own_devices = {"own": device}
    await machine.open()
    try:
        await machine.start()
        yield Guest(machine, device)
    finally:
        machine.close()


class Served(VirtioDevice):
    """Answers each chain by a coroutine of the test."""

    device_id = 0x2A

    def __init__(self, serve: Callable[[Chain], Any]) -> None:
        super().__init__([16])
        self.serve = serve
        self.entered = 0
        self.ended: list[str] = []

    async def run(self) -> None:
        self.entered += 1
        try:
            async for chain in self.queues[0]:
                await self.serve(chain)
        except BaseException as exc:
            self.ended.append(type(exc).__name__)
            raise


def complete(chain: Chain) -> None:
    chain.write(chain.read())
    chain.complete()


async def test_an_exception_stops_the_device_until_its_driver_resets_it() -> None:
    """The machine goes on and says which device and why; after the reset the device's coroutine runs again."""
    mistakes = [ValueError("of its author"), RuntimeError("another")]

    async def serve(chain: Chain) -> None:
        if mistakes:
            raise mistakes.pop()
        complete(chain)

    device = Served(serve)
    async with guest_of(device) as guest:
        for told in (1, 2):
            guest.offer(guest.start())
            await guest.until(guest.broken)
            errors = [event.fields for event in guest.machine.log.events or () if event.name == "device-error"]
            assert len(errors) == told
            assert errors[-1]["device"] == "own"
        ring = guest.start()
        guest.offer(ring, 3)
        await guest.served(ring, 3)
        assert not guest.broken()
        assert device.entered == 3
    await asyncio.sleep(0)
    assert device.ended == ["RuntimeError", "ValueError", "CancelledError"]


async def test_an_exception_in_a_call_stops_the_device_too() -> None:
    """`kicked` is asked by the bus: what it raises does not reach the guest's processor or the loop."""

    class Clumsy(VirtioDevice):
        device_id = 0x2A
        clumsy = True

        def kicked(self, queue: Queue) -> None:
            while (chain := queue.pop()) is not None:
                if self.clumsy:
                    raise KeyError("what is not there")
                complete(chain)

    device = Clumsy([16])
    async with guest_of(device) as guest:
        guest.offer(guest.start())
        await guest.until(guest.broken)
        device.clumsy = False
        ring = guest.start()
        guest.offer(ring)
        await guest.served(ring)


async def test_a_chain_given_back_twice_is_a_mistake() -> None:
    """It is told to the device, and the driver sees it once."""

    async def serve(chain: Chain) -> None:
        complete(chain)
        chain.complete()

    async with guest_of(Served(serve)) as guest:
        ring = guest.start()
        guest.offer(ring)
        await guest.until(guest.broken)
        assert len(ring.used()) == 1


async def test_a_slow_device_holds_one_chain_at_a_time() -> None:
    """Back-pressure: what it has not taken stays in the guest's ring, and comes in order."""
    gate = asyncio.Semaphore(0)
    seen: list[bytes] = []

    async def serve(chain: Chain) -> None:
        seen.append(chain.read())
        await gate.acquire()
        complete(chain)

    device = Served(serve)
    async with guest_of(device) as guest:
        ring = guest.start()
        guest.memory.write(BUFFERS_AT, b"abcdefgh")
        guest.offer(ring, 8)
        for n in range(8):
            await guest.until(lambda at=n: len(seen) == at + 1)  # type: ignore[misc]
            assert len(device.queues[0].in_flight()) == 1
            gate.release()
        await guest.served(ring, 8)
        assert b"".join(seen) == b"abcdefgh"
        assert guest.memory.read(BUFFERS_AT + 64, 8) == b"abcdefgh"


async def test_a_reset_while_the_device_waits() -> None:
    """The chain that it holds is void, what it does with it reaches nobody, and the next driver's chains come."""
    gate = asyncio.Event()
    held: list[Chain] = []

    async def serve(chain: Chain) -> None:
        held.append(chain)
        await gate.wait()
        complete(chain)

    async with guest_of(Served(serve)) as guest:
        guest.offer(guest.start(), 2)
        await guest.until(lambda: len(held) == 1)
        ring = guest.start()
        guest.memory.write(BUFFERS_AT + 64, b"\x55\x55")
        gate.set()
        await guest.until(lambda: held[0].completed)
        assert ring.used() == []
        assert guest.memory.read(BUFFERS_AT + 64, 2) == b"\x55\x55"
        guest.offer(ring)
        await guest.served(ring)
        assert len(held) == 2


async def test_many_at_once_and_cancelled() -> None:
    """Chains given to tasks of their own come back in any order; those that the machine's end finds are let go."""
    gates = [asyncio.Event() for _ in range(4)]

    class Parallel(VirtioDevice):
        device_id = 0x2A
        cancelled = 0

        async def run(self) -> None:
            async with asyncio.TaskGroup() as group:
                async for chain in self.queues[0]:
                    group.create_task(self.one(chain))

        async def one(self, chain: Chain) -> None:
            try:
                await gates[chain.read()[0]].wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            complete(chain)

    device = Parallel([16])
    async with guest_of(device) as guest:
        ring = guest.start()
        guest.memory.write(BUFFERS_AT, bytes(range(4)))
        guest.offer(ring, 4)
        for n in (2, 0):
            gates[n].set()
        await guest.served(ring, 2)
        assert guest.memory.read(BUFFERS_AT + 64, 4)[2] == 2
        assert len(device.queues[0].in_flight()) == 2
    await guest.until(lambda: device.cancelled == 2)


async def test_a_device_that_takes_all_and_returns_nothing() -> None:
    """The driver's ring is all that it can hold; nothing spins, and the machine ends."""
    held: list[Chain] = []

    async def serve(chain: Chain) -> None:
        held.append(chain)

    device = Served(serve)
    async with guest_of(device) as guest:
        ring = guest.start()
        ring.free = list(range(16)) * 4
        for _ in range(4):
            for n in range(16):
                ring.put(ring.at + 16 * n, "QIHH", BUFFERS_AT, 1, 0, 0)
                ring.put(ring.avail_at + 4 + 2 * (ring.idx % 16), "H", n)
                ring.idx += 1
            ring.put(ring.avail_at + 2, "H", min(ring.idx, 16))
            guest.write(0x50, 0)
        await guest.until(lambda: len(held) == 16)
        assert device.queues[0].pop() is None
        assert not guest.broken()


@pytest.mark.parametrize("when", ["started", "stopped", "config_written"])
async def test_an_exception_in_a_hook(when: str) -> None:
    """Whatever hook raises, the machine and its other registers go on."""

    class Hooked(Served):
        def started(self) -> None:
            if when == "started":
                raise ValueError(when)

        def stopped(self) -> None:
            if when == "stopped" and self.entered:
                raise ValueError(when)

        def config_written(self, offset: int, data: bytes) -> None:
            if when == "config_written":
                raise ValueError(when)

    async def serve(chain: Chain) -> None:
        complete(chain)

    device = Hooked(serve)
    async with guest_of(device) as guest:
        await guest.until(lambda: device.entered == 1)
        for _ in range(2):
            guest.write(STATUS, 0)
            guest.write(STATUS, 0xF)
            guest.write(0x100, 1)
            assert guest.read(0) == 0x74726976
        guest.machine.own_devices.clear()
