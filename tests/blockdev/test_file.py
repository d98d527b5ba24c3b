"""The `file` driver against real files: contents, growth, holes, and files that change underneath."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aioemu.blockdev.file import FileNode, FileOptions
from aioemu.blockdev.graph import Graph
from aioemu.blockdev.node import ExtentKind, Opener
from aioemu.errors import ConfigError, HostError

NO_GRAPH: Opener = Graph(lambda *words: None)  # a file has no children to ask for
SIZE = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    return path


async def opened(path: Path, **options: object) -> FileNode:
    node = FileNode("disk", FileOptions(filename=str(path), **options))  # type: ignore[arg-type]
    await node.open(NO_GRAPH)
    return node


@pytest.fixture
async def node(path: Path) -> AsyncIterator[FileNode]:
    node = await opened(path, discard="unmap")
    yield node
    await node.close()


async def test_reads_and_writes_what_the_file_has(node: FileNode, path: Path) -> None:
    """Offsets are the file's own; what was written and flushed is there for everybody."""
    before = path.read_bytes()
    assert await node.read(4096, 1000) == before[4096:5096]
    await node.write(100, b"hello")
    await node.flush()
    assert path.read_bytes() == before[:100] + b"hello" + before[105:]


async def test_writes_beyond_the_end_make_it_longer(node: FileNode, path: Path) -> None:
    """An image format grows its file by writing; the gap reads as zeroes."""
    await node.write(SIZE + 4096, b"x" * 512)
    assert node.size == SIZE + 4096 + 512 == path.stat().st_size
    assert await node.read(SIZE, 4096) == bytes(4096)
    assert await node.read(node.size - 1, 10) == b"x" + bytes(9)


async def test_growing_cuts_nothing_off(node: FileNode, path: Path) -> None:
    """What another thread has just written behind the end stays, though the node does not know of it yet."""
    os.pwrite(node.fd, b"new", 4 * SIZE)
    await node.grow(2 * SIZE)
    assert path.read_bytes()[4 * SIZE :] == b"new"
    await node.write_zeroes(SIZE, 2 * SIZE)
    assert path.read_bytes()[4 * SIZE :] == b"new"
    await node.grow(8 * SIZE)
    assert node.size == path.stat().st_size == 8 * SIZE


async def test_zeroes_where_the_host_cannot_make_them_in_place() -> None:
    """On a file system in memory a range is let go of and taken again: it reads as zeros, and its space stays taken."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="aioemu-test-") as file:
        file.write(b"x" * SIZE)
        file.flush()
        node = await opened(Path(file.name))
        before = await node.allocated_bytes()
        await node.write_zeroes(4096, SIZE // 2)
        assert await node.read(0, SIZE) == b"x" * 4096 + bytes(SIZE // 2) + b"x" * (SIZE // 2 - 4096)
        assert await node.allocated_bytes() == before
        await node.close()


async def test_one_extent_covers_the_file(node: FileNode) -> None:
    """The request engine needs no second question for a raw file."""
    extent = await node.extent(5000, 512)
    assert (extent.start, extent.length, extent.kind, extent.fd) == (0, SIZE, ExtentKind.DATA, node.fd)
    part = extent.within(4096, 8192)
    assert (part.start, part.length, part.host_offset) == (4096, 4096, 4096)


async def test_zeroes_and_discards_make_holes(node: FileNode, path: Path) -> None:
    """With discard=unmap, unmapped zeroes take no space on the host."""
    before = path.stat().st_blocks
    await node.write_zeroes(0, SIZE // 2, unmap=True)
    assert await node.read(0, SIZE // 2) == bytes(SIZE // 2)
    assert path.stat().st_blocks <= before // 2 + 8
    await node.discard(SIZE // 2, SIZE // 4)
    assert path.stat().st_blocks <= before // 4 + 8
    assert (await node.next_data(0))[0] == SIZE * 3 // 4


async def test_zeroes_beyond_the_end_make_it_longer(node: FileNode, path: Path) -> None:
    """Zeroes grow the file as data does."""
    await node.write_zeroes(SIZE, 65536)
    assert path.stat().st_size == node.size == SIZE + 65536


async def test_a_file_cut_off_by_others_is_an_error(node: FileNode, path: Path) -> None:
    """What the file has lost is not read as zeroes."""
    os.truncate(path, 4096)
    assert len(await node.read(0, 4096)) == 4096
    with pytest.raises(HostError) as caught:
        await node.read(0, 8192)
    assert caught.value.errno == errno.EIO


async def test_a_removed_file_lives_until_it_is_closed(node: FileNode, path: Path) -> None:
    """A name that goes away takes nothing with it."""
    before = path.read_bytes()
    path.unlink()
    assert await node.read(0, SIZE) == before


async def test_a_closed_descriptor_is_an_error(path: Path) -> None:
    """Somebody who closes our descriptor makes errors, not damage."""
    node = await opened(path)
    os.close(node.fd)
    for request in (node.read(0, 512), node.write(0, b"x"), node.flush()):
        with pytest.raises(HostError) as caught:
            await request
        assert caught.value.errno == errno.EBADF
    node.fd = -1
    await node.close()


async def test_a_flush_that_failed_never_succeeds_again(node: FileNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host forgets what it could not write back: a later success would be a lie."""

    def fdatasync(fd: int) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(HostError):
            await node.flush()
    with pytest.raises(HostError) as caught:
        await node.flush()
    assert caught.value.errno == errno.EIO


async def test_closing_waits_for_calls_that_nobody_waits_for(path: Path) -> None:
    """A write that was begun is over before its descriptor is closed."""
    node = await opened(path)
    task = asyncio.create_task(node.write(0, bytes(SIZE)))
    await asyncio.sleep(0)  # it has begun
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await node.close()
    assert node.fd == -1
    assert path.read_bytes() == bytes(SIZE)


async def test_an_end_that_nobody_waits_for_waits_for_calls(path: Path) -> None:
    """close_now blocks until a write that was begun is over: its descriptor's number must not be another file's."""
    graph = Graph(lambda *words: None)
    node = await graph.open({"driver": "file", "filename": str(path)})
    task = asyncio.create_task(node.write(0, bytes(SIZE)))
    await asyncio.sleep(0)  # it has begun
    graph.close_now()
    assert path.read_bytes() == bytes(SIZE)
    await asyncio.gather(task, return_exceptions=True)


async def test_an_open_that_is_cancelled_leaves_no_descriptor(path: Path) -> None:
    """Whoever gives up while the host opens the file has nothing to close."""
    graph = Graph(lambda *words: None)
    for turns in range(6):
        task = asyncio.create_task(graph.open({"driver": "file", "filename": str(path)}))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done = (await asyncio.gather(task, return_exceptions=True))[0]
        if not isinstance(done, BaseException):
            await graph.release(done)
    assert not graph.nodes
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if fd.exists() and fd.resolve() == path]
    await graph.close()


async def test_read_only_refuses_writes(path: Path) -> None:
    """Nothing gets through a read-only node."""
    node = await opened(path, read_only=True)
    with pytest.raises(HostError) as caught:
        await node.write(0, b"x")
    assert caught.value.errno == errno.EACCES
    await node.close()


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder is no disk, and a missing file has the host's reason."""
    node = FileNode("n", FileOptions(filename=str(tmp_path), read_only=True))
    with pytest.raises(ConfigError, match="regular file"):
        await node.open(NO_GRAPH)
    await node.close()
    with pytest.raises(HostError, match=r"Could not open '.*': No such file"):
        await opened(tmp_path / "missing")


async def test_a_full_disk_is_an_error_and_keeps_the_rest(node: FileNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC reaches whoever wrote; the node goes on."""

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(HostError) as caught:
            await node.write(0, b"x" * 512)
        assert caught.value.errno == errno.ENOSPC
    await node.write(0, b"x" * 512)
    assert await node.read(0, 512) == b"x" * 512


async def test_direct_access_takes_any_range(path: Path) -> None:
    """With cache.direct=on a range that is no whole block is read, changed and written."""
    from aioemu.blockdev.options import CacheOptions

    try:
        node = await opened(path, cache=CacheOptions(direct=True))
    except HostError:
        pytest.skip("this file system has no O_DIRECT")
    before = path.read_bytes()
    assert await node.read(3, 5000) == before[3:5003]
    await node.write(1000, b"y" * 9)
    await node.close()
    assert path.read_bytes() == before[:1000] + b"y" * 9 + before[1009:]


async def test_requests_go_on_while_a_file_is_opened_in_another_way(path: Path) -> None:
    """From the page cache to direct access and back with reads and writes of parts of blocks under way: none fails."""
    from aioemu.blockdev.options import CacheOptions

    node = await opened(path)
    model = bytearray(path.read_bytes())

    async def use(first: int) -> None:
        for turn in range(60):
            at = first + 37 * turn % 400
            model[at : at + 9] = data = bytes([turn + 1]) * 9
            await node.write(at, data)
            assert await node.read(at, 9) == data

    users = asyncio.gather(*(use(600 * n) for n in range(16)))
    ways = 0
    try:
        while not users.done():
            ways += 1
            cache = CacheOptions(direct=bool(ways % 2))
            await node.reopen(FileOptions(filename=str(path), node_name="f", cache=cache))
    except HostError:
        users.cancel()
        pytest.skip("this file system has no O_DIRECT")
    await users
    assert ways > 2
    await node.close()
    assert path.read_bytes() == bytes(model)
