"""virtio-blk does what a driver asks, whatever way it is asked, and refuses what cannot be."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.file import FileOptions
from aioemu.blockdev.options import CacheOptions
from tests.devices.virtio.disks import DISCARD, FLUSH, GET_ID, IOERR, OK, READ, UNSUPP, WRITE, WRITE_ZEROES, disk
from tests.devices.virtio.driver import ACKNOWLEDGE, DRIVER, NEEDS_RESET, STATUS

SECTORS = 512
SECTOR = 512
CONFIG = 0x100
RINGS = {"split": {}, "packed": {"packed": True}, "plain": {"event_idx": False, "indirect_desc": False}}
every_ring = pytest.mark.parametrize("ring", list(RINGS.values()), ids=list(RINGS))
every_thread = pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])


@pytest.fixture(params=["disk", "memory"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file of 512 sectors, each full of its own number; on a disk, and on a file system without one."""
    path = tmp_path / "image" if request.param == "disk" else Path(f"/dev/shm/aioemu-test-{os.getpid()}")
    path.write_bytes(b"".join(bytes([n & 0xFF]) * SECTOR for n in range(SECTORS)))
    yield path
    path.unlink()


@every_ring
@every_thread
@pytest.mark.parametrize("cut", [1 << 20, 4096, 1000, 7, 1])
async def test_any_framing(image: Path, ring: dict[str, Any], thread: bool, cut: int) -> None:
    """Header, data and status may be cut anywhere; what is written is read back, and is in the file."""
    size = SECTOR if cut < 100 else 8 * SECTOR
    if cut == 1 and "indirect_desc" in ring:
        cut = 5  # such a chain does not fit the ring without a table
    async with disk(image, thread=thread, queue_size=1024, **ring) as d:
        written = os.urandom(size)
        assert await d.ask(WRITE, 3, written, cut=cut) == (OK, b"")
        assert await d.ask(READ, 3, room=size, cut=cut) == (OK, written)
        assert await d.ask(READ, 100, room=SECTOR, cut=cut) == (OK, bytes([100]) * SECTOR)
        assert await d.ask(FLUSH, 0, cut=cut) == (OK, b"")
    assert image.read_bytes()[3 * SECTOR : 3 * SECTOR + size] == written


@every_thread
@pytest.mark.parametrize("aio", ["threads", "io_uring", "native"])
async def test_a_file_that_has_to_be_waited_for(tmp_path: Path, aio: str, thread: bool) -> None:
    """O_DIRECT goes to the kernel or to a thread: many at once come back with the right bytes, buffers askew too."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(SECTORS * SECTOR))
    node = {
        "driver": "raw",
        "file": {"driver": "file", "filename": str(path), "aio": aio, "cache": {"direct": True}},
    }
    content = path.read_bytes()
    async with disk(node, thread=thread) as d:
        asked = [d.put(READ, 8 * n, room=4096) for n in range(32)]
        d.rings[0].kick()
        for n, (number, writable, room) in enumerate(asked):
            await d.wait(number)
            assert d.back(writable, room) == (OK, content[4096 * n : 4096 * (n + 1)])
        assert await d.ask(WRITE, 0, b"a" * 4096) == (OK, b"")
        assert await d.ask(FLUSH, 0) == (OK, b"")
    assert path.read_bytes()[:4096] == b"a" * 4096


BAD = {
    "beyond the end": (READ, SECTORS, b"", SECTOR, IOERR),
    "across the end": (READ, SECTORS - 1, b"", 2 * SECTOR, IOERR),
    "an offset that overflows": (READ, 1 << 55, b"", SECTOR, IOERR),
    "the last sector number": (WRITE, (1 << 64) - 1, bytes(SECTOR), 0, IOERR),
    "no whole sectors": (READ, 0, b"", 700, IOERR),
    "a write of no whole sectors": (WRITE, 0, bytes(100), 0, IOERR),
    "an unknown type": (77, 0, b"", SECTOR, UNSUPP),
    "a large type": (0xFFFFFFFF, 0, b"", SECTOR, UNSUPP),
    "a SCSI command": (2, 0, bytes(32), 96, UNSUPP),
    "a discard of everything": (DISCARD, 0, struct.pack("<QII", 0, 0xFFFFFFFF, 0), 0, IOERR),
    "a discard that overflows": (DISCARD, 0, struct.pack("<QII", (1 << 64) - 1, 2, 0), 0, IOERR),
    "zeroes over everything": (WRITE_ZEROES, 0, struct.pack("<QII", 0, 0xFFFFFFFF, 1), 0, IOERR),
    "zeroes across the end": (WRITE_ZEROES, 0, struct.pack("<QII", SECTORS - 1, 2, 0), 0, IOERR),
    "reserved flags": (WRITE_ZEROES, 0, struct.pack("<QII", 0, 1, 4), 0, UNSUPP),
    "a discard with a flag": (DISCARD, 0, struct.pack("<QII", 0, 1, 1), 0, UNSUPP),
    "two ranges": (DISCARD, 0, struct.pack("<QIIQII", 0, 1, 0, 1, 1, 0), 0, UNSUPP),
    "half a range": (DISCARD, 0, bytes(8), 0, IOERR),
}


@pytest.mark.parametrize("case", list(BAD.values()), ids=list(BAD))
async def test_a_request_that_cannot_be_is_refused(image: Path, case: tuple[int, int, bytes, int, int]) -> None:
    """The driver gets a status, no byte of the file changes, and the next request is served."""
    kind, sector, data, room, expected = case
    before = image.read_bytes()
    async with disk(image) as d:
        status, _ = await d.ask(kind, sector, data, room)
        assert status == expected
        assert await d.ask(READ, 1, room=SECTOR) == (OK, b"\1" * SECTOR)
        assert not d.errors
    assert image.read_bytes() == before


@pytest.mark.parametrize("chain", ["no status", "no header", "half a header"])
async def test_a_chain_without_header_or_status_stops_the_device(image: Path, chain: str) -> None:
    """Where there is no place to answer, the device needs a reset, and works after it."""
    async with disk(image) as d:
        header = d.take(16)
        pieces = {
            "no status": [(header, 16, False)],
            "no header": [(header, 16, True)],
            "half a header": [(header, 8, False), (header + 8, 8, True)],
        }
        d.rings[0].add(pieces[chain])
        d.rings[0].kick()
        await d.until(lambda: bool(d.board.read(STATUS) & NEEDS_RESET))
        d.board.write(STATUS, 0)
        d.again()
        assert await d.ask(READ, 1, room=SECTOR) == (OK, b"\1" * SECTOR)


async def test_the_serial_number_is_as_long_as_there_is_room(image: Path) -> None:
    """Twenty bytes, filled up with zeroes; less room, fewer bytes."""
    async with disk(image, serial="WD-12345") as d:
        assert await d.ask(GET_ID, 0, room=20) == (OK, b"WD-12345".ljust(20, b"\0"))
        assert await d.ask(GET_ID, 0, room=4, cut=3) == (OK, b"WD-1")
        status, data = await d.ask(GET_ID, 0, room=100)
        assert (status, data[:20]) == (OK, b"WD-12345".ljust(20, b"\0"))


async def test_discard_and_zeroes(image: Path) -> None:
    """Zeroes are zeroes, with or without giving space back; a discard is only advice."""
    async with disk(image) as d:
        assert await d.ask(WRITE_ZEROES, 0, struct.pack("<QII", 8, 8, 0)) == (OK, b"")
        assert await d.ask(WRITE_ZEROES, 0, struct.pack("<QII", 24, 8, 1)) == (OK, b"")
        assert await d.ask(DISCARD, 0, struct.pack("<QII", 40, 8, 0)) == (OK, b"")
        assert await d.ask(READ, 8, room=8 * SECTOR) == (OK, bytes(8 * SECTOR))
        assert await d.ask(READ, 24, room=8 * SECTOR) == (OK, bytes(8 * SECTOR))
        assert (await d.ask(READ, 32, room=SECTOR))[1] == bytes([32]) * SECTOR


@every_thread
async def test_places_change_with_requests_under_way(tmp_path: Path, thread: bool) -> None:
    """A file is opened in another way again and again, buffers askew for direct access: every request succeeds."""
    path = tmp_path / "image"
    content = os.urandom(SECTORS * SECTOR)
    path.write_bytes(content)
    options = FileOptions(filename=str(path))
    node = {"driver": "raw", "file": {"driver": "file", "filename": str(path)}}
    async with disk(node, thread=thread) as d:
        file: Any = d.device.backend.node.file
        for turn in range(120):
            asked = [(n, d.put(READ, n, room=SECTOR)) for n in range(turn % 7, 64, 3)]
            d.rings[0].kick()
            await file.reopen(replace(options, cache=CacheOptions(direct=turn % 2 == 0)))
            for n, (number, writable, room) in asked:
                await d.wait(number)
                assert d.back(writable, room) == (OK, content[n * SECTOR :][:SECTOR])


async def test_reset_with_requests_under_way(tmp_path: Path) -> None:
    """After a reset nothing of the old requests reaches memory, and the device serves the next driver."""
    path = tmp_path / "image"
    path.write_bytes(bytes(SECTORS * SECTOR))
    node = {"driver": "raw", "file": {"driver": "file", "filename": str(path), "cache": {"direct": True}}}
    async with disk(node, thread=True) as d:
        for _ in range(20):
            asked = [d.put(READ, 8 * n, room=4096) for n in range(32)]
            d.rings[0].kick()
            d.board.write(STATUS, 0)
            buffers = [piece for _, writable, _ in asked for piece in writable]
            for at, size, _ in buffers:
                d.board.memory.write(at, b"\x55" * size)
            d.again()
            assert await d.ask(READ, 0, room=SECTOR) == (OK, bytes(SECTOR))
            assert all(d.board.memory.read(at, size) in (b"\x55" * size, bytes(size)) for at, size, _ in buffers[1:-1])


@pytest.mark.parametrize(("given", "sectors"), [({}, 8), ({"report_discard_granularity": False}, 1)])
async def test_how_discards_are_aligned(image: Path, given: dict[str, Any], sectors: int) -> None:
    """The driver learns the granularity that was given, or a block's where it shall not."""
    async with disk(image, discard_granularity=4096, **given) as d:
        assert struct.unpack_from("<I", d.device.config, 44)[0] == sectors


async def test_a_read_only_disk_is_not_written(image: Path) -> None:
    """Writes, zeroes and discards are refused, and the driver is told beforehand."""
    node = {"driver": "raw", "read-only": True, "file": {"driver": "file", "filename": str(image)}}
    async with disk(node) as d:
        assert d.device.features & 1 << 5
        assert (await d.ask(WRITE, 0, bytes(SECTOR)))[0] == IOERR
        assert (await d.ask(WRITE_ZEROES, 0, struct.pack("<QII", 0, 1, 0)))[0] == IOERR
        assert (await d.ask(READ, 1, room=SECTOR)) == (OK, b"\1" * SECTOR)


@pytest.mark.parametrize(("write_cache", "config_wce"), [("on", True), ("on", False), ("off", True), ("off", False)])
async def test_a_flush_is_offered_where_it_may_be_needed(image: Path, write_cache: str, config_wce: bool) -> None:
    """Without a write cache, and without a way to switch one on, a driver is told that it need not flush."""
    async with disk(image, write_cache=write_cache, config_wce=config_wce) as d:
        assert bool(d.device.features & 1 << 9) is (write_cache == "on" or config_wce)
        assert bool(d.device.features & 1 << 11) is config_wce
        assert d.board.read(CONFIG + 32) & 1 == (write_cache == "on")
        assert await d.ask(FLUSH, 0) == (OK, b"")


async def test_a_resize_is_a_configuration_change(image: Path) -> None:
    """The driver is told of the new size and may use it at once."""
    async with disk(image) as d:
        assert d.board.read(CONFIG) == SECTORS
        await d.device.backend.node.resize(2 * SECTORS * SECTOR)
        assert d.board.read(CONFIG) == 2 * SECTORS
        assert await d.ask(WRITE, 2 * SECTORS - 1, b"z" * SECTOR) == (OK, b"")
        assert (await d.ask(READ, 2 * SECTORS, room=SECTOR))[0] == IOERR


@every_thread
async def test_a_file_that_became_shorter_is_an_error(image: Path, thread: bool) -> None:
    """What is missing is an I/O error and a line for the user, never zeroes."""
    async with disk(image, thread=thread) as d:
        assert (await d.ask(READ, 400, room=SECTOR))[0] == OK
        os.truncate(image, 256 * SECTOR)
        assert (await d.ask(READ, 400, room=SECTOR))[0] == IOERR
        assert (await d.ask(READ, 255, room=2 * SECTOR))[0] == IOERR
        assert (await d.ask(READ, 255, room=SECTOR))[0] == OK
        await d.until(lambda: len(d.errors) == 2)
        assert [(e.is_write, e.action) for e in d.errors] == [(False, "report")] * 2


@every_thread
async def test_an_error_stops_and_is_tried_again(image: Path, thread: bool) -> None:
    """With rerror=stop the request waits, others too, and all succeed when the disk works and the machine goes on."""
    async with disk(image, thread=thread, rerror="stop") as d:
        os.truncate(image, 256 * SECTOR)
        failed = d.put(READ, 400, room=SECTOR)
        d.rings[0].kick()
        await d.until(lambda: len(d.errors) == 1)
        other = d.put(READ, 1, room=SECTOR)
        d.rings[0].kick()
        d.device.engine.hold()
        assert d.rings[0].used() == []
        with image.open("r+b") as file:
            file.truncate(SECTORS * SECTOR)
            file.seek(400 * SECTOR)
            file.write(b"x" * SECTOR)
        d.device.engine.go_on()
        await d.wait(other[0])
        assert d.back(*failed[1:]) == (OK, b"x" * SECTOR)
        assert d.back(*other[1:]) == (OK, b"\1" * SECTOR)
        assert [e.action for e in d.errors] == ["stop"]


@pytest.mark.parametrize(
    ("rerror", "werror", "tells"),
    [
        ("report", "report", False),
        ("ignore", "ignore", False),
        ("stop", "report", True),
        ("report", "stop", True),
        ("report", "enospc", True),
    ],
)
async def test_who_may_stop_has_a_status(image: Path, rerror: str, werror: str, tells: bool) -> None:
    """io-status of query-block, and `nospace` of BLOCK_IO_ERROR, are there where an error can stop the machine."""
    async with disk(image, rerror=rerror, werror=werror) as d:
        assert d.device.backend.tells_status is tells
        d.device.backend.detach()
        assert not d.device.backend.tells_status


async def test_a_driver_that_says_begin_before_it_has_agreed(image: Path) -> None:
    """DRIVER_OK without FEATURES_OK starts nothing."""
    async with disk(image) as d:
        d.board.write(STATUS, 0)
        d.board.write(STATUS, ACKNOWLEDGE | DRIVER | 4)
        assert not d.device.running
