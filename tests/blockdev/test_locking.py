"""Image locks against the programs they are for: qemu-img and qemu-io meet ours, and we meet theirs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.file import FileNode, FileOptions
from aioemu.blockdev.graph import Graph
from aioemu.blockdev.options import CacheOptions
from aioemu.blockdev.permissions import Permission
from aioemu.errors import ConfigError
from tests.blockdev.test_graph import SHARED, USED, Device, file_of

needs_qemu = pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-utils is not installed")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


@contextlib.asynccontextmanager
async def qemu_io(image: Path, *options: str) -> AsyncIterator[None]:
    """A qemu-io that has the image open."""
    words = ("qemu-io", *options, "-f", "raw", str(image))
    process = await asyncio.create_subprocess_exec(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"length\n")
    await process.stdin.drain()
    while b"MiB" not in await process.stdout.readline():
        pass
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


@needs_qemu
async def test_our_writer_keeps_theirs_out(graph: Graph, image: Path) -> None:
    """While a device writes, qemu-io cannot write and qemu-img can look; afterwards both can."""
    node = await graph.add(file_of(image, **{"node-name": "f"}))
    assert run("qemu-io", "-f", "raw", "-c", "write 0 512", str(image)).returncode == 0
    edge = graph.attach(Device("d"), "root", node, USED, SHARED)
    found = run("qemu-io", "-f", "raw", "-c", "write 0 512", str(image))
    assert 'Failed to get "write" lock' in found.stderr
    assert run("qemu-img", "info", "-U", "-f", "raw", str(image)).returncode == 0
    graph.detach(edge)
    assert run("qemu-io", "-f", "raw", "-c", "write 0 512", str(image)).returncode == 0


@needs_qemu
async def test_their_writer_keeps_ours_out(graph: Graph, image: Path) -> None:
    """While qemu-io has the image open for writing ours is refused in QEMU's words, and nothing of it stays."""
    node = await graph.add(file_of(image, **{"node-name": "f"}))
    async with qemu_io(image):
        with pytest.raises(ConfigError) as caught:
            graph.attach(Device("d"), "root", node, USED, SHARED)
        assert str(caught.value) == 'Failed to get shared "write" lock'
        assert caught.value.__notes__ == [f"Is another process using the image [{image}]?"]
    assert run("qemu-io", "-f", "raw", "-c", "write 0 512", str(image)).returncode == 0
    graph.detach(graph.attach(Device("d"), "root", node, USED, SHARED))


@needs_qemu
async def test_readers_do_not_bar_each_other(graph: Graph, image: Path) -> None:
    """Any number of programs may read; a writer comes when none insists on unchanged data."""
    node = await graph.add(file_of(image, **{"node-name": "f", "read-only": True}))
    edge = graph.attach(Device("d"), "root", node, Permission.CONSISTENT_READ, SHARED)
    async with qemu_io(image, "-r"):
        assert run("qemu-img", "info", "-f", "raw", str(image)).returncode == 0
    assert 'Failed to get "write" lock' in run("qemu-io", "-f", "raw", "-c", "write 0 512", str(image)).stderr
    graph.detach(edge)


@needs_qemu
@pytest.mark.parametrize("more", [{"locking": "off"}, {"force-share": True, "read-only": True}])
async def test_who_does_not_ask_is_let_in(graph: Graph, image: Path, more: dict[str, Any]) -> None:
    """locking=off takes no lock, force-share shares everything."""
    async with qemu_io(image):
        node = await graph.add(file_of(image, **{"node-name": "f", **more}))
        used = Permission.CONSISTENT_READ if node.read_only else USED
        graph.detach(graph.attach(Device("d"), "root", node, used, Permission.ALL & ~Permission.WRITE))


async def test_a_second_node_on_the_file_meets_the_first(graph: Graph, image: Path) -> None:
    """Locks belong to the open file: one process does not excuse two writers."""
    one = await graph.add(file_of(image, **{"node-name": "a"}))
    two = await graph.add(file_of(image, **{"node-name": "b"}))
    edge = graph.attach(Device("d1"), "root", one, USED, SHARED)
    with pytest.raises(ConfigError, match='Failed to get "write" lock'):
        graph.attach(Device("d2"), "root", two, USED, SHARED)
    graph.detach(edge)
    graph.detach(graph.attach(Device("d2"), "root", two, USED, SHARED))


@needs_qemu
async def test_a_file_opened_again_keeps_its_locks(graph: Graph, image: Path) -> None:
    """From the page cache to direct access and back: nobody slips in, and the descriptor keeps its number."""
    node = await graph.add(file_of(image, **{"node-name": "f"}))
    edge = graph.attach(Device("d"), "root", node, USED, SHARED)
    assert isinstance(node, FileNode)
    fd = node.fd
    for direct in (True, False):
        cache = CacheOptions(direct=direct)
        await node.reopen(FileOptions(filename=str(image), node_name="f", cache=cache))
        assert node.fd == fd
        assert not os.get_inheritable(fd)
        assert bool(os.O_DIRECT & fcntl.fcntl(fd, fcntl.F_GETFL)) is direct
        assert 'Failed to get "write" lock' in run("qemu-io", "-f", "raw", "-c", "write 0 512", str(image)).stderr
    await node.write(0, b"x" * 512)
    graph.detach(edge)
