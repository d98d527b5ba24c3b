"""A lab: machines, links and captures live and end together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from pathlib import Path

import pytest

from aioemu import EmuError, Lab, Machine
from aioemu.errors import ConfigError
from aioemu.netdev.peer import Wire
from tests.netdev.namespaces import namespace

LIMIT_S = 10.0
QUIET = {"machine": "microvm", "accel": "qtest", "memory": "2M"}
FRAME = bytes(range(60))


class Keeper:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.wire: Wire | None = None

    def wired(self, wire: Wire) -> None:
        self.wire = wire

    def frame_received(self, frame: bytes) -> None:
        self.frames.append(frame)

    def send(self, frame: bytes) -> None:
        assert self.wire is not None
        self.wire.send(frame)


def footprint() -> tuple[int, int, int]:
    """Descriptors, threads and tasks of this process."""
    gc.collect()  # what other tests left goes now, not while this one counts
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(asyncio.all_tasks())


async def until(keeper: Keeper, count: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while len(keeper.frames) < count:
            await asyncio.sleep(0)


async def test_peers_over_links_and_a_switch() -> None:
    """Objects with `frame_received` are ends of links, directly and through a switch."""
    one, two, three = Keeper(), Keeper(), Keeper()
    async with Lab() as lab:
        switch = lab.switch()
        lab.link(one, switch)
        lab.link(two, switch)
        direct = lab.link(three, switch, "third", seed=5)
        await lab.start()
        await direct.a_to_b.impair(loss=1.0)
        three.send(b"\xff" * 12 + FRAME)
        one.send(b"\xff" * 6 + bytes([2] * 6) + FRAME)
        await until(two, 1)
        await until(three, 1)
        assert direct.a_to_b.stats.dropped == {"loss": 1}
    assert len(one.frames) == 0


async def test_nothing_is_left() -> None:
    """No descriptor, thread or task stays, whatever there was."""
    for _ in range(2):
        before = footprint()
        async with Lab() as lab:
            for index in range(3):
                lab.machine(f"m{index}", **QUIET)
            switch = lab.switch()
            for _ in range(10):
                lab.link(Keeper(), switch)
            await lab.start()
    assert footprint() == before


async def test_body_that_fails(tmp_path: Path) -> None:
    """An exception in the block ends everything, keeps its type and says how the machines were."""
    before = footprint()

    async def body() -> None:
        async with Lab() as lab:
            lab.machine("alpha", **QUIET)
            lab.link(Keeper(), lab.hub())
            lab.capture(tmp_path / "x.pcapng")
            await lab.start()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        await body()
    assert any("machine alpha" in note for note in caught.value.__notes__)
    assert footprint() == before
    assert (tmp_path / "x.pcapng").stat().st_size > 0


async def test_machine_that_cannot_be_built() -> None:
    """When one machine fails, the others are gone too."""
    before = footprint()

    async def body() -> None:
        async with Lab() as lab:
            lab.machine("good", **QUIET)
            lab.machine("bad", **QUIET, devices=["no-such-device"])
            await lab.start()

    with pytest.raises(ConfigError, match="no-such"):
        await body()
    assert footprint() == before


@pytest.mark.parametrize("turns", [0, 1, 3, 8, 21, 100])
async def test_a_start_that_is_cancelled(turns: int) -> None:
    """Wherever it is: what was made goes, nothing of it stays, and it is the cancellation that the caller sees."""
    before = footprint()

    async def body() -> None:
        async with Lab() as lab:
            switch = lab.switch()
            for name in "abc":
                vm = lab.machine(name, ready="login:", devices=["virtio-net-device"], **QUIET)
                lab.link(vm.nic[0], switch)
            lab.capture(None, *lab.links.values())
            await lab.start()

    task = asyncio.ensure_future(body())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, LIMIT_S)
    assert footprint() == before


async def test_what_is_no_end_of_a_link() -> None:
    """It is named, and no half-made link stays."""
    async with Lab() as lab:
        vm = lab.machine("a", **QUIET)
        for end in (vm, None, 5):
            with pytest.raises(EmuError, match=f"a {type(end).__name__} is no end of a link"):
                lab.link(Keeper(), end)  # type: ignore[arg-type]
        assert lab.links == {}


@pytest.mark.parametrize("turns", range(8))
async def test_an_end_that_is_cancelled(turns: int, tmp_path: Path) -> None:
    """Wherever it is: captures' files are closed and whole by the time that the cancellation goes on."""
    before = footprint()
    path = tmp_path / "c.pcapng"
    ending = asyncio.Event()

    async def body() -> None:
        async with Lab() as lab:
            lab.capture(path, lab.link(lab.hub(), lab.hub()))
            ending.set()

    task = asyncio.ensure_future(body())
    await ending.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):  # it may have been through already
        await asyncio.wait_for(task, LIMIT_S)
    assert footprint() == before
    assert path.stat().st_size > 0


async def test_a_machine_that_ends_takes_its_carrier_with_it() -> None:
    """The others see the cable go, and the lab goes on."""
    async with Lab() as lab:
        a = lab.machine("a", devices=["virtio-net-device"], **QUIET)
        b = lab.machine("b", devices=["virtio-net-device"], **QUIET)
        link = lab.link(a.nic[0], b.nic[0])
        await lab.start()
        ends = [b.nic[0].port.carrier]
        await a.quit()
        await asyncio.wait_for(a.wait(), LIMIT_S)
        ends.append(b.nic[0].port.carrier)
        assert ends == [True, False]
        await link.impair(delay_ms=1)


async def test_machines_become_ready_together() -> None:
    """All machines come up at once: waiting takes as long as the slowest, not as all of them."""
    order: list[str] = []
    gate = asyncio.Barrier(3)

    async def ready(vm: Machine) -> None:
        await gate.wait()  # nobody gets through before all wait here
        order.append(vm.machine.name)

    async with Lab() as lab:
        for name in "abc":
            lab.machine(name, ready=ready, **QUIET)
        await asyncio.wait_for(lab.start(), LIMIT_S)
    assert sorted(order) == ["a", "b", "c"]


async def test_machine_that_is_never_ready() -> None:
    """The one that is not ready in time is named, and leaving the block ends the others at once."""
    start = time.monotonic()

    async def body() -> None:
        async with Lab() as lab:
            lab.machine("quick", **QUIET)
            lab.machine("slow", ready="login:", **QUIET)
            await lab.start(timeout=0.05)

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert caught.group_contains(TimeoutError, match="slow was not ready")
    assert time.monotonic() - start < LIMIT_S


async def test_names_are_unique() -> None:
    """A second machine, link or switch of the same name is refused."""
    async with Lab() as lab:
        lab.machine("a", **QUIET)
        lab.link(Keeper(), Keeper(), "x")
        lab.switch("s")
        for again in (
            lambda: lab.machine("a", **QUIET),
            lambda: lab.link(Keeper(), Keeper(), "x"),
            lambda: lab.switch("s"),
        ):
            with pytest.raises(EmuError, match="called"):
                again()


async def test_events_of_the_links() -> None:
    """What is done to links is in the lab's event log, with the link's name."""
    async with Lab() as lab:
        link = lab.link(Keeper(), Keeper(), "x")
        await link.down()
        await link.up()
        await link.impair(delay_ms=1)
    told = [(event.name, event.fields["link"]) for event in lab.events]
    assert told[:2] == [("link-down", "x"), ("link-up", "x")]
    assert ("link-impaired", "x") in told


async def test_cards_before_and_after_they_are_built() -> None:
    """Cards are linked by number before their machine is built; the lab gives each an address of its own."""
    async with Lab() as lab:
        a, b = (lab.machine(name, **QUIET, devices=["virtio-net-device"]) for name in "ab")
        link = lab.link(a.nic[0], b.nic[0], "a-b")
        assert not link.a.is_up
        await lab.start()
        assert len({a.nic[0].mac, b.nic[0].mac}) == 2
        assert a.machine.links == {"a-b": link}
        card = a.nic[0]
        assert card.link_up
        await link.down()
        assert (a.nic[0].link_up, b.nic[0].link_up) == (False, False)
        await link.up()
        await b.quit()
        assert (a.nic[0].link_up, b.nic[0].link_up) == (False, True)
    assert card.stats.sent.frames == 0  # what was counted can still be read


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")
async def test_link_that_ends_in_a_tap() -> None:
    """A tap is the end of a link: impaired, cut, and gone with the lab."""
    keeper = Keeper()
    frame = b"\xff" * 6 + bytes([2] * 6) + b"\x88\xb5" + bytes(50)
    with namespace() as netns:
        async with Lab() as lab:
            tap = await lab.netdev("tap", ifname="lab0", netns=netns.name)
            link = lab.link(keeper, tap)
            with netns.packet_socket("lab0") as host:
                host.setblocking(False)
                keeper.send(frame)
                async with asyncio.timeout(LIMIT_S):  # the host speaks on its own, too
                    while await asyncio.get_running_loop().sock_recv(host, 2000) != frame:
                        pass
                await link.b_to_a.impair(delay_ms=5)
                host.send(frame)
                async with asyncio.timeout(LIMIT_S):
                    while frame not in keeper.frames:
                        await asyncio.sleep(0)
                await link.down()
                assert keeper.wire is not None
                assert not keeper.wire.carrier
        assert "lab0" not in netns.links()


async def test_card_that_there_is_not() -> None:
    """A number that the machine has no card for is refused when it is built."""

    async def body() -> None:
        async with Lab() as lab:
            lab.link(lab.machine("a", **QUIET).nic[0], Keeper())
            await lab.start()

    with pytest.raises(EmuError, match="0 network cards"):
        await body()


async def test_many_machines() -> None:
    """100 machines and 300 links come and go in one process without a trace."""
    async with Lab() as lab:
        lab.machine("warm", **QUIET, devices=["virtio-net-device"])
        await lab.start()
    before = footprint()
    start = time.monotonic()
    async with Lab() as lab:
        machines = [lab.machine(f"m{n}", **QUIET, devices=["virtio-net-device"] * 6) for n in range(100)]
        for index in range(300):
            one, other = machines[index % 100], machines[(index * 7 + 1) % 100]
            lab.link(one.nic[index // 100], other.nic[3 + index // 100])
        await lab.start()
        for link in lab.links.values():
            await link.impair(delay_ms=1)
        assert all(nic.link_up for vm in machines for nic in vm.nic)
    assert footprint() == before
    assert time.monotonic() - start < 6 * LIMIT_S


async def test_many_links() -> None:
    """300 impaired links come and go in one process, quickly and without a trace."""
    async with Lab() as lab:
        lab.link(Keeper(), Keeper())
    before = footprint()
    start = time.monotonic()
    async with Lab() as lab:
        switch = lab.switch()
        keepers = [Keeper() for _ in range(300)]
        for keeper in keepers:
            await lab.link(keeper, switch).impair(delay_ms=1, jitter_ms=0.5)
        keepers[0].send(b"\xff" * 6 + bytes([2] * 6) + FRAME)
        for keeper in keepers[1:]:
            await until(keeper, 1)
    assert footprint() == before
    assert time.monotonic() - start < LIMIT_S
