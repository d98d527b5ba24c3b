"""Random operations by qemu-io and here in turns: both read the same, and qemu-img finds nothing wrong."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioemu.blockdev.node import ExtentKind, Node
from aioemu.blockdev.qcow2.node import Qcow2Node
from tests.blockdev.qcow2.conftest import opened
from tests.blockdev.qcow2.tools import KIB, check, contents, fill, make, needs_tools, run

pytestmark = needs_tools
SIZE = 3 * 512 * KIB + 1536  # no whole number of clusters
FORMATS = (
    "compat=1.1",
    "compat=0.10",
    "cluster_size=512",
    "cluster_size=512,refcount_bits=64",
    "cluster_size=4k,refcount_bits=1",
    "cluster_size=1k,refcount_bits=2",
    "cluster_size=4k,refcount_bits=4",
    "cluster_size=8k,refcount_bits=8",
    "cluster_size=16k,refcount_bits=32",
    "cluster_size=2M",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on,cluster_size=64k",
    "lazy_refcounts=on,cluster_size=4k",
    "preallocation=metadata,cluster_size=4k",
)


@dataclass(frozen=True)
class Op:
    """One operation on a disk, which qemu-io and a node both know."""

    what: str
    offset: int
    size: int
    byte: int = 0

    def command(self) -> str:
        letters = {"write": f"write -P {self.byte}", "zero": "write -z", "unmap": "write -z -u", "discard": "discard"}
        return f"{letters[self.what]} {self.offset} {self.size}"

    async def on(self, node: Qcow2Node) -> None:
        if self.what == "write":
            await node.write(self.offset, bytes((self.byte,)) * self.size)
        elif self.what == "discard":
            await node.discard(self.offset, self.size)
        elif self.what == "flush":
            await node.flush()
        elif self.what == "place":
            await self.through_extents(node)
        else:
            await node.write_zeroes(self.offset, self.size, unmap=self.what == "unmap")

    async def through_extents(self, node: Qcow2Node) -> None:
        """Write as the request engine does: straight into the host's file, where the node says."""
        at, end = self.offset, self.offset + self.size
        while at < end:
            found = await node.extent(at, end - at, write=True)
            assert found.start <= at < found.end
            part = min(found.end, end) - at
            data = bytes((self.byte,)) * part
            if found.kind is ExtentKind.ASK:
                await node.write(at, data)
            else:
                assert found.kind is ExtentKind.DATA
                assert found.writable
                assert os.pwrite(found.fd, data, found.host_offset + at - found.start) == part
            at += part

    def on_truth(self, truth: bytearray) -> None:
        """What the disk holds afterwards; a discard leaves anything: see `settle`."""
        if self.what != "flush":
            truth[self.offset : self.offset + self.size] = bytes((self.byte,)) * self.size


@st.composite
def operations(draw: st.DrawFn, size: int = SIZE, engine: bool = True) -> Op:
    """An operation within a disk: mostly small, sometimes over many clusters."""
    kinds = ["write", "write", "write", "zero", "unmap", "discard"] + (
        ["place", "place", "place", "flush"] if engine else []
    )
    sector = st.integers(0, size // 512 - 1)
    first = draw(sector)
    length = draw(st.one_of(st.integers(1, 16), st.integers(1, 400), sector))
    length = max(min(length, size // 512 - first), 1)
    what = draw(st.sampled_from(kinds))
    byte = draw(st.integers(1, 255)) if what in ("write", "place") else 0
    return Op(what, first * 512, length * 512, byte)


async def settle(node: Node[Any], op: Op, truth: bytearray) -> None:
    """A discard may zero or leave each byte: take what is there, which must be one of both."""
    found = await node.read(op.offset, op.size)
    before = truth[op.offset : op.offset + op.size]
    for at in range(0, op.size, 512):
        assert found[at : at + 512] in (before[at : at + 512], bytes(512))
    truth[op.offset : op.offset + op.size] = found


async def read_by_extents(node: Qcow2Node) -> bytes:
    """The whole disk as the request engine reads it."""
    pieces = []
    at = 0
    while at < node.size:
        found = await node.extent(at, node.size - at)
        assert found.start <= at < found.end <= node.size
        length = found.end - at
        if found.kind is ExtentKind.DATA:
            piece = os.pread(found.fd, length, found.host_offset + at - found.start)
            assert len(piece) == length
        elif found.kind is ExtentKind.ASK:
            piece = await node.read(at, length)
        else:
            piece = bytes(length)
        pieces.append(piece)
        at += length
    return b"".join(pieces)


def backing(folder: Path, size: int, kind: str) -> tuple[bytes, list[str]]:
    """A backing file with a pattern, and the words that make an image over it."""
    if kind == "none":
        return bytes(size), []
    data = bytearray(size if kind == "raw" else size // 2)
    for at in range(0, len(data), 7 * 512):
        data[at : at + 3 * 512] = bytes((at // 512 % 250 + 1,)) * min(3 * 512, len(data) - at)
    (folder / "base.raw").write_bytes(data)
    if kind == "raw":
        return bytes(data), ["-b", "base.raw", "-F", "raw"]
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *(["-c"] if kind == "compressed" else []),
        folder / "base.raw", folder / "base.qcow2")  # fmt: skip
    return bytes(data).ljust(size, b"\0"), ["-b", "base.qcow2", "-F", "qcow2"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    options=st.sampled_from(FORMATS),
    kind=st.sampled_from(("none", "raw", "qcow2", "compressed")),
    theirs=st.lists(operations(engine=False), max_size=8),
    ours=st.lists(operations(), max_size=12),
    last=st.lists(operations(engine=False), max_size=4),
)
async def test_both_tools_write_one_disk(
    options: str, kind: str, theirs: list[Op], ours: list[Op], last: list[Op]
) -> None:
    """Whoever wrote what, both read the same, and the image is consistent and without leaks after each."""
    with tempfile.TemporaryDirectory(prefix="aioemu-test-") as name:
        folder = Path(name)
        below, words = backing(folder, SIZE, kind)
        if words and "preallocation" in options:
            options = "cluster_size=4k"
        path = make(folder / "disk.qcow2", SIZE, options, *words)
        await play(path, bytearray(below), theirs, ours)
        truth = bytearray(contents(path))
        for op in last:
            fill(path, op.command())
            if op.what != "discard":
                op.on_truth(truth)
        check(path)
        if not any(op.what == "discard" for op in last):
            assert contents(path) == truth
        async with opened(path, read_only=True) as node:
            assert await node.read(0, SIZE) == contents(path)


async def play(path: Path, truth: bytearray, theirs: list[Op], ours: list[Op]) -> None:
    """Their operations, then ours, each checked against what must be there."""
    if theirs:
        fill(path, *(op.command() for op in theirs))
    truth[:] = contents(path) if theirs else truth
    async with opened(path, discard="unmap") as node:
        assert await node.read(0, node.size) == truth
        assert await read_by_extents(node) == truth
        for op in ours:
            await op.on(node)
            if op.what == "discard":
                await settle(node, op, truth)
            else:
                op.on_truth(truth)
        assert await node.read(0, node.size) == truth
        await node.flush()
        assert await read_by_extents(node) == truth
    check(path)
    assert contents(path) == truth
