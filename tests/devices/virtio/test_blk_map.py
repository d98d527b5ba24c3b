"""Files in memory are copied through a mapping once they are used again and again: nobody but a clock notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.virtio.disks import DISCARD, FLUSH, IOERR, OK, READ, WRITE, Disk, disk

MEMORY = "/dev/shm"
SECTOR = 512
SIZE = 1 << 20
PIECE = 64 << 10
TWICE_AND_MORE = 3
every_thread = pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])


@pytest.fixture
def image() -> Iterator[Path]:
    """A file in memory, all of it there, each sector full of its number."""
    with tempfile.NamedTemporaryFile(dir=MEMORY, prefix="aioemu-test-") as file:
        file.write(b"".join(bytes([n % 251]) * SECTOR for n in range(SIZE // SECTOR)))
        file.flush()
        yield Path(file.name)


async def read_all(d: Disk, size: int = SIZE) -> bytes:
    """Every byte, in pieces."""
    found = b""
    for at in range(0, size, PIECE):
        status, data = await d.ask(READ, at // SECTOR, room=PIECE)
        assert status == OK
        found += data
    return found


async def warm(d: Disk, image: Path, size: int = SIZE) -> None:
    """Use it until there is nothing left to be warmed."""
    for _ in range(TWICE_AND_MORE):
        await read_all(d, size)
    assert is_mapped(image)


def is_mapped(image: Path) -> bool:
    return str(image) in Path("/proc/self/maps").read_text()


def resident_kib(image: Path) -> int:
    """How much of its mapping has pages."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(image)):
            return next(int(each.split()[1]) for each in lines if each.startswith("Rss:"))
    return 0


@every_thread
async def test_what_is_read_and_written_is_the_file(image: Path, thread: bool) -> None:
    """Bytes are the same whichever way they go, in pieces or whole, and the file's date changes by a flush at last."""
    async with disk(image, thread=thread) as d:
        await warm(d, image)
        assert resident_kib(image) == SIZE // 1024
        assert await read_all(d) == image.read_bytes()
        os.utime(image, (1, 1))
        assert (await d.ask(WRITE, 100, b"w" * PIECE, cut=1000))[0] == OK
        assert (await d.ask(READ, 99, room=PIECE, cut=777))[1][:1024] == bytes([99]) * SECTOR + b"w" * SECTOR
        assert (await d.ask(FLUSH, 0))[0] == OK
        assert image.stat().st_mtime > 1
        with image.open("rb") as file:
            assert os.pread(file.fileno(), PIECE, 100 * SECTOR) == b"w" * PIECE
    assert not is_mapped(image)


@every_thread
@pytest.mark.parametrize("left", [300 * SECTOR, 301 * SECTOR + 100, 0])
async def test_a_file_that_became_shorter_is_an_error(image: Path, thread: bool, left: int) -> None:
    """What is missing is an I/O error, in the middle of a page too; what is written there is there."""
    async with disk(image, thread=thread) as d:
        await warm(d, image)
        os.truncate(image, left)
        first = -(-left // SECTOR)
        for sector in (left // SECTOR, first, first + 1, 600):
            assert (await d.ask(READ, sector, room=SECTOR))[0] == IOERR
        assert (await d.ask(READ, 296, room=PIECE))[0] == IOERR
        if left:
            assert await d.ask(READ, left // SECTOR - 1, room=SECTOR) == (
                OK,
                bytes([(left // SECTOR - 1) % 251]) * SECTOR,
            )
        assert (await d.ask(WRITE, first, b"w" * SECTOR))[0] == OK  # grows, as a file does
        assert image.stat().st_size == (first + 1) * SECTOR
        assert (await d.ask(READ, first, room=SECTOR))[1] == b"w" * SECTOR


@every_thread
async def test_holes_stay_holes(image: Path, thread: bool) -> None:
    """Reading what is not there takes no memory, whether it never was or was discarded."""
    os.truncate(image, 2 * SIZE)
    options = {
        "driver": "raw",
        "file": {"driver": "file", "filename": str(image), "discard": "unmap"},
        "discard": "unmap",
    }
    async with disk(options, thread=thread) as d:
        await warm(d, image, 2 * SIZE)
        assert image.stat().st_blocks == SIZE // SECTOR
        range_ = (256).to_bytes(8, "little") + (512).to_bytes(4, "little") + bytes(4)
        assert (await d.ask(DISCARD, 0, range_))[0] == OK
        await warm(d, image, 2 * SIZE)
        assert image.stat().st_blocks == SIZE // SECTOR - 512
        assert (await d.ask(READ, 256, room=SECTOR))[1] == bytes(SECTOR)


async def test_a_file_that_is_only_read_is_only_read(image: Path) -> None:
    """A read-only disk maps its file for reading."""
    options = {"driver": "raw", "read-only": True, "file": {"driver": "file", "filename": str(image)}}
    async with disk(options) as d:
        await warm(d, image)
        lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(image) in line]
        assert [line.split()[1] for line in lines] == ["r--s"]


TAKEN = """
import asyncio, pathlib, signal, tempfile
from tests.devices.virtio.disks import disk
from tests.devices.virtio.test_blk_map import SIZE, TWICE_AND_MORE, is_mapped, read_all, warm

async def use_disks(image):
    async with disk(image) as d:
        await warm(d, image)
    signal.signal(signal.SIGBUS, lambda *_: None)
    async with disk(image) as d:
        for _ in range(TWICE_AND_MORE):
            assert await read_all(d) == image.read_bytes()
        assert not is_mapped(image)

with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
    file.write(bytes(range(256)) * (SIZE // 256))
    file.flush()
    asyncio.run(use_disks(pathlib.Path(file.name)))
    print("whole")
"""


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a signal has one handler in a process."""
    command = [sys.executable, *words, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_program_that_takes_sigbus_for_itself_keeps_it() -> None:
    """Where somebody took the signal after us, files are read by calls, and are as right."""
    done = run(TAKEN)
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr


FAULT = """
import asyncio, mmap, pathlib, tempfile
from tests.devices.virtio.disks import OK, READ, disk

async def use_a_disk(image):
    async with disk(image) as d:
        assert (await d.ask(READ, 0, room=512))[0] == OK

with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
    file.truncate(4096)
    asyncio.run(use_a_disk(pathlib.Path(file.name)))
    at = mmap.mmap(file.fileno(), 4096)
    file.truncate(0)
    pathlib.Path(file.name).unlink()
    print("here", flush=True)
    at[0]
"""


@pytest.mark.parametrize("words", [[], ["-X", "faulthandler"]], ids=["alone", "chained"])
def test_faults_of_others_end_the_program_as_ever(words: list[str]) -> None:
    """A bus error that is not ours is not swallowed, and is told by whoever had the signal before."""
    done = run(FAULT, *words)
    assert done.stdout == "here\n", done.stderr
    assert done.returncode == -signal.SIGBUS
    assert ("Fatal Python error: Bus error" in done.stderr) is bool(words)
