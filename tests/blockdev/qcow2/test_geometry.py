"""Images of any geometry, over any chain, through a life of both tools: written, resized, snapshotted, reopened.

`python -m tests.blockdev.qcow2.test_geometry LIVES [SEED]` runs many more of them than the suite does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import struct
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.qcow2.node import Qcow2Node
from aioemu.errors import ConfigError
from tests.blockdev.qcow2.conftest import opened
from tests.blockdev.qcow2.test_conformance import Op, read_by_extents, settle
from tests.blockdev.qcow2.tools import KIB, MIB, check, contents, facts, fill, needs_tools, run
from tests.devices.virtio.disks import DISCARD, FLUSH, OK, READ, WRITE, WRITE_ZEROES, disk

pytestmark = needs_tools
LIVES = 16  # of the suite
NODE_OPTIONS: tuple[dict[str, Any], ...] = (
    {"discard": "unmap"},
    {},
    {"discard": "unmap", "l2_cache_size": 4096, "refcount_cache_size": 4096},
    {"discard": "unmap", "discard_no_unref": True},
    {"lazy_refcounts": True},
    {"pass_discard_request": True},
)


@dataclass
class Geometry:
    """What `qemu-img create` is told, and what follows for what may be done with the image."""

    options: dict[str, str]
    size: int
    below: str  # none, raw, qcow2, compressed, chain

    @property
    def external(self) -> bool:
        return "data_file" in self.options

    @property
    def old(self) -> bool:
        return self.options["compat"] == "0.10"

    @property
    def cluster(self) -> int:
        return int(self.options["cluster_size"])


def draw_geometry(chooser: random.Random, folder: Path) -> Geometry:
    """Any that qemu-img makes."""
    compat = chooser.choice(("0.10", "1.1", "1.1", "1.1"))
    cluster = 1 << chooser.choice((9, 9, 10, 11, 12, 12, 13, 14, 15, 16, 16, 17, 18, 19, 20, 21))
    options = {"compat": compat, "cluster_size": str(cluster)}
    below = chooser.choice(("none", "none", "raw", "qcow2", "compressed", "chain"))
    if compat == "1.1":
        options["refcount_bits"] = str(1 << chooser.randrange(7))
        if chooser.random() < 0.2:
            options["lazy_refcounts"] = "on"
        if chooser.random() < 0.3:
            options["compression_type"] = "zstd"
        if cluster >= 16 * KIB and chooser.random() < 0.4:
            options["extended_l2"] = "on"
        if chooser.random() < 0.25:
            options["data_file"] = str(folder / "disk.data")
            options.pop("lazy_refcounts", None)
            if below == "none" and chooser.random() < 0.5:
                options["data_file_raw"] = "on"
    if below == "none" or "extended_l2" in options:
        options["preallocation"] = chooser.choice(("off", "off", "metadata", "falloc", "full"))
    return Geometry(options, chooser.randrange(MIB // 512, 5 * MIB // 512) * 512, below)


def make_chain(folder: Path, geometry: Geometry, chooser: random.Random) -> list[str]:
    """What is below the image, as words for `qemu-img create`."""
    if geometry.below == "none":
        return []
    size = chooser.choice((geometry.size, geometry.size // 1024 * 512, geometry.size + 64 * KIB))
    raw = folder / "base.raw"
    data = bytearray(size)
    for at in range(0, size, 9 * KIB):
        data[at : at + 4 * KIB] = bytes((at // 512 % 250 + 1,)) * min(4 * KIB, size - at)
    raw.write_bytes(data)
    if geometry.below == "raw":
        return ["-b", "base.raw", "-F", "raw"]
    words = ["-c"] if geometry.below == "compressed" else []
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *words, raw, folder / "base.qcow2")
    if geometry.below != "chain":
        return ["-b", "base.qcow2", "-F", "qcow2"]
    middle = folder / "middle.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base.qcow2", "-F", "qcow2",
        middle, str(geometry.size))  # fmt: skip
    fill(middle, *(draw_op(chooser, geometry.size, ours=False).command() for _ in range(3)))
    return ["-b", "middle.qcow2", "-F", "qcow2"]


def draw_op(chooser: random.Random, size: int, *, ours: bool = True, large: bool = True) -> Op:
    """An operation on a disk of this size."""
    kinds = ["write"] * 3 + ["zero", "unmap", "discard"] + (["place"] * 3 + ["flush"] if ours else [])
    what = chooser.choice(kinds)
    first = chooser.randrange(size // 512)
    count = chooser.choice((1, chooser.randrange(1, 17), chooser.randrange(1, 400), chooser.randrange(1, size // 512)))
    length = max(min(count if large else count % 130, size // 512 - first), 1)
    return Op(what, first * 512, length * 512, chooser.randrange(1, 256) if what in ("write", "place") else 0)


class Life:
    """One image from its making on, and the bytes that must be on its disk."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.chooser = random.Random(seed)
        self.geometry = draw_geometry(self.chooser, folder)
        self.path = folder / "disk.qcow2"
        words = make_chain(folder, self.geometry, self.chooser)
        options = ",".join(f"{name}={value}" for name, value in self.geometry.options.items())
        size = str(self.geometry.size)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, *words, self.path, size)
        self.truth = bytearray(contents(self.path))
        self.snapshots: dict[str, bytes] = {}
        self.did: list[str] = [f"{self.geometry}"]

    def draw(self, *, ours: bool = True, large: bool = True) -> Op:
        return draw_op(self.chooser, len(self.truth), ours=ours, large=large)

    async def run(self) -> None:
        """A few steps of anything, each judged."""
        steps = [
            self.theirs,
            self.ours,
            self.ours,
            self.driven,
            self.driven,
            self.resize_here,
            self.resize_there,
            self.snapshot,
        ]
        for _ in range(self.chooser.randrange(2, 7)):
            step = self.chooser.choice(steps)
            self.did.append(step.__name__)
            await step()
            self.judge()

    def judge(self) -> None:
        """Consistent, and what it must be, read by qemu-img; snapshots too, and the data file on its own."""
        check(self.path)
        assert contents(self.path) == self.truth
        for name, before in self.snapshots.items():
            raw = self.path.with_suffix(".snapshot")
            run("qemu-img", "convert", "-f", "qcow2", "-l", name, "-O", "raw", self.path, raw)
            found = raw.read_bytes()  # as long as the disk is now
            assert found[: len(before)] == before[: len(found)]
        if "data_file_raw" in self.geometry.options:
            assert Path(self.geometry.options["data_file"]).read_bytes()[: len(self.truth)] == self.truth

    async def theirs(self) -> None:
        """qemu-io writes."""
        ops = [self.draw(ours=False) for _ in range(self.chooser.randrange(1, 6))]
        commands = [op.command() for op in ops]
        if not self.geometry.external and self.chooser.random() < 0.3:
            cluster = self.geometry.cluster
            if cluster <= len(self.truth):
                at = self.chooser.randrange(len(self.truth) // cluster) * cluster
                command = f"write -c -P 77 {at} {cluster}"
                self.did.append(command)
                subprocess.run(
                    ["qemu-io", "-f", "qcow2", "-c", command, str(self.path)], capture_output=True, timeout=60
                )
        self.did += commands
        fill(self.path, *commands)
        self.truth[:] = contents(self.path)

    async def ours(self) -> None:
        """The driver here writes, some of it at once."""
        options = self.chooser.choice(NODE_OPTIONS)
        if self.geometry.old:
            options = {name: value for name, value in options.items() if name in ("discard", "l2_cache_size")}
        if self.geometry.external or self.snapshots:
            options = {name: value for name, value in options.items() if name != "lazy_refcounts"}
        self.did.append(f"{options}")
        async with opened(self.path, **options) as node:
            assert await node.read(0, node.size) == self.truth
            for _ in range(self.chooser.randrange(1, 8)):
                await self.some(node)
                if self.chooser.random() < 0.15:
                    await self.reopen(node)
            assert await read_by_extents(node) == self.truth
            assert await node.read(0, node.size) == self.truth

    async def some(self, node: Qcow2Node) -> None:
        """One operation, or several apart from each other at once."""
        ops = self.apart([self.draw() for _ in range(self.chooser.choice((1, 1, 4)))])
        await asyncio.gather(*(op.on(node) for op in ops))
        for op in ops:
            if op.what == "discard":
                await settle(node, op, self.truth)
            else:
                op.on_truth(self.truth)

    async def reopen(self, node: Qcow2Node) -> None:
        """To read only and back, or to another set of caches: what was written stays."""
        self.did.append("reopen")
        before = node.options
        await node.reopen(dataclasses.replace(before, read_only=True))
        assert await read_by_extents(node) == self.truth
        run("qemu-img", "check", "-q", "-U", "-f", "qcow2", self.path)
        await node.reopen(dataclasses.replace(before, read_only=False))

    async def driven(self) -> None:
        """A guest's driver, with several requests under way at once, on a disk with caches of any size."""
        node: dict[str, Any] = {"driver": "qcow2", "discard": self.chooser.choice(("unmap", "ignore"))}
        node["file"] = {"driver": "file", "filename": str(self.path)}
        if self.chooser.random() < 0.5:
            node |= {"l2-cache-size": 4096, "refcount-cache-size": 4096}
        self.did.append(f"{node}")
        async with disk(node, thread=self.chooser.random() < 0.5) as made:
            for _ in range(self.chooser.randrange(2, 20)):
                ops = self.apart([self.draw(large=False) for _ in range(self.chooser.choice((1, 3, 6)))])
                waiting = [(op, made.put(*self.request(op), cut=64 * KIB)) for op in ops]
                made.rings[0].kick()
                for op, (number, writable, room) in waiting:
                    await made.wait(number)
                    assert made.back(writable, room)[0] == OK
                    if op.what != "discard":
                        op.on_truth(self.truth)
                for op in ops:
                    if op.what == "discard":
                        await settle(made.device.engine.backend.node, op, self.truth)
            for at in range(0, len(self.truth), 64 * KIB):
                size = min(64 * KIB, len(self.truth) - at)
                assert await made.ask(READ, at // 512, room=size) == (OK, bytes(self.truth[at : at + size]))

    def request(self, op: Op) -> tuple[int, int, bytes]:
        """An operation as a driver asks for it."""
        if op.what in ("write", "place"):
            return WRITE, op.offset // 512, bytes((op.byte,)) * op.size
        if op.what == "flush":
            return FLUSH, 0, b""
        kind = DISCARD if op.what == "discard" else WRITE_ZEROES
        return kind, 0, struct.pack("<QII", op.offset // 512, op.size // 512, op.what == "unmap")

    def apart(self, ops: list[Op]) -> list[Op]:
        """Those that touch nothing that one before them touches."""
        found: list[Op] = []
        for op in ops:
            if all(op.offset + op.size <= other.offset or other.offset + other.size <= op.offset for other in found):
                found.append(op)
        self.did += [f"{op}" for op in found]
        return found

    async def resize_here(self) -> None:
        size = self.new_size()
        async with opened(self.path, discard="unmap") as node:
            await self.some(node)
            try:
                await node.resize(size)
            except ConfigError:
                assert self.geometry.old
                assert self.snapshots
                return
            self.resized(size)
            assert await node.read(0, node.size) == self.truth
            await self.some(node)

    async def resize_there(self) -> None:
        if self.snapshots and self.geometry.old:
            return
        size = self.new_size()
        done = subprocess.run(
            ["qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", str(self.path), str(size)],
            capture_output=True, text=True, timeout=60)  # fmt: skip
        if done.returncode == 0:
            self.truth[:] = contents(self.path)
        self.did.append(f"to {size}: {done.stderr}")

    def new_size(self) -> int:
        size = max(len(self.truth) + self.chooser.randrange(-2 * MIB, 2 * MIB) & -512, 64 * KIB)
        self.did.append(f"to {size}")
        return size

    def resized(self, size: int) -> None:
        del self.truth[size:]
        self.truth.extend(bytes(size - len(self.truth)))

    async def snapshot(self) -> None:
        """qemu-img takes one, or lets one go."""
        highest = (1 << int(self.geometry.options.get("refcount_bits", 16))) - 1
        if self.geometry.external or highest == 1:
            return
        if len(self.snapshots) == highest - 1 or (self.snapshots and self.chooser.random() < 0.5):
            name = self.chooser.choice(sorted(self.snapshots))
            run("qemu-img", "snapshot", "-d", name, self.path)
            del self.snapshots[name]
        else:
            name = f"s{len(self.did)}"
            run("qemu-img", "snapshot", "-c", name, self.path)
            self.snapshots[name] = bytes(self.truth)


async def live(seed: str) -> Life:
    """One life; a failure names its seed and what was done."""
    with tempfile.TemporaryDirectory(prefix="aioemu-test-") as name:
        life = Life(Path(name), seed)
        try:
            await life.run()
            assert facts(life.path)["virtual-size"] == len(life.truth)
        except BaseException as exc:
            exc.add_note(f"seed {seed!r}: " + "; ".join(life.did))
            raise
        return life


@pytest.mark.parametrize("number", range(LIVES))
async def test_any_image_through_its_life(number: int) -> None:
    """Whatever its geometry and whoever changed it: both tools read the same, and it is consistent at each step."""
    await live(f"suite {number}")


def main() -> None:
    """Many lives, one after the other; each failure is told, and counted."""
    lives, seed = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "0"
    steps, failed = 0, 0
    for number in range(lives):
        try:
            steps += len(asyncio.run(live(f"{seed} {number}")).did)
        except Exception as exc:
            failed += 1
            traceback.print_exception(exc)
    print(f"{lives} lives, {steps} steps, {failed} failed")


if __name__ == "__main__":
    main()
