"""Hosts that fail under a disk: a full file system, a file that shrinks or loses its descriptor, up to the driver."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.file import FileNode
from tests.devices.virtio.disks import IOERR, OK, READ, WRITE, WRITE_ZEROES, disk

MIB = 1 << 20
EVERY_THREAD = pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MIB}", "aioemu-test", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user cannot mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def options(path: Path, **file: Any) -> dict[str, Any]:
    return {"driver": "raw", "file": {"driver": "file", "filename": str(path), **file}}


@EVERY_THREAD
async def test_a_full_file_system(small: Path, thread: bool) -> None:
    """ENOSPC reaches the driver as an error with its reason; what was there stays, and writing goes on elsewhere."""
    path = small / "disk"
    path.touch()
    os.truncate(path, 8 * MIB)
    async with disk(options(path), thread=thread, werror="report") as d:
        written = 0
        while (await d.ask(WRITE, written // 512, os.urandom(65536)))[0] == OK:
            written += 65536
            assert written <= MIB
        await d.until(lambda: bool(d.errors))
        assert d.errors[-1].errno == errno.ENOSPC
        assert (await d.ask(READ, 0, room=65536))[0] == OK
        assert await d.ask(WRITE, 0, b"x" * 512) == (OK, b"")
        assert await d.ask(READ, 0, room=512) == (OK, b"x" * 512)


@EVERY_THREAD
@pytest.mark.parametrize("offset", [0, 65536])
async def test_a_file_that_shrinks(tmp_path: Path, thread: bool, offset: int) -> None:
    """What others cut off is an error, not zeroes; what is left is served."""
    path = tmp_path / "disk"
    path.write_bytes(b"d" * MIB)
    async with disk(options(path), thread=thread) as d:
        assert await d.ask(READ, 0, room=512) == (OK, b"d" * 512)
        os.truncate(path, 65536 + 256)
        assert (await d.ask(READ, (65536 + offset) // 512, room=4096))[0] == IOERR
        assert await d.ask(READ, 127, room=512) == (OK, b"d" * 512)
        await d.until(lambda: bool(d.errors))


@EVERY_THREAD
async def test_a_descriptor_that_is_gone(tmp_path: Path, thread: bool) -> None:
    """Somebody closed it: errors, and the device lives on."""
    path = tmp_path / "disk"
    path.write_bytes(b"d" * MIB)
    async with disk(options(path), thread=thread, werror="report") as d:
        assert (await d.ask(READ, 0, room=512))[0] == OK
        node = d.device.backend.node.file
        assert isinstance(node, FileNode)
        saved = os.dup(node.fd)
        os.close(node.fd)
        assert (await d.ask(READ, 8, room=512))[0] == IOERR
        assert (await d.ask(WRITE, 8, bytes(512)))[0] == IOERR
        assert (await d.ask(WRITE_ZEROES, 0, struct.pack("<QII", 8, 8, 0)))[0] == IOERR
        os.dup2(saved, node.fd)
        os.close(saved)
        assert await d.ask(READ, 0, room=512) == (OK, b"d" * 512)


async def test_faults_reach_the_driver(tmp_path: Path) -> None:
    """blkdebug under a device: exactly the requests that the rule names fail."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(MIB))
    faults = [{"iotype": "write", "after": 1, "times": 1, "errno": 5}]
    image = {"driver": "file", "filename": str(path)}
    node = {"driver": "raw", "file": {"driver": "blkdebug", "image": image, "aioemu-faults": faults}}
    async with disk(node, werror="report") as d:
        states = [(await d.ask(WRITE, n, bytes([n]) * 512))[0] for n in range(3)]
    assert states == [OK, IOERR, OK]
    assert path.read_bytes()[:1536] == bytes(1024) + b"\2" * 512
