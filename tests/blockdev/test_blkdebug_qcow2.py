"""blkdebug's events of qcow2 images that grow, shrink, share tables with a snapshot and take clusters again."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.graph import Graph
from aioemu.errors import HostError

MIB = 1 << 20
SMALL = 512  # the smallest clusters: tables of little reach
pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-utils is not installed")


def qemu(*words: object) -> str:
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60, check=True).stdout


async def fill(node: Any, size: int = 20 * MIB) -> None:
    """Many clusters, so that tables of all kinds are made."""
    for at in range(0, size, MIB):
        await node.write(at, b"f" * MIB)
    await node.flush()


async def take_again(node: Any) -> None:
    """Clusters that were given back, taken by others."""
    await node.write(0, b"a" * MIB)
    await node.flush()
    await node.discard(0, MIB)
    await node.flush()
    await node.extent(2 * MIB, 512, write=True)
    await node.flush()


async def shrink(node: Any) -> None:
    await node.write(20 * MIB, b"e" * 512)
    await node.resize(MIB)


Work = Callable[[Any], Awaitable[None]]
WORK: dict[str, tuple[Work, str]] = {
    "l2_alloc_write": (lambda node: node.write(0, b"a" * 512), "cluster_size=64k"),
    "l2_alloc_cow_read": (lambda node: node.write(0, b"a" * 512), "snapshot"),
    "cluster_free": (take_again, "cluster_size=64k"),
    "cluster_alloc_space": (take_again, "cluster_size=64k"),
    "refblock_alloc": (fill, f"cluster_size={SMALL}"),
    "refblock_alloc_hookup": (fill, f"cluster_size={SMALL}"),
    "reftable_grow": (fill, f"cluster_size={SMALL}"),
    "refblock_alloc_write_blocks": (fill, f"cluster_size={SMALL}"),
    "refblock_alloc_write_table": (fill, f"cluster_size={SMALL}"),
    "refblock_alloc_switch_table": (fill, f"cluster_size={SMALL}"),
    "l1_grow_alloc_table": (lambda node: node.resize(64 * MIB), f"cluster_size={SMALL}"),
    "l1_grow_write_table": (lambda node: node.resize(64 * MIB), f"cluster_size={SMALL}"),
    "l1_grow_activate_table": (lambda node: node.resize(64 * MIB), f"cluster_size={SMALL}"),
    "l1_shrink_write_table": (shrink, f"cluster_size={SMALL}"),
    "l1_shrink_free_l2_clusters": (shrink, f"cluster_size={SMALL}"),
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "disk.qcow2"


def make(image: Path, options: str) -> None:
    """24 MiB; with a snapshot whose tables the disk shares, or with these options."""
    given = [] if options == "snapshot" else ["-o", options]
    qemu("qemu-img", "create", "-q", "-f", "qcow2", *given, image, "24M")
    if options == "snapshot":
        qemu("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", image)
        qemu("qemu-img", "snapshot", "-c", "before", image)


def debugged(image: Path, **rules: Any) -> dict[str, Any]:
    file = {"driver": "file", "filename": str(image), "node-name": "f", "discard": "unmap"}
    return {
        "driver": "qcow2",
        "node-name": "q",
        "discard": "unmap",
        "file": {"driver": "blkdebug", "node-name": "b", "image": file, **rules},
    }


@pytest.mark.parametrize("event", WORK)
async def test_events_of_tables_that_come_and_go(graph: Graph, image: Path, event: str) -> None:
    """What QEMU calls so is called so here, and the image is clean afterwards."""
    work, options = WORK[event]
    make(image, options)
    rules = {"set-state": [{"event": event, "state": 1, "new_state": 2}]}
    node = await graph.add(debugged(image, **rules))
    below: Any = graph.find("b")
    assert below.state == 1
    await work(node)
    assert below.state == 2
    await graph.remove("q")
    assert "No errors" in qemu("qemu-img", "check", image)


@pytest.mark.parametrize("event", WORK)
async def test_a_write_that_fails_there_does_no_harm(graph: Graph, image: Path, event: str) -> None:
    """The next write after the event fails: what was asked for fails or not, and can be done again; nothing is lost."""
    work, options = WORK[event]
    make(image, options)
    rules = {"inject-error": [{"event": event, "iotype": "write", "once": True, "errno": errno.ENOSPC}]}
    node = await graph.add(debugged(image, **rules))

    async def go() -> None:
        await node.write(23 * MIB, b"k" * 4096)
        await work(node)
        await node.flush()

    try:
        await go()
    except HostError:
        await go()
    if node.size > 23 * MIB:
        assert await node.read(23 * MIB, 4096) == b"k" * 4096
    await graph.remove("q")
    if event == "l1_grow_activate_table":  # a header whose write failed may be on the disk: both tables stay
        qemu("qemu-img", "check", "-r", "leaks", image)
    assert "No errors" in qemu("qemu-img", "check", image)


async def test_of_two_rules_the_first_one_holds(graph: Graph, tmp_path: Path) -> None:
    """Two rules of one event match a request: it fails with the first one's error, as under qemu-io."""
    path = tmp_path / "raw"
    path.write_bytes(bytes(4096))
    rules = [{"event": "pwritev", "errno": errno.EIO}, {"event": "pwritev", "errno": errno.ENOSPC}]
    file = {"driver": "file", "filename": str(path), "node-name": "f"}
    node = await graph.add({"driver": "blkdebug", "node-name": "b", "image": file, "inject-error": rules})
    with pytest.raises(HostError) as caught:
        await node.write(0, b"x" * 512)
    assert caught.value.errno == errno.EIO
    said = subprocess.run(
        [
            "qemu-io",
            "-c",
            "write 0 512",
            "--image-opts",
            ",".join(
                [f"driver=blkdebug,image.driver=file,image.filename={path}"]
                + [f"inject-error.{n}.event=pwritev,inject-error.{n}.errno={r['errno']}" for n, r in enumerate(rules)]
            ),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Input/output error" in said.stdout + said.stderr
