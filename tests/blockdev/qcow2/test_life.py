"""An image over its life: many at once, killed, repaired, with small caches, in chains, locked against others."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.graph import Graph
from aioemu.blockdev.legacy import open_image
from aioemu.blockdev.qcow2.node import Qcow2Node
from aioemu.errors import ConfigError, EmuError
from tests.blockdev.qcow2.conftest import opened
from tests.blockdev.qcow2.recorder import MemoryFile, open_memory
from tests.blockdev.qcow2.test_conformance import Op
from tests.blockdev.qcow2.tools import KIB, MIB, check, contents, facts, fill, make, needs_tools, run

pytestmark = needs_tools
VICTIM = """
import asyncio, os, random, sys
from pathlib import Path
from tests.blockdev.qcow2.conftest import opened

async def main(path, seed):
    chooser = random.Random(seed)
    slots = range(170 * seed, 170 * (seed + 1))  # each is written once: one that is not said yet hides none that is
    async with opened(Path(path)) as node:
        for place in chooser.sample(slots, len(slots)):
            number = chooser.randrange(1, 256)
            for _ in range(chooser.randrange(1, 6)):
                await node.write(chooser.randrange(2048) * 512, bytes((number,)) * 512 * chooser.choice((1, 8, 200)))
            slot = (2 << 20) + 4096 * place
            await node.write(slot, number.to_bytes(2, "big") * 256)
            await node.flush()
            print(slot, number, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=4k,lazy_refcounts=on", "cluster_size=64k"])
async def test_killed_in_the_middle(tmp_path: Path, options: str) -> None:
    """kill -9 at any time: the image is consistent, and what a flush was acknowledged for is there."""
    path = make(tmp_path / "disk.qcow2", 4 * MIB, options)
    said: dict[int, int] = {}
    for seed in range(3):
        victim = await asyncio.create_subprocess_exec(
            sys.executable, "-c", VICTIM, str(path), str(seed), stdout=subprocess.PIPE
        )
        assert victim.stdout is not None
        for _ in range(10 + 7 * seed):
            slot, number = (int(word) for word in (await victim.stdout.readline()).split())
            said[slot] = number
        victim.send_signal(signal.SIGKILL)
        rest = (await victim.stdout.read()).decode().splitlines()
        said |= {int(line.split()[0]): int(line.split()[1]) for line in rest}
        await victim.wait()
        if "lazy" in options:
            assert facts(path)["dirty-flag"]
        else:
            check(path, leaks=True)
        async with opened(path) as node:
            for slot, number in said.items():
                assert await node.read(slot, 2) == bytes((0, number))
        run("qemu-img", "check", "-q", "-r", "leaks", path)
        check(path)


async def test_many_at_once(tmp_path: Path) -> None:
    """Overlapping allocations take turns, and none of a hundred requests under way disturbs another's range."""
    path = make(tmp_path / "disk.qcow2", 16 * MIB, "cluster_size=16k")
    chooser = random.Random(1)
    truth = bytearray(16 * MIB)

    async def write(at: int, size: int, number: int) -> None:
        op = Op(chooser.choice(("write", "place")), at, size, number)
        await op.on(node)
        op.on_truth(truth)

    async with opened(path, discard="unmap") as node:
        for _ in range(6):
            pieces = [(at * 1536, 1536, chooser.randrange(1, 256)) for at in chooser.sample(range(10000), 120)]
            async with asyncio.TaskGroup() as group:
                for piece in pieces:
                    group.create_task(write(*piece))
                for _ in range(5):
                    group.create_task(node.flush())
            hole = chooser.randrange(500) * 32 * KIB
            await node.discard(hole, 32 * KIB)
            truth[hole : hole + 32 * KIB] = bytes(32 * KIB)
            assert await node.read(0, 16 * MIB) == truth
    check(path)
    assert contents(path) == truth


@pytest.mark.parametrize("at", [512, 2048, 8192, 16 * KIB - 512])
async def test_the_rest_of_the_last_cluster(tmp_path: Path, at: int) -> None:
    """A file that ends within a cluster is made longer by what is written there, and stays so when it is closed."""
    path = make(tmp_path / "disk.qcow2", MIB, "extended_l2=on,cluster_size=16k")
    fill(path, "write -P 1 0 512")
    assert path.stat().st_size % (16 * KIB)
    async with opened(path) as node:
        await node.write(at, b"2" * 512)
    check(path)
    assert contents(path) == (b"\x01" * 512).ljust(at, b"\0") + b"2" * 512 + bytes(MIB - at - 512)


@pytest.mark.parametrize("options", ["cluster_size=512,refcount_bits=64", "cluster_size=512,refcount_bits=1"])
async def test_small_caches_and_tables_that_grow(tmp_path: Path, options: str) -> None:
    """A few KiB of cache are enough, dirty tables are never dropped, and the refcount table moves when it is full."""
    path = make(tmp_path / "disk.qcow2", 24 * MIB, options)
    chooser = random.Random(2)
    truth = bytearray(24 * MIB)
    async with opened(path, l2_cache_size=2048, refcount_cache_size=2048) as node:
        before = node.header.refcount_table_offset
        for _ in range(120):
            at = chooser.randrange(24 * MIB // 512 - 400) * 512
            op = Op(
                chooser.choice(("write", "place")),
                at,
                chooser.choice((512, 50 * KIB, 200 * KIB)),
                chooser.randrange(1, 256),
            )
            await op.on(node)
            op.on_truth(truth)
            assert len(node.image.l2_cache) <= 6
        assert "64" not in options or node.header.refcount_table_offset != before
        assert await node.read(0, 24 * MIB) == truth
    check(path)
    assert contents(path) == truth


@pytest.mark.parametrize("extra", ["", ",extended_l2=on,cluster_size=16k", ",refcount_bits=64,cluster_size=512"])
async def test_an_image_that_qemu_left_dirty_is_repaired(tmp_path: Path, extra: str) -> None:
    """Lazy counts that a crash kept from the disk are counted anew; read-only the image opens as it is."""
    path = make(tmp_path / "disk.qcow2", 8 * MIB, "lazy_refcounts=on" + extra)
    words = ["-c", "write -P 5 1M 2M", "-c", "write -P 6 100k 4k", "-c", "flush", "-c", "abort"]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, str(path)], capture_output=True, check=False)
    assert facts(path)["dirty-flag"]
    before = path.read_bytes()
    async with opened(path, read_only=True) as node:
        assert await node.read(MIB, 2 * MIB) == b"\5" * 2 * MIB
    assert path.read_bytes() == before
    async with opened(path) as node:
        await node.write(4 * MIB, b"\7" * MIB)
        assert await node.read(MIB, 2 * MIB) == b"\5" * 2 * MIB
    check(path)
    assert not facts(path)["dirty-flag"]


async def test_repair_counts_snapshots_and_bitmaps(tmp_path: Path) -> None:
    """Clusters that only a snapshot or a bitmap holds are counted too."""
    path = make(tmp_path / "disk.qcow2", 8 * MIB, "lazy_refcounts=on")
    fill(path, "write -P 1 0 3M")
    run("qemu-img", "snapshot", "-c", "one", path)
    run("qemu-img", "bitmap", "--add", path, "changes")
    fill(path, "write -P 2 1M 1M", "discard 2M 512k")
    check(path)
    with path.open("r+b") as file:
        file.seek(79)
        file.write(b"\1")
    async with opened(path) as node:
        await node.write(5 * MIB, b"x" * 512)
    check(path)
    raw = tmp_path / "snapshot.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-l", "one", "-O", "raw", path, raw)
    assert raw.read_bytes()[: 3 * MIB] == b"\1" * 3 * MIB


async def test_nobody_else_opens_it_meanwhile(tmp_path: Path) -> None:
    """qemu-img sees the image in use, and the other way round; a reader that says so may look."""
    path = make(tmp_path / "disk.qcow2", MIB)
    async with opened(path) as node:
        graph, edge = attach_writer(node)
        run("qemu-img", "check", path, status=1)
        run("qemu-img", "info", "-U", path)
        graph.detach(edge)
    check(path)


def attach_writer(node: Qcow2Node) -> tuple[Any, Any]:
    """Use the node as a guest's disk does."""
    from aioemu.blockdev.permissions import Permission

    class Device:
        def describe(self) -> str:
            return "a disk"

        def child_changed(self, role: str, start: int, length: int) -> None:
            pass

        def child_resized(self, role: str, size: int) -> None:
            pass

    graph = Graph(lambda *args: None)
    used = Permission.CONSISTENT_READ | Permission.WRITE
    return graph, graph.attach(Device(), "root", node, used, Permission.CONSISTENT_READ)


async def test_chains_of_images(tmp_path: Path) -> None:
    """Three images of different sizes and a raw one, by relative names; `json:` names; no backing file on request."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.raw").write_bytes(b"r" * MIB)
    one = make(tmp_path / "sub" / "one.qcow2", 2 * MIB, "", "-b", "../base.raw", "-F", "raw")
    fill(one, "write -P 1 512k 64k", "write -P 1 1536k 64k")
    two = make(tmp_path / "two.qcow2", 3 * MIB, "compat=0.10", "-b", "sub/one.qcow2", "-F", "qcow2")
    fill(two, "write -P 2 600k 4k")
    name = "json:" + json.dumps({"driver": "qcow2", "file": {"driver": "file", "filename": str(two)}})
    top = make(tmp_path / "top.qcow2", 3 * MIB, "", "-u", "-b", name, "-F", "qcow2")
    truth = contents(top)
    async with opened(top) as node:
        assert await node.read(0, 3 * MIB) == truth
        await node.write(100, b"top")
        await node.write(MIB - 256, b"t" * 512)
        assert (await node.read(0, 200))[95:110] == b"rrrrrtoprrrrrrr"
    check(top)
    assert contents(top)[MIB - 300 : MIB + 300] == b"r" * 44 + b"t" * 512 + bytes(44)
    async with opened(top, backing=None) as node:
        assert await node.read(MIB // 2, 4096) == bytes(4096)
    async with opened(
        top, backing={"driver": "raw", "file": {"driver": "file", "filename": str(tmp_path / "base.raw")}}
    ) as node:
        assert await node.read(600 * KIB, 4096) == b"r" * 4096
    (tmp_path / "base.raw").unlink()
    with pytest.raises(EmuError, match=r"base\.raw"):
        async with opened(top):
            pass


async def test_closed_without_the_loop(tmp_path: Path) -> None:
    """An end that nobody can wait for writes everything back all the same."""
    path = make(tmp_path / "disk.qcow2", 8 * MIB, "cluster_size=4k")
    graph = Graph(lambda *args: None)
    node = await open_image(graph, str(path), {"driver": "qcow2"})
    for at in range(0, 8 * MIB, 64 * KIB):
        await node.write(at, b"w" * 8192)
    assert isinstance(node, Qcow2Node)
    await node.flush()
    await node.discard(0, 4 * MIB)
    for table in node.image.block_cache:
        node.image.block_cache.drop(table.offset)  # as if others had been needed since
    graph.close_now()
    check(path)
    assert contents(path)[4 * MIB : 4 * MIB + 8192] == b"w" * 8192


async def test_read_only_images_are_never_written(tmp_path: Path) -> None:
    """Not their header, not their tables, not on close; a node turned read-only is written back first."""
    path = make(tmp_path / "disk.qcow2", MIB, "lazy_refcounts=on")
    os.chmod(path, 0o444)
    before = path.read_bytes()
    async with opened(path, read_only=True) as node:
        await node.read(0, MIB)
        await node.flush()
        for change in (node.write(0, b"x" * 512), node.discard(0, MIB), node.extent(0, 512, write=True)):
            with pytest.raises(EmuError):
                await change
    assert path.read_bytes() == before


async def test_zstd_clusters(tmp_path: Path) -> None:
    """Both compressions read back, whole and in parts, on this thread and on others."""
    data = (bytes(range(256)) * 4096 + os.urandom(64 * KIB)) * 3
    (tmp_path / "some.raw").write_bytes(data)
    for kind in ("zlib", "zstd"):
        for cluster in ("4k", "64k", "2M"):
            path = tmp_path / f"{kind}{cluster}.qcow2"
            words = ["-c", "-O", "qcow2", "-o", f"compression_type={kind},cluster_size={cluster}"]
            run("qemu-img", "convert", "-f", "raw", *words, tmp_path / "some.raw", path)
            async with opened(path) as node:
                assert await node.read(0, len(data)) == data
                assert await node.read(100_000, 70_000) == data[100_000:170_000]
                await node.write(4096 + 512, b"n" * 512)
                assert (await node.read(0, 8192))[4608:5120] == b"n" * 512
            check(path)
            assert contents(path)[8192:] == data[8192:]


async def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    """QEMU's words for cache sizes and features that the image cannot have."""
    content = make(tmp_path / "plain.qcow2", MIB).read_bytes()
    options: dict[str, Any]
    for options, message in (
        ({"cache_size": 1 << 20, "l2_cache_size": 2 << 20}, "l2-cache-size may not exceed cache-size"),
        ({"cache_size": 1, "l2_cache_size": 1, "refcount_cache_size": 1}, "may not be set at the same time"),
        ({"overlap_check": "some"}, "Unsupported value 'some'"),
        ({"l2_cache_entry_size": 1000}, "power of two"),
    ):
        with pytest.raises(ConfigError, match=message):
            await open_memory(MemoryFile(content), **options)


@pytest.mark.parametrize(
    ("options", "given_back"),
    [
        ({"discard": "unmap"}, True),
        ({}, False),
        ({"pass_discard_request": True}, True),
        ({"discard": "unmap", "pass_discard_request": False}, False),
        ({"discard": "unmap", "discard_no_unref": True}, False),
    ],
    ids=str,
)
async def test_the_host_gets_back_what_was_discarded(tmp_path: Path, options: dict[str, Any], given_back: bool) -> None:
    """As with QEMU: `discard=unmap`, or `pass-discard-request`, punches holes; `discard-no-unref` keeps clusters."""
    path = make(tmp_path / "disk.qcow2", 8 * MIB)
    async with opened(path, **options) as node:
        await node.write(0, os.urandom(4 * MIB))
        await node.flush()
        used = path.stat().st_blocks
        await node.discard(0, 2 * MIB)
        await node.flush()
        assert await node.read(0, 2 * MIB) == bytes(2 * MIB)
        assert (path.stat().st_blocks <= used - 2 * MIB // 512) == given_back
        await node.write(MIB, b"again" * 1000)
        await node.flush()
        assert await node.read(MIB, 5000) == b"again" * 1000
        assert path.stat().st_size < 6 * MIB + 64 * MIB
    check(path)
    assert contents(path)[MIB : MIB + 5000] == b"again" * 1000


async def test_a_full_host_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    """ENOSPC and a removed file: what was acknowledged stays, and the image goes on when there is room again."""
    import resource

    path = make(tmp_path / "disk.qcow2", 64 * MIB)
    async with opened(path) as node:
        await node.write(0, b"a" * MIB)
        await node.flush()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            failed = 0
            for at in range(MIB, 64 * MIB, MIB):
                try:
                    await node.write(at, b"b" * MIB)
                except EmuError:
                    failed += 1
            assert failed
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        await node.write(32 * MIB, b"c" * MIB)
        assert await node.read(0, MIB) == b"a" * MIB
    check(path)
    assert contents(path)[32 * MIB : 33 * MIB] == b"c" * MIB


@pytest.mark.parametrize("options", ["cluster_size=64k", "cluster_size=512", "extended_l2=on,cluster_size=16k"])
async def test_without_the_host_cache(tmp_path: Path, options: str) -> None:
    """cache.direct=on: tables and data of any alignment reach the disk through O_DIRECT."""
    path = make(tmp_path / "disk.qcow2", 4 * MIB, options)
    truth = bytearray(4 * MIB)
    chooser = random.Random(3)
    async with opened(path, discard="unmap", cache={"direct": True}) as node:
        for _ in range(40):
            at = chooser.randrange(4 * MIB // 512 - 300) * 512
            what = chooser.choice(("write", "write", "zero", "unmap", "flush"))
            op = Op(
                what, at, 512 * chooser.choice((1, 7, 130, 300)), chooser.randrange(1, 256) if what == "write" else 0
            )
            await op.on(node)
            if what != "flush":
                op.on_truth(truth)
        assert await node.read(0, 4 * MIB) == truth
    check(path)
    assert contents(path) == truth
