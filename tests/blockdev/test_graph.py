"""Names, lifetimes and permissions of nodes; the words of refusals are those of QEMU 10.0."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.graph import Graph
from aioemu.blockdev.permissions import Permission
from aioemu.errors import ConfigError, EmuError, HostError

MIB = 1 << 20


class Device:
    """A parent that is no node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.changes: list[tuple[int, int]] = []
        self.sizes: list[int] = []

    def describe(self) -> str:
        return f"block device '{self.name}'"

    def child_changed(self, role: str, start: int, length: int) -> None:
        self.changes.append((start, length))

    def child_resized(self, role: str, size: int) -> None:
        self.sizes.append(size)


USED = Permission.CONSISTENT_READ | Permission.WRITE
SHARED = Permission.ALL & ~Permission.WRITE


def file_of(image: Path, **more: Any) -> dict[str, Any]:
    return {"driver": "file", "filename": str(image), **more}


@pytest.fixture
async def disk(graph: Graph, image: Path) -> None:
    await graph.add(file_of(image, **{"node-name": "f"}))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"driver": "raw", "node-name": "f", "file": "f"}, "Duplicate nodes with node-name='f'"),
        ({"driver": "raw", "node-name": "r", "file": "zz"}, "Cannot find device='zz' nor node-name='zz'"),
        ({"driver": "raw", "node-name": "r" * 32, "file": "f"}, "Node name too long"),
        ({"driver": "raw", "node-name": "4r", "file": "f"}, "Invalid node-name: '4r'"),
        ({"driver": "raw", "file": "f"}, "'node-name' must be specified for the root node"),
        ({"driver": "raw", "node-name": "r", "file": "f", "foo": 1}, "Parameter 'foo' is unexpected"),
        ({"driver": "raw", "node-name": "r"}, "Parameter 'file' is missing"),
        ({"driver": "raw", "node-name": "r", "file": {"driver": "file"}}, "Parameter 'file.filename' is missing"),
        ({"driver": "raw", "node-name": "r", "file": {"filename": "x"}}, "Parameter 'file.driver' is missing"),
        (
            {"driver": "file", "node-name": "r", "filename": "/none"},
            "Could not open '/none': No such file or directory",
        ),
        (
            {"driver": "raw", "node-name": "r", "offset": [], "file": "f"},
            "Invalid parameter type for 'offset', expected: integer",
        ),
        (
            {"driver": "raw", "node-name": "r", "offset": MIB + 1, "file": "f"},
            "Offset (1048577) cannot be greater than size of the containing file (1048576)",
        ),
        (
            {"driver": "raw", "node-name": "r", "size": 5048576, "file": "f"},
            "The sum of offset (0) and size (5048576) has to be smaller or equal to the  actual size of the containing "
            "file (1048576)",
        ),
        ({"driver": "raw", "node-name": "r", "size": 511, "file": "f"}, "Specified size is not multiple of 512"),
        (
            {"driver": "raw", "node-name": "r", "file": "f", "force-share": True},
            "force-share=on can only be used with read-only images",
        ),
    ],
)
async def test_what_cannot_be_is_refused_in_known_words(
    graph: Graph, disk: None, given: dict[str, Any], words: str
) -> None:
    """A mistake is named, and nothing of what was begun stays."""
    with pytest.raises(EmuError) as caught:
        await graph.add(given)
    assert str(caught.value) == words
    assert set(graph.nodes) == {"f"}
    assert not graph.nodes["f"].parents


async def test_nodes_go_when_nobody_holds_them(graph: Graph, disk: None, image: Path) -> None:
    """What was named lives until it is removed; what came along goes with its parent."""
    await graph.add({"driver": "raw", "node-name": "a", "file": "f"})
    await graph.add({"driver": "raw", "node-name": "b", "file": file_of(image, **{"read-only": True})})
    assert len(graph.nodes) == 4
    with pytest.raises(EmuError, match="Block device f is in use"):
        await graph.remove("f")
    with pytest.raises(EmuError, match="Failed to find node with node-name='zz'"):
        await graph.remove("zz")
    hidden = graph.nodes["b"].file.name
    with pytest.raises(EmuError, match=f"Node {hidden} is not owned by the monitor"):
        await graph.remove(hidden)
    edge = graph.attach(Device("d"), "root", graph.nodes[hidden], Permission.NONE)
    with pytest.raises(EmuError, match=f"Node {hidden} is in use"):
        await graph.remove(hidden)
    graph.detach(edge)
    await graph.remove("b")
    await graph.remove("a")
    assert set(graph.nodes) == {"f"}


async def test_two_writers_are_refused(graph: Graph, disk: None) -> None:
    """A second device that writes is refused through every filter, and may come when the first has gone."""
    for name in ("r1", "r2"):
        await graph.add({"driver": "raw", "node-name": name, "file": "f"})
    edge = graph.attach(Device("d1"), "root", graph.find("r1"), USED, SHARED)
    with pytest.raises(ConfigError) as caught:
        graph.attach(Device("d2"), "root", graph.find("r2"), USED, SHARED)
    assert str(caught.value) == (
        "Permission conflict on node 'f': permissions 'write' are both required by node 'r1' (uses node 'f' as 'file' "
        "child) and unshared by node 'r2' (uses node 'f' as 'file' child)."
    )
    with pytest.raises(ConfigError) as caught:
        graph.attach(Device("d3"), "root", graph.find("r1"), USED, SHARED)
    assert str(caught.value) == (
        "Permission conflict on node 'r1': permissions 'write' are both required by block device 'd1' (uses node 'r1' "
        "as 'root' child) and unshared by block device 'd3' (uses node 'r1' as 'root' child)."
    )
    graph.detach(edge)
    graph.detach(graph.attach(Device("d2"), "root", graph.find("r2"), USED, SHARED))


async def test_writers_that_share_are_both_let_in(graph: Graph, disk: None) -> None:
    """share-rw=on on both sides: the guests' own affair."""
    node = graph.find("f")
    edges = [graph.attach(Device(name), "root", node, USED, Permission.ALL) for name in ("a", "b")]
    for edge in edges:
        graph.detach(edge)


async def test_a_read_only_node_has_no_writer(graph: Graph, image: Path) -> None:
    """Read-only holds for whoever comes."""
    node = await graph.add(file_of(image, **{"node-name": "f", "read-only": True}))
    with pytest.raises(ConfigError, match="Block node is read-only"):
        graph.attach(Device("d"), "root", node, USED, SHARED)
    assert not node.parents


async def test_children_inherit_what_they_are_not_told(graph: Graph, image: Path) -> None:
    """Read-only and the cache mode reach the file below; its own options win."""
    given = {"driver": "raw", "read-only": True, "cache": {"no-flush": True}}
    node = await graph.add({**given, "node-name": "a", "file": file_of(image)})
    assert node.file.read_only
    assert node.file.options.cache.no_flush
    assert node.file.options.discard == "unmap"
    other = await graph.add({**given, "node-name": "b", "file": file_of(image, cache={"no-flush": False})})
    assert not other.file.options.cache.no_flush


async def test_a_window_shows_a_part(graph: Graph, disk: None, image: Path) -> None:
    """offset and size show a part of the file, to requests and to extents."""
    node = await graph.add({"driver": "raw", "node-name": "w", "file": "f", "offset": 4096, "size": 8192})
    content = image.read_bytes()
    assert await node.read(512, 1024) == content[4608:5632]
    await node.write(0, b"z" * 512)
    assert image.read_bytes()[4096:4608] == b"z" * 512
    extent = await node.extent(512, 512)
    assert (extent.start, extent.length, extent.host_offset) == (0, 8192, 4096)
    with pytest.raises(ConfigError, match="Cannot resize fixed-size raw disks"):
        await node.resize(MIB)


async def test_growth_reaches_the_device(graph: Graph, disk: None) -> None:
    """A resize below is told to everybody above, with the extents that it voids."""
    node, device = await graph.add({"driver": "raw", "node-name": "r", "file": "f"}), Device("d")
    edge = graph.attach(device, "root", node, Permission.NONE)
    await graph.find("f").resize(2 * MIB)
    assert (node.size, device.sizes, device.changes) == (2 * MIB, [2 * MIB], [(MIB, MIB)])
    graph.detach(edge)


async def test_a_node_is_not_its_own_child(graph: Graph, disk: None) -> None:
    """A name that is being made cannot be used below itself."""
    with pytest.raises(EmuError, match="Cannot find device='x'"):
        await graph.add({"driver": "raw", "node-name": "x", "file": {"driver": "raw", "file": "x"}})


async def test_the_end_does_not_need_the_loop(graph: Graph, disk: None) -> None:
    """Everything is closed at once where nobody can wait for it."""
    await graph.add({"driver": "raw", "node-name": "r", "file": "f"})
    graph.close_now()
    assert not graph.nodes


async def test_additions_take_turns(graph: Graph, image: Path) -> None:
    """Of many that want one name, one gets it."""
    tasks = [graph.add(file_of(image, **{"node-name": "one", "read-only": True})) for _ in range(8)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, EmuError) for each in results) == 7
    assert not any(isinstance(each, HostError) for each in results)


async def test_an_image_and_its_file_are_reopened_together(graph: Graph, tmp_path: Path) -> None:
    """Read-only and back, in whatever order they are listed; locks follow, and a device that writes refuses."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-utils is not installed")
    path = tmp_path / "q.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    file = {**file_of(path), "node-name": "f"}
    await graph.add(file)
    node = await graph.add({"driver": "qcow2", "node-name": "q", "file": "f"})
    await node.write(0, b"q" * 65536)
    query = ["qemu-io", "-f", "qcow2", "-c", "write 65536 512", str(path)]
    assert subprocess.run(query, capture_output=True).returncode != 0
    frozen = [{**file, "read-only": True}, {"driver": "qcow2", "node-name": "q", "file": "f", "read-only": True}]
    for order in (frozen, frozen[::-1]):
        edge = graph.attach(Device("d"), "root", node, USED, SHARED)
        with pytest.raises(ConfigError, match="Read-only block node 'q' cannot support read-write users"):
            await graph.reopen(order)
        graph.detach(edge)
        await graph.reopen(order)
        assert node.read_only
        assert node.file.read_only
        with pytest.raises(HostError):
            await node.write(0, b"x")
        writable = [{key: value for key, value in each.items() if key != "read-only"} for each in order]
        await graph.reopen(writable)
        await node.write(4096, b"w" * 512)
    assert await node.read(0, 512) == b"q" * 512
    await graph.remove("q")
    subprocess.run(["qemu-img", "check", "-q", path], check=True)
    assert subprocess.run(query, capture_output=True).returncode == 0


async def test_a_graph_leaves_no_thread(tmp_path: Path) -> None:
    """When its end has been awaited the threads of its calls are gone, and the loop had its turns meanwhile."""
    before = set(threading.enumerate())
    graph = Graph(lambda *words: None)
    path = tmp_path / "f"
    path.write_bytes(bytes(MIB))
    node = await graph.add({**file_of(path), "node-name": "f"})
    await asyncio.gather(*(node.read(0, MIB) for _ in range(20)))
    assert set(threading.enumerate()) - before
    await graph.close()
    assert not set(threading.enumerate()) - before


def test_nor_does_one_that_ends_without_a_loop(tmp_path: Path) -> None:
    """The same for an end that nobody can wait for."""
    before = set(threading.enumerate())
    graph = Graph(lambda *words: None)
    path = tmp_path / "f"
    path.write_bytes(bytes(MIB))

    async def use() -> None:
        node = await graph.add({**file_of(path), "node-name": "f"})
        await node.read(0, MIB)

    asyncio.run(use())
    graph.close_now()
    assert not set(threading.enumerate()) - before
