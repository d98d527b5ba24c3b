"""A disk whose requests have to pass through the block graph: images, faults, answers that come late."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.devices.virtio.disks import DISCARD, FLUSH, IOERR, OK, READ, WRITE, WRITE_ZEROES, Disk, disk
from tests.devices.virtio.driver import STATUS

SECTOR = 512
SECTORS = 2048
needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
every_thread = pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(os.urandom(SECTORS * SECTOR))
    return path


def qemu_img(*words: str) -> None:
    """Without what this process may have been made to load (sanitizers)."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(["qemu-img", *words], check=True, env=environment)


def faulty(raw: Path, **options: Any) -> dict[str, Any]:
    """The image, with faults on top."""
    return {"driver": "blkdebug", "image": {"driver": "file", "filename": str(raw)}, **options}


def once(kind: str, errno: int) -> dict[str, Any]:
    return {"aioemu-faults": [{"iotype": kind, "errno": errno, "times": 1}]}


@every_thread
@pytest.mark.parametrize(
    ("policy", "errno", "status", "actions"),
    [
        ("report", 5, IOERR, ["report"]),
        ("ignore", 5, OK, ["ignore"]),
        ("enospc", 5, IOERR, ["report"]),
        ("stop", 5, OK, ["stop"]),
        ("enospc", 28, OK, ["stop"]),
    ],
)
async def test_a_write_that_fails(
    raw: Path, thread: bool, policy: str, errno: int, status: int, actions: list[str]
) -> None:
    """Each policy does what it says; what waited is written after `cont`."""
    async with disk(faulty(raw, **once("write", errno)), thread=thread, werror=policy) as d:
        number, writable, room = d.put(WRITE, 4, b"new!" * 128)
        d.rings[0].kick()
        await d.until(lambda: bool(d.errors))
        d.device.engine.hold()
        stopped = actions == ["stop"]
        assert (d.back(writable, room)[0] == 0xEE) is stopped
        assert d.device.backend.io_status == ({28: "nospace", 5: "failed"}[errno] if stopped else "ok")
        d.device.engine.go_on()
        await d.wait(number)
        assert d.back(writable, room) == (status, b"")
        assert [(e.is_write, e.errno, e.action) for e in d.errors] == [(True, errno, actions[0])]
        assert d.device.backend.io_status == "ok"
    written = raw.read_bytes()[4 * SECTOR : 5 * SECTOR] == b"new!" * 128
    assert written is stopped


@every_thread
async def test_a_flush_that_fails_is_told(raw: Path, thread: bool) -> None:
    """A driver that asked for its data to be safe learns that it is not."""
    async with disk(faulty(raw, **once("flush", 5)), thread=thread) as d:
        assert (await d.ask(FLUSH, 0))[0] == IOERR
        await d.until(lambda: [(e.is_write, e.errno) for e in d.errors] == [(True, 5)])


@every_thread
async def test_a_reset_while_python_works(raw: Path, thread: bool) -> None:
    """An answer that comes after the reset changes nothing; the next driver is served."""
    slow = faulty(raw, **{"aioemu-faults": [{"delay-ms": 100, "times": 4}]})
    async with disk(slow, thread=thread) as d:
        asked = [d.put(READ, n, room=SECTOR) for n in range(4)]
        d.rings[0].kick()
        await d.until(lambda: len(d.device.engine._tasks) == 4)
        d.board.write(STATUS, 0)
        d.again()
        status, data = await d.ask(READ, 9, room=SECTOR)
        assert (status, data) == (OK, raw.read_bytes()[9 * SECTOR : 10 * SECTOR])
        await d.until(lambda: not d.device.engine._tasks)
        assert [d.back(*each[1:])[0] for each in asked[1:]] == [0xEE] * 3


async def held_while_answered(d: Disk, number: int, writable: Any, room: int) -> None:
    """The machine stands still before Python answers; nothing changes until it goes on, and then it is given back."""
    d.rings[0].kick()
    await d.until(lambda: bool(d.device.engine._tasks))
    d.device.engine.hold()
    await d.until(lambda: not d.device.engine._tasks)
    assert d.back(writable, room)[0] == 0xEE
    assert d.rings[0].used() == []
    d.device.engine.go_on()
    await d.wait(number)


@every_thread
async def test_nothing_changes_while_the_machine_stands_still(raw: Path, thread: bool) -> None:
    """What Python answers meanwhile reaches the guest when it goes on."""
    slow = faulty(raw, **{"aioemu-faults": [{"delay-ms": 50, "times": 1}]})
    async with disk(slow, thread=thread) as d:
        number, writable, room = d.put(READ, 0, room=SECTOR)
        await held_while_answered(d, number, writable, room)
        assert d.back(writable, room) == (OK, raw.read_bytes()[:SECTOR])


@every_thread
@pytest.mark.parametrize("kind", [READ, WRITE, FLUSH])
async def test_an_error_waits_for_the_machine_too(raw: Path, thread: bool, kind: int) -> None:
    """What fails while the machine stands still leaves the driver's status alone; it learns of it when it goes on."""
    slow = faulty(raw, **{"aioemu-faults": [{"delay-ms": 50, "errno": 5}]})
    async with disk(slow, thread=thread) as d:
        data, room = {READ: (b"", SECTOR), WRITE: (b"x" * SECTOR, 0), FLUSH: (b"", 0)}[kind]
        number, writable, room = d.put(kind, 0, data, room)
        await held_while_answered(d, number, writable, room)
        assert d.back(writable, room)[0] == IOERR


@every_thread
async def test_a_storm_of_requests_is_taken_in_portions(raw: Path, thread: bool) -> None:
    """More requests at once than the loop works on: never all of them are in memory, and each is answered."""
    slow = faulty(raw, **{"aioemu-faults": [{"iotype": "discard", "delay-ms": 5}]})
    async with disk(slow, thread=thread, queues=3) as d:
        piece = struct.pack("<QII", 0, 8, 0)
        asked = [(q, *d.put(DISCARD, 0, piece, q=q)) for q in range(3) for _ in range(80)]
        for ring in d.rings:
            ring.kick()
        most = 0

        def all_back() -> bool:
            nonlocal most
            most = max(most, len(d.device.engine._tasks))
            return all(d._is_back(number, q) for q, number, _, _ in asked)

        await d.until(all_back)
        assert most == 64
        assert {d.back(writable, room)[0] for _, _, writable, room in asked} == {OK}


@needs_qemu_img
@every_thread
@pytest.mark.parametrize("cluster", ["4k", "64k"])
async def test_a_qcow2_image_over_a_raw_one(tmp_path: Path, raw: Path, thread: bool, cluster: str) -> None:
    """Random requests, many at once, read what a plain file would; the image is clean and qemu-img agrees."""
    image = tmp_path / "image.qcow2"
    options = ["-o", f"cluster_size={cluster}", "-b", str(raw), "-F", "raw"]
    qemu_img("create", "-q", "-f", "qcow2", *options, str(image))
    model = bytearray(raw.read_bytes())
    node = {"driver": "qcow2", "file": {"driver": "file", "filename": str(image)}}
    rng = random.Random(5)
    async with disk(node, thread=thread) as d:
        for _ in range(60):
            batch = []
            for n in range(8):  # each in a part of its own, so the order does not matter
                count = rng.randrange(1, 64)
                sector = n * SECTORS // 8 + rng.randrange(SECTORS // 8 - count)
                kind = rng.choice([READ, WRITE, WRITE, WRITE_ZEROES, FLUSH])
                span = slice(sector * SECTOR, (sector + count) * SECTOR)
                data, room = b"", 0
                if kind == WRITE:
                    data = model[span] = rng.randbytes(count * SECTOR)
                elif kind == WRITE_ZEROES:
                    model[span] = bytes(count * SECTOR)
                    data = struct.pack("<QII", sector, count, rng.randrange(2))
                elif kind == READ:
                    room = count * SECTOR
                batch.append((d.put(kind, sector, bytes(data), room, cut=4096), bytes(model[span])))
            d.rings[0].kick()
            for (number, writable, room), expected in batch:
                await d.wait(number)
                assert d.back(writable, room) == (OK, expected[:room])
        assert (await d.ask(FLUSH, 0))[0] == OK
        await asyncio.sleep(0)
    qemu_img("check", "-q", str(image))
    flat = tmp_path / "flat"
    flat.write_bytes(model)
    qemu_img("compare", "-q", "-f", "qcow2", "-F", "raw", str(image), str(flat))


@every_thread
async def test_requests_that_are_out_are_saved(raw: Path, thread: bool) -> None:
    """A request that waits for `cont` is in the saved state, and is done where that is loaded."""
    async with disk(faulty(raw, **once("write", 28)), thread=thread) as d:
        number, writable, room = d.put(WRITE, 4, b"new!" * 128)
        d.rings[0].kick()
        await d.until(lambda: bool(d.errors))
        d.device.engine.hold()
        state = d.device.save()
        assert len(state["in_flight"][0]) == 1
        d.device.load(state)
        d.device.engine.go_on()
        await d.wait(number)
        assert d.back(writable, room) == (OK, b"")
        assert (await d.ask(READ, 4, room=4))[0] == IOERR
    assert raw.read_bytes()[4 * SECTOR : 5 * SECTOR] == b"new!" * 128


@every_thread
async def test_a_mistake_below_is_an_error_of_the_request(
    raw: Path, thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a node raises, the driver gets an answer; where it came from is said once; the disk goes on."""
    async with disk(faulty(raw), thread=thread) as made:
        backend = made.device.engine.backend
        before = backend.extent

        async def mistaken(offset: int, size: int, *, write: bool = False) -> Any:
            raise KeyError("a mistake")

        backend.extent = mistaken  # type: ignore[method-assign]
        for _ in range(3):
            assert (await made.ask(READ, 0, room=SECTOR))[0] == IOERR
        backend.extent = before  # type: ignore[method-assign]
        assert (await made.ask(READ, 0, room=SECTOR))[0] == OK
    assert caplog.text.count("Traceback") == 1
    assert caplog.text.count("in mistaken") == 1


@every_thread
async def test_an_answer_that_is_void_again_and_again(raw: Path, thread: bool) -> None:
    """While others change their ranges all the time, a request waits for its place: it does not fail."""
    async with disk(raw, thread=thread) as made:
        backend = made.device.engine.backend
        before, left = backend.extent, [100]

        async def disturbed(offset: int, size: int, *, write: bool = False) -> Any:
            found = await before(offset, size, write=write)
            if left[0]:
                left[0] -= 1
                backend.on_changed(0, SECTOR)
            return found

        backend.extent = disturbed  # type: ignore[method-assign]
        assert await made.ask(WRITE, 8, b"x" * SECTOR) == (OK, b"")
        assert await made.ask(READ, 8, room=SECTOR) == (OK, b"x" * SECTOR)
        assert not left[0]
