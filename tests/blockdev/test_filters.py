"""copy-on-read over images of qemu-img, and blkdebug's rules."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.backend import Backend
from aioemu.blockdev.copy_on_read import Ranges
from aioemu.blockdev.graph import Graph
from aioemu.blockdev.legacy import open_image
from aioemu.blockdev.node import ExtentKind
from aioemu.errors import ConfigError, HostError

MIB = 1 << 20
needs_qemu = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-utils is not installed")


def run(*words: object) -> str:
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture
def overlay(tmp_path: Path) -> tuple[Path, bytes]:
    """A qcow2 image over a raw one of random bytes, and those bytes."""
    content = os.urandom(MIB)
    (tmp_path / "base.img").write_bytes(content)
    path = tmp_path / "over.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "raw", path)
    return path, content


def filter_over(path: Path) -> dict[str, Any]:
    file = {"driver": "file", "filename": str(path)}
    return {"driver": "copy-on-read", "node-name": "c", "file": {"driver": "qcow2", "file": file}}


@needs_qemu
async def test_what_is_read_is_copied(graph: Graph, overlay: tuple[Path, bytes]) -> None:
    """Only what was read is in the image afterwards, guests' writes win, and the image is clean."""
    path, content = overlay
    node = await graph.add(filter_over(path))
    assert (await node.extent(0, 512)).kind is ExtentKind.ASK
    assert await node.read(65536, 65536) == content[65536:131072]
    extent = await node.extent(65536, 512)
    assert extent.kind is ExtentKind.DATA
    assert extent.writable
    await asyncio.gather(*(node.write(at, b"w" * 4096) for at in range(0, 65536, 8192)), node.read(0, 131072))
    await node.flush()
    expected = bytearray(content)
    for at in range(0, 65536, 8192):
        expected[at : at + 4096] = b"w" * 4096
    assert await node.read(0, MIB // 2) == bytes(expected[: MIB // 2])
    await graph.remove("c")
    run("qemu-img", "check", path)
    (path.parent / "base.img").write_bytes(bytes(MIB))
    run("qemu-img", "convert", "-O", "raw", path, path.parent / "out.img")
    assert (path.parent / "out.img").read_bytes() == bytes(expected[: MIB // 2]) + bytes(MIB // 2)


@needs_qemu
async def test_a_read_only_filter_copies_nothing(graph: Graph, overlay: tuple[Path, bytes]) -> None:
    """Nothing can be written there, so extents pass through."""
    path, content = overlay
    node = await graph.add({**filter_over(path), "read-only": True})
    before = path.read_bytes()
    assert await node.read(0, MIB) == content
    assert (await node.extent(0, 512)).kind is ExtentKind.DATA
    assert path.read_bytes() == before


async def test_overlapping_ranges_wait(graph: Graph) -> None:
    """One that overlaps waits, in order; others do not; who gives up lets the next one go."""
    ranges, order = Ranges(), list[str]()

    async def hold(name: str, start: int, size: int, until: asyncio.Event) -> None:
        async with ranges.hold(start, size):
            order.append(name)
            await until.wait()

    go = asyncio.Event()
    tasks = [asyncio.create_task(hold(*each, go)) for each in (("a", 0, 10), ("b", 5, 10), ("c", 12, 5), ("d", 20, 5))]
    await asyncio.sleep(0)
    assert order == ["a", "d"]
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["a", "d", "c"]
    go.set()
    await asyncio.gather(*tasks, return_exceptions=True)


def debug(image: Path, **more: Any) -> dict[str, Any]:
    below = {"driver": "file", "filename": str(image)}
    return {"driver": "blkdebug", "node-name": "b", "image": below, **more}


async def test_errors_are_injected(graph: Graph, image: Path) -> None:
    """By sector, kind, errno and once; every request comes through."""
    rules = [
        {"event": "none", "iotype": "write", "errno": errno.ENOSPC, "sector": 8, "once": True},
        {"event": "none", "iotype": "read", "sector": 16},
    ]
    node = await graph.add(debug(image, **{"inject-error": rules}))
    assert (await node.extent(0, 512)).kind is ExtentKind.ASK
    await node.write(0, b"x" * 4096)
    with pytest.raises(HostError) as caught:
        await node.write(0, b"x" * 4097)
    assert caught.value.errno == errno.ENOSPC
    await node.write(0, b"x" * 4097)
    for _ in range(2):
        with pytest.raises(HostError) as caught:
            await node.read(8192, 512)
        assert caught.value.errno == errno.EIO
    await node.read(8704, 512)


async def test_rules_of_a_file(graph: Graph, image: Path, tmp_path: Path) -> None:
    """`config` names a file of rules; a FIFO holds up nothing but the command that reads it."""
    os.mkfifo(tmp_path / "rules")
    opening = asyncio.ensure_future(graph.add(debug(image, config=str(tmp_path / "rules"))))
    with await asyncio.to_thread(open, tmp_path / "rules", "w") as fifo:
        fifo.write('[inject-error]\nevent = "none"\niotype = "read"\nerrno = "28"\n')
    node = await opening
    with pytest.raises(HostError) as caught:
        await node.read(0, 512)
    assert caught.value.errno == errno.ENOSPC


async def test_events_move_a_state(graph: Graph, image: Path) -> None:
    """The second write is the one that fails, as the rules' states say."""
    states = [{"event": "write_aio", "state": 1, "new_state": 2}, {"event": "write_aio", "state": 2, "new_state": 3}]
    errors = [{"event": "write_aio", "state": 2, "once": True, "iotype": "write"}]
    below = debug(image, **{"set-state": states, "inject-error": errors})
    del below["node-name"]
    node = await graph.add({"driver": "raw", "node-name": "r", "file": below})
    await node.write(0, b"a" * 512)
    with pytest.raises(HostError):
        await node.write(0, b"b" * 512)
    await node.write(0, b"c" * 512)
    assert image.read_bytes()[:512] == b"c" * 512


EVENTS_OF_QCOW2 = {
    "reftable_load": "open",
    "l2_load": "read",
    "read_aio": "read",
    "read_backing_aio": "read beneath",
    "cluster_alloc": "write new",
    "cow_read": "write part",
    "write_aio": "write",
    "refblock_load": "write new",
    "pwritev": "write",
    "pwritev_done": "write",
    "l2_update": "flush",
    "refblock_update_part": "flush",
    "l1_update": "flush",
    "flush_to_os": "flush",
    "flush_to_disk": "flush",
}


@needs_qemu
@pytest.mark.parametrize("event", EVENTS_OF_QCOW2)
async def test_events_of_an_image(graph: Graph, overlay: tuple[Path, bytes], event: str) -> None:
    """What qcow2 does with its file are events by QEMU's names; what fails then fails the request and nothing else."""
    path, content = overlay
    if event != "l1_update":  # of the first table
        run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", path)
    file = debug(path, **{"set-state": [{"event": event, "state": 1, "new_state": 2}]})
    node = await graph.add({"driver": "qcow2", "node-name": "q", "file": file})
    below: Any = graph.find("b")
    doing: dict[str, Any] = {
        "open": lambda: asyncio.sleep(0),
        "read": lambda: node.read(0, 512),
        "read beneath": lambda: node.read(128 << 10, 512),
        "write": lambda: node.write(0, b"a" * 512),
        "write new": lambda: node.write(256 << 10, b"b" * 65536),
        "write part": lambda: node.write(512 << 10, b"c" * 512),
    }
    kind = EVENTS_OF_QCOW2[event]
    assert (below.state == 2) is (kind == "open")
    if kind == "flush":
        await doing["write new"]()
        assert below.state == 1 or event.startswith("flush_")  # the header may change before anything else does
        await node.flush()
    else:
        await doing[kind]()
    assert below.state == 2
    assert await node.read(768 << 10, 512) == content[768 << 10 : (768 << 10) + 512]


@needs_qemu
async def test_a_table_that_cannot_be_written_is_written_later(graph: Graph, overlay: tuple[Path, bytes]) -> None:
    """inject-error at l2_update: the flush fails once, the next one does it all, and the image is clean."""
    path, _ = overlay
    rules = [{"event": "l2_update", "iotype": "write", "errno": errno.ENOSPC, "once": True}]
    node = await graph.add({"driver": "qcow2", "node-name": "q", "file": debug(path, **{"inject-error": rules})})
    await node.write(256 << 10, b"b" * 65536)
    with pytest.raises(HostError) as caught:
        await node.flush()
    assert caught.value.errno == errno.ENOSPC
    await node.flush()
    await graph.remove("q")
    assert "No errors" in run("qemu-img", "check", path)
    assert "pattern" not in run("qemu-io", "-f", "qcow2", "-c", "read -P 98 256k 64k", path).lower()


async def test_faults_by_count_and_time(graph: Graph, image: Path) -> None:
    """Of the writes the third and fourth fail; reads take their time."""
    faults = [
        {"iotype": "write", "after": 2, "times": 2, "errno": errno.EIO},
        {"iotype": "read", "delay-ms": 60, "times": 1},
        {"iotype": "flush", "until-ms": 60000, "errno": errno.ENOSPC},
        {"iotype": "discard", "from-ms": 60000, "errno": errno.EIO},
    ]
    node = await graph.add(debug(image, **{"aioemu-faults": faults}))
    results = [(await asyncio.gather(node.write(0, b"x"), return_exceptions=True))[0] is None for _ in range(5)]
    assert results == [True, True, False, False, True]
    loop = asyncio.get_running_loop()
    began = loop.time()
    await node.read(0, 512)
    assert loop.time() - began >= 0.055
    await node.discard(0, 512)
    with pytest.raises(HostError):
        await node.flush()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"inject-error": {"event": "none"}}, "Invalid parameter type for 'inject-error', expected: array"),
        ({"inject-error": [{"event": "vmstate_load"}]}, "event 'vmstate_load' never happens"),
        ({"inject-error": [{}]}, r"Parameter 'inject-error\[0\].event' is missing"),
        ({"set-state": [{"event": "none"}]}, r"Parameter 'set-state\[0\].new_state' is missing"),
        ({"aioemu-faults": [{"errno": 1, "foo": 2}]}, r"Parameter 'aioemu-faults\[0\].foo' is unexpected"),
        ({"align": 3}, "Cannot meet constraints with align 3"),
    ],
)
async def test_rules_that_cannot_be(graph: Graph, image: Path, more: dict[str, Any], words: str) -> None:
    """A rule that would never do anything is a mistake, and is named."""
    with pytest.raises(ConfigError, match=words):
        await graph.add(debug(image, **more))


async def test_a_flush_that_cannot_be_reaches_the_guest(graph: Graph, image: Path) -> None:
    """Through every layer: raw over blkdebug, under a device."""
    below = debug(image, **{"inject-error": [{"event": "flush_to_disk", "iotype": "flush", "errno": errno.EIO}]})
    del below["node-name"]
    backend = Backend(graph, "d")
    backend.insert(await graph.open({"driver": "raw", "file": below}))
    with pytest.raises(HostError) as caught:
        await backend.flush()
    assert caught.value.errno == errno.EIO
    node = backend.eject()
    assert node is not None
    await graph.release(node)


async def test_a_host_device_is_served(graph: Graph, image: Path) -> None:
    """A block device of the host, by its path; its end is the end."""
    losetup = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True)
    if losetup.returncode:
        pytest.skip(f"no loop device here: {losetup.stderr.strip()}")
    device = losetup.stdout.strip()
    try:
        node = await open_image(graph, device, {"driver": "raw", "discard": "unmap"})
        assert (node.file.driver, node.size) == ("host_device", MIB)
        await node.write(4096, b"h" * 4096)
        await node.write_zeroes(8192, 4096, unmap=True)
        await node.discard(65536, 65536)
        await node.flush()
        assert await node.read(4096, 8192) == b"h" * 4096 + bytes(4096)
        with pytest.raises(HostError) as caught:
            await node.file.write(MIB, b"x")
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(ConfigError, match="Cannot grow device files"):
            await node.file.resize(2 * MIB)
        await graph.release(node)
        assert image.read_bytes()[4096:8192] == b"h" * 4096
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


async def test_a_host_device_is_a_device(graph: Graph, image: Path) -> None:
    """A regular file is none."""
    with pytest.raises(
        ConfigError, match=r"'host_device' driver requires '.*' to be either a character or block device"
    ):
        await graph.add({"driver": "host_device", "node-name": "h", "filename": str(image)})
