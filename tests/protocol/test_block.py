"""Commands about disks, on a machine with real images; members and texts are those of QEMU 10.0."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.cli.command_line import read_command_line
from aioemu.errors import MonitorError
from aioemu.machine.machine import Machine
from aioemu.protocol.hmp.interpreter import Interpreter
from aioemu.protocol.hub import LocalCaller, MonitorHub

MIB = 1 << 20
BLOCK_MEMBERS = {"device", "type", "removable", "locked", "inserted"}
NODE_MEMBERS = set(
    """file node-name ro drv backing_file_depth active encrypted detect_zeroes bps bps_rd bps_wr iops iops_rd iops_wr
    image cache write_threshold""".split()
)


class Desk:
    """A machine and its monitor."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.hub = MonitorHub(machine)
        self.monitor = Interpreter(LocalCaller(self.hub))
        self.events: list[dict[str, Any]] = []
        self.hub.listeners.append(self.events.append)

    async def qmp(self, name: str, **arguments: Any) -> Any:
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        return await self.hub.execute(name, given)

    async def refused(self, name: str, **arguments: Any) -> str:
        with pytest.raises(MonitorError) as caught:
            await self.qmp(name, **arguments)
        return str(caught.value)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(MIB))
    return path


@pytest.fixture
async def desk(image: Path) -> AsyncIterator[Desk]:
    words = ["-machine", "none", "-S", "-blockdev", f"file,node-name=f,filename={image}"]
    words += ["-drive", f"file={image},if=none,id=d,format=raw,file.locking=off,cache=unsafe", "-drive", "if=none,id=e"]
    machine = Machine(read_command_line(words)[0])
    await machine.open()
    yield Desk(machine)
    machine.close()


async def test_drives_are_listed(desk: Desk, image: Path) -> None:
    """query-block has the members that clients read, and an empty drive has no medium."""
    full, empty = await desk.qmp("query-block")
    assert set(full) == BLOCK_MEMBERS
    assert set(full["inserted"]) == NODE_MEMBERS
    assert full["inserted"]["cache"] == {"writeback": True, "direct": False, "no-flush": True}
    told = full["inserted"]["image"]
    assert (told["filename"], told["format"], told["virtual-size"]) == (str(image), "raw", MIB)
    assert told["actual-size"] == image.stat().st_blocks * 512
    assert empty == {"device": "e", "type": "unknown", "removable": True, "locked": False}


async def test_nodes_come_and_go(desk: Desk) -> None:
    """blockdev-add, query-named-block-nodes, blockdev-del; who is in use stays."""
    await desk.qmp("blockdev-add", driver="raw", node_name="r", file="f", size=512)
    nodes = await desk.qmp("query-named-block-nodes", flat=True)
    assert nodes[0]["node-name"] == "r"
    assert {each["drv"] for each in nodes} == {"raw", "file"}
    assert await desk.refused("blockdev-del", node_name="f") == "Block device f is in use"
    await desk.qmp("blockdev-del", node_name="r")
    await desk.qmp("blockdev-del", node_name="f")
    assert await desk.refused("blockdev-del", node_name="f") == "Failed to find node with node-name='f'"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"driver": "nope", "node_name": "x"}, "Parameter 'driver' does not accept value 'nope'"),
        ({"driver": "raw", "file": "f"}, "'node-name' must be specified for the root node"),
        (
            {"driver": "raw", "node_name": "x", "file": "f", "offset": "1M"},
            "Invalid parameter type for 'offset', expected: integer",
        ),
        ({"driver": "raw", "node_name": "x", "file": {"driver": "file"}}, "Parameter 'file.filename' is missing"),
        (
            {"driver": "raw", "node_name": "x", "file": {"driver": "file", "filename": "y", "read-only": "on"}},
            "Invalid parameter type for 'file.read-only', expected: boolean",
        ),
        ({"node_name": "x"}, "Parameter 'driver' is missing"),
    ],
)
async def test_a_node_that_cannot_be(desk: Desk, given: dict[str, Any], words: str) -> None:
    """Values have JSON's types here, at every depth."""
    assert (await desk.refused("blockdev-add", **given)).startswith(words)


async def test_a_node_is_reopened(desk: Desk, image: Path) -> None:
    """Options change while the node is in use; what is left out goes back to its default."""
    given = {"driver": "file", "node-name": "f", "filename": str(image)}
    await desk.qmp("blockdev-reopen", options=[{**given, "read-only": True, "cache": {"no-flush": True}}])
    (node,) = [each for each in await desk.qmp("query-named-block-nodes") if each["node-name"] == "f"]
    assert node["ro"] is True
    assert node["cache"]["no-flush"] is True
    assert await desk.refused("block_resize", **{"node-name": "f", "size": 2 * MIB}) == "Image is read-only"
    await desk.qmp("blockdev-reopen", options=[given])
    await desk.qmp("block_resize", **{"node-name": "f", "size": 2 * MIB})
    for change, words in (
        ({"filename": "/other"}, "Cannot change the option 'filename'"),
        ({"node-name": "zz"}, "Failed to find node with node-name='zz'"),
        ({"driver": "raw", "file": "f"}, "Cannot change the option 'driver'"),
    ):
        assert await desk.refused("blockdev-reopen", options=[{**given, **change}]) == words


async def test_sizes_change(desk: Desk, image: Path) -> None:
    """By drive or by node, in bytes; a device of a machine is no drive."""
    await desk.qmp("block_resize", device="d", size=2 * MIB)
    assert image.stat().st_size == 2 * MIB
    assert (await desk.qmp("query-block"))[0]["inserted"]["image"]["virtual-size"] == 2 * MIB
    assert await desk.refused("block_resize", device="e", size=1) == "Device 'e' has no medium"
    assert await desk.refused("block_resize", size=1) == "Cannot find device='' nor node-name=''"
    assert await desk.refused("block_resize", device="d", size=-1) == "Parameter 'size' expects a >0 size"


async def test_figures_have_every_member(desk: Desk) -> None:
    """query-blockstats by device and by node."""
    full, empty = await desk.qmp("query-blockstats")
    assert (full["device"], full["stats"]["rd_bytes"], full["stats"]["timed_stats"]) == ("d", 0, [])
    assert full["parent"]["stats"]["account_failed"] is False
    assert "node-name" not in empty
    assert {each["node-name"] for each in await desk.qmp("query-blockstats", query_nodes=True)} >= {"f"}


async def test_an_image_is_made_as_a_job(desk: Desk, tmp_path: Path) -> None:
    """The states come in order, the result stays until it is dismissed."""
    path = tmp_path / "new.img"
    given = {"driver": "file", "filename": str(path), "size": 65536, "preallocation": "falloc"}
    await desk.qmp("blockdev-create", job_id="j", options=given)
    states = await _states(desk, "j")
    assert states == ["created", "running", "waiting", "pending", "concluded"]
    assert path.stat().st_size == 65536
    (job,) = await desk.qmp("query-jobs")
    assert job == {"id": "j", "type": "create", "status": "concluded", "current-progress": 1, "total-progress": 1}
    assert await desk.refused("blockdev-create", job_id="j", options=given) == "Job ID 'j' already in use"
    await desk.qmp("job-dismiss", id="j")
    assert await desk.refused("job-dismiss", id="j") == "Job not found"


async def test_a_job_that_fails_says_why(desk: Desk, tmp_path: Path) -> None:
    """It aborts and concludes with the reason; the reply came before."""
    given = {"driver": "file", "filename": f"{tmp_path}/none/x", "size": 1}
    await desk.qmp("blockdev-create", job_id="j", options=given)
    assert await _states(desk, "j") == ["created", "running", "aborting", "concluded"]
    (job,) = await desk.qmp("query-jobs")
    assert job["error"] == f"Could not create '{tmp_path}/none/x': No such file or directory"
    assert await desk.refused("blockdev-create", job_id="2j", options=given) == "Invalid job ID '2j'"
    raw = {"driver": "raw", "file": "f"}
    assert await desk.refused("blockdev-create", job_id="k", options=raw) == "Driver does not support blockdev-create"


async def test_a_job_that_is_cancelled(desk: Desk) -> None:
    """It lets go and concludes; cancelling it again is a mistake."""

    async def forever(job: Any) -> None:
        await asyncio.Event().wait()

    desk.machine.drives.jobs.start("j", "create", forever)
    await desk.qmp("job-cancel", id="j")
    assert await _states(desk, "j") == ["created", "running", "aborting", "concluded"]
    assert (await desk.qmp("query-jobs"))[0]["error"] == "Operation canceled"
    assert "cannot accept command verb 'cancel'" in await desk.refused("job-cancel", id="j")


async def test_limits_are_set_and_told(desk: Desk) -> None:
    """block_set_io_throttle and a throttle-group object; limits that contradict each other are refused."""
    none = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)

    async def limit(**given: Any) -> Any:
        return await desk.hub.execute("block_set_io_throttle", {**none, **given})

    await limit(device="d", bps_rd=1000, iops=5, iops_max=10, iops_max_length=2, group="g")
    told = (await desk.qmp("query-block"))[0]["inserted"]
    assert {name: told[name] for name in ("bps_rd", "iops", "iops_max", "iops_max_length", "group")} == {
        "bps_rd": 1000,
        "iops": 5,
        "iops_max": 10,
        "iops_max_length": 2,
        "group": "g",
    }
    assert "iops=5 iops_rd=0" in await desk.monitor.run("info block d")
    await limit(device="d")
    assert "group" not in (await desk.qmp("query-block"))[0]["inserted"]
    for given, words in (
        ({"device": "zz"}, "Device 'zz' not found"),
        ({"device": "e"}, "Device has no medium"),
        ({}, "Need exactly one of 'device' and 'id'"),
        ({"device": "d", "bps": 1, "bps_rd": 1}, "bps/iops/max total values and read/write values cannot be used"),
    ):
        with pytest.raises(MonitorError, match=words):
            await limit(**given)
    await desk.qmp("object-add", qom_type="throttle-group", id="tg", limits={"iops-total": 10})
    await desk.qmp("blockdev-add", driver="throttle", node_name="t", throttle_group="tg", file="f")
    await desk.qmp("qom-set", path="/objects/tg", property="x-iops-total-max", value=100)
    told = await desk.qmp("qom-get", path="/objects/tg", property="limits")
    assert (told["iops-total"], told["iops-total-max"], told["bps-total"]) == (10, 100, 0)
    assert "is in use" in await desk.refused("object-del", id="tg")
    await desk.qmp("blockdev-del", node_name="t")
    await desk.qmp("object-del", id="tg")


async def test_people_read_it(desk: Desk, image: Path) -> None:
    """info block and info blockstats in the layout that tools scrape."""
    text = await desk.monitor.run("info block")
    node = desk.machine.drives.backends["d"].node.name
    assert text == (
        f"d ({node}): {image} (raw)\n    Removable device: not locked, tray closed\n"
        "    Cache mode:       writeback, ignore flushes\n\n"
        "e: [not inserted]\n    Removable device: not locked, tray closed\n"
    )
    assert await desk.monitor.run("info block zz") == ""
    assert "virtual size: 1 MiB (1048576 bytes)" in await desk.monitor.run("info block -v d")
    assert f"f: {image} (file)" in await desk.monitor.run("info block -n")
    assert (await desk.monitor.run("info blockstats")).startswith("d: rd_bytes=0 wr_bytes=0 rd_operations=0")


async def test_people_change_disks(desk: Desk, image: Path) -> None:
    """drive_add and drive_del, block_resize in MiB, block_set_io_throttle."""
    run = desk.monitor.run
    assert await run(f"drive_add 0 file={image},if=none,id=h,format=raw,file.locking=off") == "OK\n"
    assert "h (#" in await run("info block h")
    assert "Can't hot-add drive" in await run(f"drive_add 0 file={image}")
    assert await run("block_resize h 3") == ""
    assert image.stat().st_size == 3 * MIB
    assert await run("block_resize h 1536k") == ""
    assert image.stat().st_size == 1536 << 10
    assert "invalid size" in await run("block_resize h x")
    assert await run("block_set_io_throttle h 0 0 0 7 0 0") == ""
    assert "iops=7" in await run("info block h")
    assert await run("drive_del h") == ""
    assert "Device 'h' not found" in await run("drive_del h")


async def _states(desk: Desk, job: str) -> list[str]:
    """All states of a job, once it has concluded."""
    async with asyncio.timeout(10):
        while "concluded" not in (states := _told(desk, job)):
            await asyncio.sleep(0)
    return states


def _told(desk: Desk, job: str) -> list[str]:
    found = [each["data"] for each in desk.events if each["event"] == "JOB_STATUS_CHANGE"]
    return [each["status"] for each in found if each["id"] == job]
