"""Limits on a disk under a driver: kept natively, whatever has to ask Python, and changed while requests wait."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.throttle import ThrottleNode
from tests.devices.virtio.disks import OK, READ, WRITE, Disk, disk
from tests.devices.virtio.driver import STATUS

every_thread = pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])
NULL = {"driver": "null-co", "size": 1 << 20}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(1 << 20))
    return path


async def timed(d: Disk, kind: int, count: int, size: int = 512) -> float:
    """How long it takes until that many requests, offered at once, are done."""
    data, room = (bytes(size), 0) if kind == WRITE else (b"", size)
    loop = asyncio.get_running_loop()
    began = loop.time()
    offered = [d.put(kind, n, data, room) for n in range(count)]
    d.rings[0].kick()
    for number, writable, room in offered:
        await d.wait(number)
        assert d.back(writable, room)[0] == OK
    return loop.time() - began


@every_thread
async def test_a_rate_is_kept(image: Path, thread: bool) -> None:
    """Requests wait in order for their turn; those of a kind without a limit do not."""
    async with disk(image, thread=thread) as d:
        d.device.backend.set_limits(None, {"iops-write": 100})
        assert await timed(d, READ, 60) < 0.25
        assert 0.25 < await timed(d, WRITE, 51) < 1.0  # 11 at once, 40 at 100 in a second
        figures = d.device.backend.figures()
        assert (figures["rd_operations"], figures["wr_operations"], figures["wr_bytes"]) == (60, 51, 51 * 512)


@every_thread
async def test_bytes_are_counted(image: Path, thread: bool) -> None:
    """A limit on bytes counts what is transferred."""
    async with disk(image, thread=thread) as d:
        d.device.backend.set_limits(None, {"bps-total": 1 << 18})
        assert 0.25 < await timed(d, READ, 20, 8192) < 1.5


@every_thread
@pytest.mark.parametrize("below", ["file", "null"])
async def test_a_throttle_node_on_top(image: Path, thread: bool, below: str) -> None:
    """The device keeps its limits, also where each request has to ask Python; limits of the drive hold too."""
    node: dict[str, Any] = NULL if below == "null" else {"driver": "file", "filename": str(image)}

    async with disk({"driver": "raw", "file": node}, thread=thread) as d:
        graph = d.device.backend.graph
        group = graph.throttles.add("g", {"iops-total": 100})
        top = await graph.open({"driver": "throttle", "throttle-group": "g", "file": "n"})
        backend = d.device.backend
        device, backend.device = backend.device, None
        backend.eject()
        backend.insert(top)
        backend.device = device
        d.device.engine.refresh()
        assert isinstance(top, ThrottleNode)
        assert backend.throttles == [group]
        assert 0.25 < await timed(d, READ, 51) < 1.0
        backend.set_limits("own", {"iops-total": 50})
        assert 0.35 < await timed(d, READ, 26) < 1.5
        backend.set_limits(None, {})


async def test_limits_that_go_let_everything_go(image: Path) -> None:
    """Requests that would wait for minutes are done at once; a reset forgets those that wait."""
    async with disk(image) as d:
        backend = d.device.backend
        backend.set_limits(None, {"iops-total": 1})
        waiting = asyncio.create_task(timed(d, WRITE, 40))
        await asyncio.sleep(0.05)  # time passes: they wait
        assert not waiting.done()
        backend.set_limits(None, {})
        assert await waiting < 2
        backend.set_limits(None, {"iops-total": 1})
        offered = [d.put(READ, n, room=512) for n in range(10)]
        d.rings[0].kick()
        d.board.write(STATUS, 0)
        d.again()
        backend.set_limits(None, {"iops-total": 1000})
        assert await timed(d, READ, 20) < 1
        assert len(offered) == 10


async def test_a_machine_that_stands_still_serves_nothing(image: Path) -> None:
    """What waits by its limits goes on waiting until the machine goes on."""
    async with disk(image) as d:
        d.device.backend.set_limits(None, {"iops-total": 50})
        waiting = asyncio.create_task(timed(d, WRITE, 20))
        await asyncio.sleep(0.02)  # time passes: some are done
        d.device.engine.hold()
        before = d.device.backend.figures()["wr_operations"]
        await asyncio.sleep(0.2)  # time passes: nothing happens in it
        assert d.device.backend.figures()["wr_operations"] == before < 20
        d.device.engine.go_on()
        assert await waiting < 2
