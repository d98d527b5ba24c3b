"""blockdev-reopen of qcow2 images that are in use: their options, their backing file, read-only and back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.graph import Graph
from aioemu.blockdev.qcow2.header import DIRTY, parse
from aioemu.blockdev.qcow2.node import Qcow2Node
from aioemu.errors import ConfigError, EmuError, HostError
from tests.blockdev.qcow2.test_conformance import read_by_extents
from tests.blockdev.qcow2.tools import KIB, MIB, check, contents, make, needs_tools

pytestmark = needs_tools


@pytest.fixture
async def graph() -> AsyncIterator[Graph]:
    graph = Graph(lambda *words: None)
    yield graph
    await graph.close()


async def add(graph: Graph, path: Path, name: str, **options: Any) -> Qcow2Node:
    """The image `name` on its file `name-file`."""
    file = {"driver": "file", "node-name": f"{name}-file", "filename": str(path), "discard": "unmap"}
    await graph.add({**file, **({"read-only": True} if options.get("read-only") else {})})
    node = await graph.add({"driver": "qcow2", "node-name": name, "file": f"{name}-file", "backing": None, **options})
    assert isinstance(node, Qcow2Node)
    return node


async def reopen(graph: Graph, name: str, **options: Any) -> None:
    given = {option.replace("_", "-"): value for option, value in options.items()}
    await graph.reopen([{"driver": "qcow2", "node-name": name, "file": f"{name}-file", **given}])


def is_dirty(path: Path) -> bool:
    return bool(parse(path.read_bytes()[:4096]).incompatible & DIRTY)


async def test_lazy_counts_begin_and_end(graph: Graph, tmp_path: Path) -> None:
    """Switched on, the image is dirty from its next change on; switched off, its counts are written and it is clean."""
    path = make(tmp_path / "d.qcow2", MIB)
    node = await add(graph, path, "d")
    await node.write(0, b"1" * 512)
    assert not is_dirty(path)
    await reopen(graph, "d", lazy_refcounts=True)
    await node.write(128 * KIB, b"2" * 512)
    assert is_dirty(path)
    await reopen(graph, "d", lazy_refcounts=False)
    assert not is_dirty(path)
    await node.write(256 * KIB, b"3" * 512)
    assert not is_dirty(path)
    await graph.close()
    check(path)


async def test_what_discards_do(graph: Graph, tmp_path: Path) -> None:
    """`discard=unmap` gives the host its space from then on, and no more when it is taken back."""
    path = make(tmp_path / "d.qcow2", 2 * MIB)
    node = await add(graph, path, "d")
    await node.write(0, b"1" * MIB)

    async def freed() -> bool:
        before = await node.allocated_bytes()
        await node.discard(0, MIB)
        await node.flush()
        after = await node.allocated_bytes()
        assert before is not None
        assert after is not None
        await node.write(0, b"1" * MIB)
        await node.flush()
        return after < before

    assert not await freed()
    await reopen(graph, "d", discard="unmap")
    assert await freed()
    await reopen(graph, "d")
    assert not await freed()
    await reopen(graph, "d", l2_cache_size=4096, refcount_cache_size=4096)
    assert await freed() is False
    assert node.image.l2_cache.tables_max == 2


async def test_another_backing_file(graph: Graph, tmp_path: Path) -> None:
    """What the image did not write reads from the new one at once; its name in the header stays."""
    for name, byte in (("a", b"a"), ("b", b"b")):
        (tmp_path / f"{name}.raw").write_bytes(byte * MIB)
        await graph.add(
            {"driver": "file", "node-name": name, "filename": str(tmp_path / f"{name}.raw"), "read-only": True}
        )
    path = make(tmp_path / "d.qcow2", MIB, "", "-b", "a.raw", "-F", "raw")
    node = await add(graph, path, "d", backing="a")
    await node.write(64 * KIB, b"d" * 512)
    mine = slice(64 * KIB, 64 * KIB + 512)
    for other in ("b", None, "a"):
        await reopen(graph, "d", backing=other)
        below = bytearray(other.encode() * MIB if other else bytes(MIB))
        below[64 * KIB : 128 * KIB] = b"a" * 64 * KIB  # the rest of the cluster was copied when it was written
        below[mine] = b"d" * 512
        assert await node.read(0, MIB) == below
        assert await read_by_extents(node) == below
    await graph.remove("b")
    await graph.close()
    assert contents(path) == below


async def test_backing_files_that_cannot_be(graph: Graph, tmp_path: Path) -> None:
    """One that is not said, does not exist, or stands on the image itself is refused, and all stays as it was."""
    lower = await add(graph, make(tmp_path / "lower.qcow2", MIB), "lower")
    await lower.write(0, b"l" * 512)
    upper = await add(graph, make(tmp_path / "upper.qcow2", MIB), "upper", backing="lower")
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "backing is missing for 'upper'"),
        ({"backing": "nobody"}, "Cannot find device='' nor node-name='nobody'"),
        ({"backing": "upper"}, "Making 'upper' a child of 'upper' would create a cycle"),
        ({"backing": {"driver": "null-co"}}, "Cannot change the option 'backing.driver'"),
        ({"backing": "lower", "file": "lower-file"}, "Cannot change the option 'file'"),
    ]
    for options, message in refused:
        with pytest.raises(Exception, match=message):
            await reopen(graph, "upper", **options)
    with pytest.raises(ConfigError, match="would create a cycle"):
        await reopen(graph, "lower", backing="upper")
    assert await upper.read(0, 512) == b"l" * 512


async def test_in_the_middle_of_everything(graph: Graph, tmp_path: Path) -> None:
    """Reopened again and again while writes, reads, discards and flushes are under way: nothing is lost."""
    path = make(tmp_path / "d.qcow2", 8 * MIB, "cluster_size=4k")
    below = bytes(random.Random(1).randbytes(8 * MIB))
    (tmp_path / "a.raw").write_bytes(below)
    await graph.add({"driver": "file", "node-name": "a", "filename": str(tmp_path / "a.raw"), "read-only": True})
    node = await add(graph, path, "d", backing="a")
    truth = bytearray(below)
    chooser = random.Random(2)
    over = False

    async def work(number: int) -> None:
        while not over:
            at = (chooser.randrange(256) * 8 + number) * 4 * KIB + chooser.choice((0, 512))
            data = chooser.randbytes(512)
            await node.write(at, data)
            truth[at : at + 512] = data
            assert await node.read(at, 512) == data
            if chooser.random() < 0.2:
                await node.flush()

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(work(number))
        choices: list[dict[str, Any]] = [{"discard": "unmap"}, {"lazy_refcounts": True}, {"l2_cache_size": 8192}, {}]
        for _ in range(40):
            await reopen(graph, "d", backing="a", **chooser.choice(choices))
        over = True
    assert await node.read(0, 8 * MIB) == truth
    assert await read_by_extents(node) == truth
    await graph.close()
    check(path)


async def test_a_write_that_waits_for_an_image_that_becomes_read_only(graph: Graph, tmp_path: Path) -> None:
    """It is refused when its turn comes; the image is complete as it was closed for writing."""
    path = make(tmp_path / "d.qcow2", MIB)
    node = await add(graph, path, "d")
    writes = [asyncio.ensure_future(node.write(at * 64 * KIB, b"x" * 512)) for at in range(8)]
    frozen = asyncio.ensure_future(reopen(graph, "d", read_only=True))
    results = await asyncio.gather(*writes, frozen, return_exceptions=True)
    assert all(result is None or isinstance(result, HostError) for result in results)
    late = asyncio.gather(node.write(0, b"y" * 512), return_exceptions=True)
    assert isinstance((await late)[0], HostError)
    after = path.read_bytes()
    assert await node.read(0, MIB) == await read_by_extents(node)
    await graph.close()
    assert path.read_bytes() == after
    check(path)


def inline(path: Path, name: str, **more: Any) -> dict[str, Any]:
    """An image with its file among its options."""
    file = {"driver": "file", "node-name": f"{name}-file", "filename": str(path)}
    return {"driver": "qcow2", "node-name": name, "file": file, **more}


async def test_the_options_that_it_was_made_with(graph: Graph, tmp_path: Path) -> None:
    """A client may send blockdev-add's options again: nodes within them change with those on top, or on their own."""
    base, top = make(tmp_path / "base.qcow2", MIB), tmp_path / "top.qcow2"
    make(top, MIB, "", "-b", base.name, "-F", "qcow2")
    given = inline(top, "top", backing=inline(base, "base"))
    node = await graph.add(given)
    await node.write(0, b"1" * 512)
    await graph.reopen([given])
    await graph.reopen([{**given, "read-only": True}])
    assert [node.read_only, node.file.read_only] == [True, True]
    with pytest.raises(HostError):
        await node.write(0, b"2" * 512)
    await graph.reopen([given])
    assert [node.read_only, node.file.read_only] == [False, False]
    await node.write(512, b"3" * 512)
    await graph.reopen([{**given, "cache": {"no-flush": True}}])
    assert [graph.find(name).options.cache.no_flush for name in ("top", "top-file", "base", "base-file")] == [True] * 4
    await graph.reopen([{**given, "file": "top-file", "backing": "base"}])
    assert not any(each.options.cache.no_flush for each in graph.nodes.values())
    own = {**given["file"], "cache": {"no-flush": True}}
    await graph.reopen([{**given, "file": own}])
    assert [each.name for each in graph.nodes.values() if each.options.cache.no_flush] == ["top-file"]
    assert await node.read(0, 1024) == b"1" * 512 + b"3" * 512
    await graph.remove("top")
    assert not graph.nodes
    check(top)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"file": "nope"}, "Cannot find device='' nor node-name='nope'"),
        ({"file": "other"}, "Cannot change the option 'file'"),
        ({"file": None}, "Invalid parameter type for 'file', expected: BlockdevRef"),
        ({"file": {"driver": "file", "filename": "x"}}, "Cannot change the option 'filename'"),
        ({"file": {"driver": "host_device", "filename": "x"}}, "Cannot change the option 'driver'"),
        ({"file": {"driver": "file", "node-name": "new", "filename": "x"}}, "Cannot change the option 'node-name'"),
        ({"read-only": True, "force-share": True}, "Cannot change the option 'force-share'"),
        ({"detect-zeroes": "unmap"}, "setting detect-zeroes to unmap is not allowed"),
    ],
)
async def test_options_that_cannot_change(graph: Graph, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    """Each is refused by its name, before anything changes."""
    path = make(tmp_path / "d.qcow2", MIB)
    node = await graph.add(inline(path, "d"))
    await graph.add({"driver": "null-co", "node-name": "other"})
    before = node.options, node.file.options
    with pytest.raises(EmuError, match=message):
        await graph.reopen([{**inline(path, "d"), **changed}])
    assert (node.options, node.file.options) == before


async def test_a_node_of_its_own_keeps_its_options(graph: Graph, tmp_path: Path) -> None:
    """What the client made by itself does not follow the node on top, and is not described there."""
    node = await add(graph, make(tmp_path / "d.qcow2", MIB), "d")
    await reopen(graph, "d", cache={"no-flush": True})
    assert not node.file.options.cache.no_flush
    with pytest.raises(ConfigError, match=r"Cannot change the option 'file\.driver'"):
        await reopen(graph, "d", file={"driver": "file", "filename": node.file.filename})
