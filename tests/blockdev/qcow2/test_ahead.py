"""Places that a sequential writer is given before it asks, and what comes of them when they cannot be had."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.node import Extent, ExtentKind
from aioemu.errors import HostError
from tests.blockdev.qcow2.tools import KIB, MIB, check, contents, make, needs_tools
from tests.devices.virtio.disks import FLUSH, OK, READ, WRITE, Disk, disk

pytestmark = needs_tools
SECTOR = 512
PIECE = 64 * KIB
SIZE = 16 * MIB
every_thread = pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])


def options(path: Path) -> dict[str, Any]:
    return {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}


def piece(at: int) -> bytes:
    return bytes((at // PIECE % 255 + 1,)) * PIECE


async def write_row(made: Disk, start: int, end: int) -> None:
    """Piece after piece."""
    for at in range(start, end, PIECE):
        assert (await made.ask(WRITE, at // SECTOR, piece(at)))[0] == OK


class Asked:
    """What the engine asks of a backend from now on; `refuse` makes every answer an error."""

    def __init__(self, made: Disk) -> None:
        backend = made.device.engine.backend
        self._extent = backend.extent
        self.told: list[Extent] = []
        self.refuse = False
        self.refused = 0
        backend.extent = self.extent  # type: ignore[method-assign]

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        if self.refuse:
            self.refused += 1
            raise HostError("no place", errno.EIO)
        found = await self._extent(offset, size, write=write)
        self.told.append(found)
        return found

    def end(self) -> int:
        """How far the writer may go without asking."""
        return max((each.end for each in self.told if each.kind is ExtentKind.DATA and each.writable), default=0)


@every_thread
async def test_a_sequential_writer_waits_for_no_place(tmp_path: Path, thread: bool) -> None:
    """While it writes, the places behind what it has are found: it goes on even when nobody answers any more."""
    path = make(tmp_path / "disk.qcow2", SIZE)
    async with disk(options(path), thread=thread) as made:
        asked = Asked(made)
        await write_row(made, 0, MIB)
        await made.until(lambda: asked.end() >= 3 * MIB)
        asked.refuse = True
        await write_row(made, MIB, asked.end())
        asked.refuse = False
        await write_row(made, asked.end(), SIZE)
        assert (await made.ask(FLUSH, 0))[0] == OK
    check(path)
    assert contents(path) == b"".join(piece(at) for at in range(0, SIZE, PIECE))


@every_thread
async def test_places_that_cannot_be_found_ahead_fail_no_request(tmp_path: Path, thread: bool) -> None:
    """Nobody asked for them: the requests that need one ask again, and get the answer of then."""
    path = make(tmp_path / "disk.qcow2", SIZE)
    async with disk(options(path), thread=thread) as made:
        asked = Asked(made)
        await write_row(made, 0, 2 * PIECE)
        asked.refuse = True
        await write_row(made, 2 * PIECE, MIB)
        await made.until(lambda: asked.refused == 1)
        asked.refuse = False
        await write_row(made, MIB, 2 * MIB)
        assert not made.errors
    check(path, leaks=True)  # what is looked for ahead when the end comes may be counted and not used


async def test_who_writes_here_and_there_gets_no_more_than_it_writes(tmp_path: Path) -> None:
    """A writer that is not sequential, however much it writes, has the clusters that it wrote and no others."""
    path = make(tmp_path / "disk.qcow2", SIZE)
    places = [at * 2 * PIECE for at in range(SIZE // PIECE // 2)]
    async with disk(options(path)) as made:
        for at in places[::2] + places[1::2]:
            for _ in range(2):
                assert (await made.ask(WRITE, at // SECTOR, piece(at)))[0] == OK
    assert check(path)["allocated-clusters"] == len(places)


async def test_what_lies_below_stays_readable_ahead_of_a_writer(tmp_path: Path) -> None:
    """Over a backing file with data nothing is given ahead: what was not written reads as it was."""
    base = bytes(range(256)) * (SIZE // 256)
    (tmp_path / "base.raw").write_bytes(base)
    path = make(tmp_path / "disk.qcow2", SIZE, "", "-b", "base.raw", "-F", "raw")
    async with disk(options(path)) as made:
        await write_row(made, 0, 2 * MIB)
        for at in range(2 * MIB, SIZE, MIB):
            assert await made.ask(READ, at // SECTOR, room=PIECE) == (OK, base[at : at + PIECE])
    check(path)
    assert contents(path) == b"".join(piece(at) for at in range(0, 2 * MIB, PIECE)) + base[2 * MIB :]
