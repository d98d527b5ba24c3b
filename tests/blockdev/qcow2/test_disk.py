"""A guest's driver on a qcow2 disk: many requests at once through the request engine, which asks for extents."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.blockdev.qcow2.tools import KIB, MIB, check, contents, make, needs_tools, run
from tests.devices.virtio.disks import disk

pytestmark = needs_tools
READ, WRITE, FLUSH, DISCARD, ZEROES = 0, 1, 4, 11, 13
SIZE = 8 * MIB
SECTOR = 512
DEPTH = 5


def segment(sector: int, count: int, unmap: bool = False) -> bytes:
    """What a discard or a write of zeroes carries."""
    return sector.to_bytes(8, "little") + count.to_bytes(4, "little") + int(unmap).to_bytes(4, "little")


@pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])
@pytest.mark.parametrize("kind", ["alone", "raw", "compressed"])
@pytest.mark.parametrize("options", ["cluster_size=64k", "cluster_size=512", "extended_l2=on,cluster_size=16k"])
async def test_what_a_driver_writes_is_on_the_disk(tmp_path: Path, options: str, kind: str, thread: bool) -> None:
    """Requests over many clusters, under way together: all of them succeed, and qemu-img reads what was written."""
    base = bytes(range(256)) * (SIZE // 256)
    (tmp_path / "base.raw").write_bytes(base)
    words = ["-b", "base.raw", "-F", "raw"] if kind == "raw" else []
    path = tmp_path / "disk.qcow2"
    if kind == "compressed":
        run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, tmp_path / "base.raw", path)
    else:
        make(path, SIZE, options, *words)
    truth = bytearray(base if kind != "alone" else bytes(SIZE))
    chooser = random.Random(f"{options} {kind} {thread}")
    node = {"driver": "qcow2", "discard": "unmap", "file": {"driver": "file", "filename": str(path)}}
    async with disk(node, thread=thread) as made:
        for _ in range(30):
            places = chooser.sample(range(0, SIZE // SECTOR - 256, 256), DEPTH)
            waiting = []
            for place in places:
                sector = place + chooser.randrange(100)
                count = chooser.choice((1, 8, 8, 40, 128, 130))
                kinds = (READ, WRITE, WRITE, WRITE, ZEROES, DISCARD, FLUSH)
                what = chooser.choice(kinds)
                at, end = sector * SECTOR, (sector + count) * SECTOR
                data, room = b"", 0
                if what == WRITE:
                    data = bytes((chooser.randrange(1, 256),)) * (end - at)
                    truth[at:end] = data
                elif what == READ:
                    room = end - at
                elif what != FLUSH:
                    data = segment(sector, count, chooser.random() < 0.5 and what == ZEROES)
                    if what == ZEROES:
                        truth[at:end] = bytes(end - at)
                waiting.append((what, at, end, made.put(what, sector if what < FLUSH else 0, data, room, cut=64 * KIB)))
            made.rings[0].kick()
            for what, at, end, (number, writable, room) in waiting:
                await made.wait(number)
                status, found = made.back(writable, room)
                assert status == 0
                if what == READ:
                    assert found == truth[at:end]
            for _, at, end, _ in (each for each in waiting if each[0] == DISCARD):  # may have left what was there
                truth[at:end] = (await made.ask(READ, at // SECTOR, room=end - at))[1]
        assert (await made.ask(FLUSH, 0))[0] == 0
        for at in range(0, SIZE, 64 * KIB):
            status, found = await made.ask(READ, at // SECTOR, room=64 * KIB)
            assert status == 0
            assert found == truth[at : at + 64 * KIB]
    check(path)
    assert contents(path) == truth


async def test_how_far_a_disk_was_written(tmp_path: Path) -> None:
    """The disk's highest offset is the guest's, its file's is the image's: who gives it space watches that."""
    path = make(tmp_path / "disk.qcow2", SIZE)
    async with disk({"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}) as made:
        backend = made.device.engine.backend
        await made.ask(READ, SIZE // SECTOR - 8, room=4096)
        assert backend.figures()["wr_highest_offset"] == 0
        assert backend.node.highest_below(0) == 0
        await made.ask(WRITE, 4 * MIB // SECTOR, b"x" * 4096)
        await made.ask(WRITE, 0, b"x" * 4096)
        figures = backend.figures()
        assert figures["wr_highest_offset"] == 4 * MIB + 4096
        assert figures["idle_time_ns"] >= 0
        below = backend.node.highest_below(figures["wr_highest_offset"])
        assert 128 * KIB <= below <= MIB
    assert below == path.stat().st_size
