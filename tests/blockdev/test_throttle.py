"""Limits: the buckets' arithmetic on a clock of our own, turns between disks, and requests that wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from aioemu._core import lib
from aioemu.blockdev.backend import Backend
from aioemu.blockdev.graph import Graph
from aioemu.blockdev.throttle import FOREVER_NS, ThrottleGroup, ThrottleNode
from aioemu.errors import ConfigError

SECOND = 1_000_000_000
START = 1000 * SECOND


class Disk:
    """A member of a group that asks when we say."""

    def __init__(self, group: ThrottleGroup) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.member = lib.core_throttle_join_fd(group.ptr, self.fd)

    def take(self, size: int, at_s: float, *, write: bool = False) -> int:
        return int(lib.core_throttle_take(self.member, write, size, START + round(at_s * SECOND)))

    def served(self, size: int, seconds: float, *, write: bool = False) -> int:
        """How many requests go in that time, one after the other as soon as each may."""
        now, count = 0.0, 0
        while now < seconds:
            wait = self.take(size, now, write=write)
            if wait:
                now += wait / SECOND
            else:
                count += 1
        return count

    def rung(self) -> bool:
        try:
            return os.eventfd_read(self.fd) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        lib.core_throttle_leave(self.member)
        os.close(self.fd)


@pytest.fixture
def group() -> Iterator[ThrottleGroup]:
    group = ThrottleGroup("g")
    yield group
    group.close()


@pytest.mark.parametrize(
    ("limits", "size", "seconds", "expected"),
    [
        ({"iops-total": 100}, 4096, 10, 1010),  # the rate, and a tenth of a second's worth at first
        ({"bps-total": 1 << 20}, 1 << 16, 10, 160),
        ({"iops-read": 100}, 4096, 10, 1010),
        ({"iops-total": 100, "iops-size": 4096}, 16384, 10, 252),  # a large request counts as four
        ({"iops-total": 100, "iops-total-max": 1000}, 4096, 10, 2000),  # one second of burst
        ({"iops-total": 100, "iops-total-max": 200, "iops-total-max-length": 5}, 4096, 20, 3000),
    ],
)
def test_a_limit_is_kept(group: ThrottleGroup, limits: dict[str, int], size: int, seconds: int, expected: int) -> None:
    """Over some seconds as many requests go as the limits say, within one per cent and a few."""
    group.set(limits)
    disk = Disk(group)
    assert disk.served(size, seconds) == pytest.approx(expected, rel=0.01, abs=3)
    disk.close()


def test_a_burst_has_its_own_rate(group: ThrottleGroup) -> None:
    """While a burst lasts requests go at its rate, and not all at once."""
    group.set({"iops-total": 100, "iops-total-max": 500, "iops-total-max-length": 4})
    disk = Disk(group)
    assert disk.served(512, 1) == pytest.approx(550, abs=10)
    disk.close()


def test_reads_and_writes_have_their_own_limits(group: ThrottleGroup) -> None:
    """A limit on writes leaves reads alone; a total one counts both."""
    group.set({"iops-write": 10})
    disk = Disk(group)
    assert all(disk.take(512, 0) == 0 for _ in range(1000))
    assert disk.take(512, 0, write=True) == 0
    assert disk.take(512, 0, write=True) == 0
    assert disk.take(512, 0, write=True) > 0
    disk.close()


def test_a_request_larger_than_the_bucket_goes(group: ThrottleGroup) -> None:
    """It overflows the bucket and is paid for afterwards."""
    group.set({"bps-total": 1000})
    disk = Disk(group)
    assert disk.take(1_000_000, 0) == 0
    assert disk.take(1, 0) == pytest.approx(999.9 * SECOND, rel=0.001)
    disk.close()


def test_those_who_wait_take_turns(group: ThrottleGroup) -> None:
    """A disk that asks much gets no more than one that asks little; who leaves passes the turn on."""
    group.set({"iops-total": 10})
    greedy, modest = Disk(group), Disk(group)
    now, served = 0.0, {greedy: 0, modest: 0}
    while now < 20:
        for disk in (greedy, greedy, greedy, modest):
            served[disk] += disk.take(512, now) == 0
        now += 0.01
    assert served[greedy] == pytest.approx(served[modest], rel=0.05)
    assert served[greedy] + served[modest] == pytest.approx(201, abs=5)
    for disk in (greedy, modest):
        while (wait := disk.take(512, now)) == 0:
            pass
    first, second = (greedy, modest) if wait == FOREVER_NS else (modest, greedy)
    second.rung()
    first.close()
    assert second.rung()
    second.close()


def test_other_limits_wake_who_waits(group: ThrottleGroup) -> None:
    """Nobody sleeps on by a limit that is gone."""
    group.set({"iops-total": 1})
    disk = Disk(group)
    while disk.take(512, 0) == 0:
        pass
    group.set({})
    assert disk.rung()
    assert disk.take(512, 0) == 0
    disk.close()


@pytest.mark.parametrize(  # the texts of QEMU 10.0
    ("limits", "words"),
    [
        ({"iops-total": 1, "iops-read": 1}, "bps/iops/max total values and read/write values cannot be used"),
        ({"iops-total-max": 3}, "bps_max/iops_max require corresponding bps/iops values"),
        ({"iops-total": -1}, "bps/iops/max values must be within"),
        ({"bps-total": 10, "bps-total-max": 1}, "bps_max/iops_max cannot be lower than bps/iops"),
        ({"bps-total": 10, "bps-total-max": 20, "bps-total-max-length": 0}, "the burst length cannot be 0"),
        ({"bps-total": 10, "bps-total-max-length": 2}, "burst length set without burst rate"),
        ({"iops-size": 4096}, "iops size requires an iops value to be set"),
        ({"iops-total": "x"}, "Parameter 'throttling.iops-total' expects a number"),
        ({"iops": 1}, "is unexpected"),
    ],
)
def test_limits_that_contradict_each_other(group: ThrottleGroup, limits: dict[str, Any], words: str) -> None:
    """They are refused, and the old ones stay."""
    group.set({"iops-total": 7})
    with pytest.raises(ConfigError, match=words):
        group.set(limits)
    assert group.limits == {"iops-total": 7}


async def test_a_throttle_node_waits(graph: Graph) -> None:
    """Below another node each request waits for its turn; under a device the device asks."""
    group = graph.throttles.add("g", {"iops-total": 200})
    node = await graph.add(
        {"driver": "throttle", "node-name": "t", "throttle-group": "g", "file": {"driver": "null-co", "size": 1 << 20}}
    )
    assert isinstance(node, ThrottleNode)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(node.read(0, 512) for _ in range(61)))
    assert loop.time() - began == pytest.approx(0.2, abs=0.15)  # 21 at once, 40 at 200 in a second
    backend = Backend(graph, "d")
    backend.insert(node)
    assert backend.throttles == [group]
    assert group.users == ["t"]
    began = loop.time()
    for _ in range(50):
        await backend.read(0, 512)
    assert loop.time() - began < 0.2
    backend.eject()
    with pytest.raises(ConfigError, match="Throttle group 'none' does not exist"):
        await graph.add({"driver": "throttle", "node-name": "x", "throttle-group": "none", "file": "t"})


async def test_a_request_that_nobody_waits_for_gives_its_turn_away(graph: Graph) -> None:
    """Cancelling is possible at any time, and the next one goes."""
    graph.throttles.add("g", {"iops-total": 10})
    given = {"driver": "throttle", "throttle-group": "g", "file": {"driver": "null-co"}}
    one, two = [await graph.add({**given, "node-name": name}) for name in ("a", "b")]
    tasks = [asyncio.create_task(one.read(0, 512)) for _ in range(20)]
    await asyncio.sleep(0.05)  # time passes: some have gone, the rest waits
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(2):
        await two.read(0, 512)


async def test_drives_share_a_group(graph: Graph) -> None:
    """Limits of one are those of the other; a group goes with its last disk."""
    backends = [Backend(graph, name) for name in ("a", "b")]
    for backend in backends:
        backend.insert(await graph.open({"driver": "null-co"}))
        backend.set_limits("shared", {"bps-total": 1000})
    assert backends[0].throttles == backends[1].throttles
    backends[0].set_limits("shared", {"iops-read": 5, "iops-read-max": 10})
    assert backends[1].limits() == {
        "bps": 0,
        "bps_rd": 0,
        "bps_wr": 0,
        "iops": 0,
        "iops_rd": 5,
        "iops_wr": 0,
        "iops_rd_max": 10,
        "iops_rd_max_length": 1,
        "group": "shared",
    }
    backends[0].set_limits(None, {"iops-read": 0})
    assert backends[0].limits() == {}
    for backend in backends:
        node = backend.eject()
        assert node is not None
        await graph.release(node)
    with pytest.raises(ConfigError):
        graph.throttles.find("shared")
