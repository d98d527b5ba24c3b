"""What an image carries besides the disk stays: snapshots, bitmaps, unknown extensions and features."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioemu.blockdev.qcow2 import header as layout
from aioemu.errors import ConfigError
from tests.blockdev.qcow2.conftest import opened
from tests.blockdev.qcow2.test_conformance import SIZE, Op, backing, operations, play
from tests.blockdev.qcow2.tools import KIB, MIB, check, contents, facts, fill, make, needs_tools, run

pytestmark = needs_tools
FORMATS = ("compat=0.10,cluster_size=4k", "cluster_size=512,refcount_bits=8", "cluster_size=4k,refcount_bits=2",
    "cluster_size=64k", "extended_l2=on,cluster_size=16k", "lazy_refcounts=on,cluster_size=4k")  # fmt: skip
UNKNOWN = 0x12345678


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    options=st.sampled_from(FORMATS),
    kind=st.sampled_from(("none", "raw", "compressed")),
    theirs=st.lists(operations(engine=False), max_size=6),
    ours=st.lists(operations(), min_size=1, max_size=12),
)
async def test_a_snapshot_stays_as_it_was_taken(options: str, kind: str, theirs: list[Op], ours: list[Op]) -> None:
    """Clusters that a snapshot shares are copied before they change; both snapshots read as when they were taken."""
    with tempfile.TemporaryDirectory(prefix="aioemu-test-") as name:
        folder = Path(name)
        _, words = backing(folder, SIZE, kind)
        path = make(folder / "disk.qcow2", SIZE, options, *words)
        if theirs:
            fill(path, *(op.command() for op in theirs))
        taken: dict[str, bytes] = {}
        for snapshot in ("first", "second"):
            run("qemu-img", "snapshot", "-c", snapshot, path)
            taken[snapshot] = contents(path)
            await play(path, bytearray(taken[snapshot]), [], ours)
            ours = ours[::-1]
        for snapshot, before in taken.items():
            raw = folder / "snapshot.raw"
            run("qemu-img", "convert", "-f", "qcow2", "-l", snapshot, "-O", "raw", path, raw)
            assert raw.read_bytes() == before
        for snapshot in taken:
            run("qemu-img", "snapshot", "-d", snapshot, path)
        check(path)


async def test_bitmaps_that_could_not_follow_say_so(tmp_path: Path) -> None:
    """Before the first change an enabled bitmap is marked in use; a disabled one stays, reading leaves all alone."""
    path = make(tmp_path / "disk.qcow2", MIB)
    for name in ("follows", "still"):
        run("qemu-img", "bitmap", "--add", path, name)
    run("qemu-img", "bitmap", "--disable", path, "still")
    before = path.read_bytes()
    async with opened(path) as node:
        await node.read(0, MIB)
        await node.flush()
    assert path.read_bytes() == before
    async with opened(path) as node:
        await node.write(0, b"x" * 512)
        with pytest.raises(ConfigError, match="bitmaps"):
            await node.resize(2 * MIB)
    check(path)
    flags = {each["name"]: each["flags"] for each in facts(path)["format-specific"]["data"]["bitmaps"]}
    assert flags == {"follows": ["in-use", "auto"], "still": []}


async def test_unknown_extensions_and_features_of_the_header(tmp_path: Path) -> None:
    """An unknown extension and compatible features stay; unknown auto-clear features go, but only before a change."""
    path = make(tmp_path / "disk.qcow2", MIB)
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[100:104], "big")
    extension = struct.pack(">II", UNKNOWN, 5) + b"hello\0\0\0"
    first = data[length : layout.V3_LENGTH + 2048]
    data[length : length + len(extension) + len(first)] = extension + first
    data[80:88] = (1 << 40).to_bytes(8, "big")
    data[88:96] = (1 << 50).to_bytes(8, "big")
    path.write_bytes(data)
    async with opened(path) as node:
        assert node.header.extension(UNKNOWN) == b"hello"
        await node.read(0, MIB)
    assert path.read_bytes() == data
    async with opened(path) as node:
        await node.write(0, b"x" * 512)
    after = path.read_bytes()
    assert after[80:88] == data[80:88]
    assert after[88:96] == bytes(8)
    assert after[length : length + len(extension)] == extension


async def test_unknown_incompatible_features_are_refused_by_name(tmp_path: Path) -> None:
    """The image's own feature table names what is missing; a bit without a name is shown as a number."""
    path = make(tmp_path / "disk.qcow2", MIB)
    data = bytearray(path.read_bytes())
    data[72:80] = (1 << 60 | 1 << 61).to_bytes(8, "big")
    at = data.index(struct.pack(">I", layout.EXT_FEATURES)) + 8
    data[at : at + 48] = bytes((0, 60)) + b"time travel".ljust(46, b"\0")
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"time travel, Unknown incompatible feature: 2000000000000000"):
        async with opened(path):
            pass


async def test_external_data_files(tmp_path: Path) -> None:
    """Clusters are in the data file at the guest's offsets; a raw one reads alike without the image."""
    for raw in ("off", "on"):
        path = make(tmp_path / f"{raw}.qcow2", 4 * MIB, f"data_file={tmp_path}/{raw}.data,data_file_raw={raw}")
        truth = bytearray(4 * MIB)
        ops = [
            Op("write", 5 * KIB, 300 * KIB, 1),
            Op("place", MIB, MIB, 2),
            Op("zero", 100 * KIB, 100 * KIB),
            Op("unmap", MIB + 64 * KIB, 512 * KIB),
            Op("discard", 3 * MIB, 64 * KIB),
            Op("place", 3 * MIB + 512, 512, 3),
        ]
        await play(path, truth, [Op("write", 2 * MIB, MIB, 9)], ops)
        if raw == "on":
            data = (tmp_path / "on.data").read_bytes()
            assert data[: len(truth)] == truth


async def test_facts_are_those_of_qemu_img(tmp_path: Path) -> None:
    """`info` says what `qemu-img info` says."""
    path = make(tmp_path / "disk.qcow2", MIB, "cluster_size=16k,extended_l2=on,lazy_refcounts=on")
    run("qemu-img", "snapshot", "-c", "one", path)
    async with opened(path) as node:
        found = json.loads(json.dumps(node.info()))
    said = facts(path)
    assert found["format-specific"] == said["format-specific"]
    assert {key: found[key] for key in ("virtual-size", "cluster-size", "dirty-flag")} == {
        key: said[key] for key in ("virtual-size", "cluster-size", "dirty-flag")
    }
    assert [each["name"] for each in found["snapshots"]] == ["one"]
