"""A crash at every write, with any of the unflushed ones lost: the image is consistent and nothing flushed is gone."""

from __future__ import annotations

import asyncio
import errno
import random
from contextlib import suppress
from pathlib import Path

import pytest

from aioemu.blockdev.node import ExtentKind
from aioemu.blockdev.qcow2.node import Qcow2Node
from aioemu.errors import HostError
from tests.blockdev.qcow2.recorder import Change, MemoryFile, crashes, open_memory
from tests.blockdev.qcow2.tools import KIB, check, make, needs_tools

pytestmark = needs_tools
SIZE = 512 * KIB
SECTOR = 512
JUDGED = 0.08  # of the states, by qemu-img; all of them are opened and read here

FORMATS = (
    "cluster_size=4k",
    "cluster_size=512,refcount_bits=64",
    "cluster_size=4k,compat=0.10",
    "cluster_size=4k,lazy_refcounts=on",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=64k",
)


class Disk:
    """What each sector may hold: what it held at the last flush, or anything written since."""

    def __init__(self, contents: bytes) -> None:
        self.now = bytearray(contents)
        self.may: list[tuple[int, dict[int, set[bytes]]]] = []  # log length, from which on this holds
        self._open: dict[int, set[bytes]] = {
            at: {bytes(contents[at : at + SECTOR])} for at in range(0, len(contents), SECTOR)
        }

    def write(self, offset: int, data: bytes) -> None:
        """About to be written, or perhaps: old and new are both right from now on."""
        for at in range(0, len(data), SECTOR):
            self._open[offset + at].add(data[at : at + SECTOR])
        self.now[offset : offset + len(data)] = data

    def flushed(self) -> None:
        """Only the present contents are right from now on."""
        for at in self._open:
            self._open[at] = {bytes(self.now[at : at + SECTOR])}

    def note(self, log: list[Change]) -> None:
        """From this length of the log on, what may be there is what may be there now."""
        self.may.append((len(log), {at: set(values) for at, values in self._open.items()}))

    def settle(self, contents: bytes) -> None:
        """What is there now, after some writes that failed, is what stays."""
        for at, values in self._open.items():
            assert contents[at : at + SECTOR] in values, f"sector {at // SECTOR}"
        self.now[:] = contents
        self.flushed()

    def check(self, cut: int, contents: bytes) -> None:
        """What was found after a crash at (cut)."""
        at_most = [may for length, may in self.may if length >= cut]
        at_least = [may for length, may in self.may if length <= cut]
        allowed = at_most[0] if at_most else self.may[-1][1]
        before = at_least[-1] if at_least else self.may[0][1]
        for at, values in allowed.items():
            found = contents[at : at + SECTOR]
            assert found in values or found in before[at], f"sector {at // SECTOR} after a crash at change {cut}"


async def change_something(node: Qcow2Node, file: MemoryFile, disk: Disk, chooser: random.Random) -> None:
    """One random operation, as a guest and its request engine do it."""
    first = chooser.randrange(SIZE // SECTOR)
    count = min(chooser.choice((1, 1, 3, 8, 17, 40, 130)), SIZE // SECTOR - first)
    offset, size = first * SECTOR, count * SECTOR
    what = chooser.choice(("write", "write", "place", "place", "place", "zero", "unmap", "discard", "flush"))
    data = bytes((chooser.randrange(1, 256),)) * size if what in ("write", "place") else bytes(size)
    if what == "flush":
        await node.flush()
        disk.flushed()
    else:
        disk.write(offset, data)
        disk.note(file.log)
        await OPERATIONS[what](node, file, offset, data)
        if what == "discard":  # may have left what was there
            disk.now[offset : offset + size] = await node.read(offset, size)
            disk.write(offset, bytes(disk.now[offset : offset + size]))
    disk.note(file.log)


async def write(node: Qcow2Node, file: MemoryFile, offset: int, data: bytes) -> None:
    await node.write(offset, data)


async def place(node: Qcow2Node, file: MemoryFile, offset: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        found = await node.extent(offset + done, len(data) - done, write=True)
        part = min(found.end - offset - done, len(data) - done)
        piece = data[done : done + part]
        if found.kind is ExtentKind.ASK:
            await node.write(offset + done, piece)
        else:
            await file.write(found.host_offset + offset + done - found.start, piece)
        done += part


async def zero(node: Qcow2Node, file: MemoryFile, offset: int, data: bytes) -> None:
    await node.write_zeroes(offset, len(data))


async def unmap(node: Qcow2Node, file: MemoryFile, offset: int, data: bytes) -> None:
    await node.write_zeroes(offset, len(data), unmap=True)


async def discard(node: Qcow2Node, file: MemoryFile, offset: int, data: bytes) -> None:
    await node.discard(offset, len(data))


OPERATIONS = {"write": write, "place": place, "zero": zero, "unmap": unmap, "discard": discard}


def base_image() -> MemoryFile:
    """A backing file with a pattern."""
    return MemoryFile(b"".join(bytes((at % 251 + 1,)) * SECTOR for at in range(SIZE // SECTOR)))


async def judge(folder: Path, state: bytes, cut: int, disk: Disk, backed: bool, chooser: random.Random) -> None:
    """Whether what a crash left is an image, and whose contents."""
    path = folder / "crashed.qcow2"
    judged = chooser.random() < JUDGED
    dirty = state[79] & 1  # counts are to be repaired before the image is used
    file = MemoryFile(state)
    if judged and not dirty:
        path.write_bytes(state)
        check(path, leaks=True)
    node = await open_memory(file, base_image() if backed else None)
    disk.check(cut, await node.read(0, SIZE))
    await node.close()
    if judged and dirty:
        path.write_bytes(file.content)
        check(path)


@pytest.mark.parametrize("backed", [False, True], ids=["alone", "backed"])
@pytest.mark.parametrize("options", FORMATS)
async def test_a_crash_at_any_write_loses_nothing_flushed(tmp_path: Path, options: str, backed: bool) -> None:
    """Each sector holds what it held at the last flush or what was written since, and qemu-img finds only leaks."""
    chooser = random.Random(f"{options} {backed}")
    start = make(tmp_path / "disk.qcow2", SIZE, options).read_bytes()
    base = base_image() if backed else None
    file = MemoryFile(start)
    node = await open_memory(file, base, discard="unmap")
    disk = Disk(await node.read(0, SIZE))
    disk.note(file.log)
    for _ in range(40):
        await change_something(node, file, disk, chooser)
    await node.close()
    disk.flushed()
    disk.note(file.log)
    (tmp_path / "closed.qcow2").write_bytes(file.content)
    check(tmp_path / "closed.qcow2")
    for cut, state in crashes(start, file.log, chooser, 3):
        await judge(tmp_path, state, cut, disk, backed, chooser)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("options", FORMATS)
async def test_a_write_that_fails_is_an_error_and_the_image_stays_whole(
    tmp_path: Path, options: str, number: int
) -> None:
    """The host refuses everything from some write on, then takes it again: no byte that was acknowledged is wrong."""
    chooser = random.Random(f"{options} {number}")
    start = make(tmp_path / "disk.qcow2", SIZE, options).read_bytes()
    for _ in range(6):
        file = MemoryFile(start)
        node = await open_memory(file, base_image(), discard="unmap")
        disk = Disk(await node.read(0, SIZE))
        file.error = HostError("write memory", number)
        for _ in range(4):
            file.fail_at = len(file.log) + chooser.randrange(1, 40)
            with suppress(HostError):
                for _ in range(20):
                    await change_something(node, file, disk, chooser)
            file.fail_at = None
            await node.flush()
            disk.settle(await node.read(0, SIZE))
        await node.close()
        (tmp_path / "closed.qcow2").write_bytes(file.content)
        check(tmp_path / "closed.qcow2")


class SlowFile(MemoryFile):
    """One whose writes take some turns of the loop."""

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        await super().write(offset, data)


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=512,refcount_bits=64", "cluster_size=1k"])
async def test_tables_stay_until_they_are_written(tmp_path: Path, options: str) -> None:
    """A cache of two tables, and flushes while others need tables: none is read back before its write was through."""
    size = 2048 * KIB
    file = SlowFile(make(tmp_path / "disk.qcow2", size, options).read_bytes())
    node = await open_memory(file, discard="unmap", l2_cache_size=1024, refcount_cache_size=1024)
    truth = bytearray(size)
    chooser = random.Random(options)

    async def work(number: int) -> None:
        for _ in range(120):
            at = (chooser.randrange(size // SECTOR // 8) * 8 + number) * SECTOR
            byte = chooser.randrange(256)
            if byte:
                await node.write(at, bytes((byte,)) * SECTOR)
            else:
                await node.write_zeroes(at, SECTOR, unmap=True)
            truth[at : at + SECTOR] = bytes((byte,)) * SECTOR
            if chooser.random() < 0.3:
                await node.flush()

    await asyncio.gather(*(work(number) for number in range(8)))
    assert await node.read(0, size) == truth
    await node.close()
    (tmp_path / "closed.qcow2").write_bytes(file.content)
    check(tmp_path / "closed.qcow2")
    node = await open_memory(file)
    assert await node.read(0, size) == truth


@pytest.mark.parametrize("how", ["write", "extent"])
async def test_what_has_a_place_is_not_copied_over(tmp_path: Path, how: str) -> None:
    """A subcluster that was told as an extent may be written natively at any moment: its neighbours leave it alone."""
    file = MemoryFile(make(tmp_path / "disk.qcow2", SIZE, "extended_l2=on,cluster_size=64k").read_bytes())
    node = await open_memory(file, base_image())
    await node.write(4 * KIB, b"old" * 1024)
    told = await node.extent(4 * KIB, 2 * KIB, write=True)
    assert told.kind is ExtentKind.DATA
    assert told.writable
    place = range(told.host_offset, told.host_offset + told.length)
    before = len(file.log)
    if how == "write":
        await node.write(1536, b"new" * 512)
        await node.write(8 * KIB + 512, b"new" * 512)
    else:
        await node.extent(1536, 32 * KIB, write=True)
        await node.extent(8 * KIB, 32 * KIB, write=True)
    written = [change for change in file.log[before:] if change.what == "write"]
    assert written
    assert not any(each.offset < place.stop and place.start < each.offset + len(each.data) for each in written)
