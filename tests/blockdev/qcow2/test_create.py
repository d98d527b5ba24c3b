"""Images made here: qemu-img finds them as good as its own, whatever was asked of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.qcow2.create import create_image
from aioemu.errors import ConfigError
from tests.blockdev.qcow2.conftest import opened
from tests.blockdev.qcow2.test_conformance import Op, play
from tests.blockdev.qcow2.tools import GIB, KIB, MIB, check, contents, facts, make, needs_tools, run

pytestmark = needs_tools
OPTIONS: list[dict[str, Any]] = [
    {},
    {"version": "v2"},
    {"cluster-size": 512, "size": 512 * MIB},
    {"cluster-size": 2 * MIB},
    {"size": 0},
    {"size": 64 * GIB, "cluster-size": 4096},
    *({"refcount-bits": 1 << order, "cluster-size": 4096} for order in range(7)),
    {"extended-l2": True},
    {"lazy-refcounts": True},
    {"compression-type": "zstd"},
    {"backing-file": "base.raw", "backing-fmt": "raw"},
    {"preallocation": "metadata"},
    {"preallocation": "metadata", "cluster-size": 512, "refcount-bits": 64},
    {"preallocation": "falloc", "size": 3 * MIB + 512},
    {"preallocation": "full", "extended-l2": True},
]


async def create(path: Path, **given: Any) -> None:
    await create_image(path, **{"size": 4 * MIB, **given})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
async def test_a_new_image_is_sound(tmp_path: Path, options: dict[str, Any]) -> None:
    """qemu-img agrees on its size and format, it reads as zeros (or its backing file), and both tools can fill it."""
    (tmp_path / "base.raw").write_bytes(b"b" * 4 * MIB)
    path = tmp_path / "new.qcow2"
    path.write_bytes(b"old contents" * KIB)
    await create(path, **options)
    check(path)
    size = options.get("size", 4 * MIB)
    found = facts(path)
    data = found["format-specific"]["data"]
    assert found["virtual-size"] == size
    assert found["cluster-size"] == options.get("cluster-size", 65536)
    assert data["compat"] == ("0.10" if options.get("version") == "v2" else "1.1")
    assert data["refcount-bits"] == options.get("refcount-bits", 16)
    assert data.get("lazy-refcounts", False) == options.get("lazy-refcounts", False)
    assert data.get("extended-l2", False) == options.get("extended-l2", False)
    assert data["compression-type"] == options.get("compression-type", "zlib")
    assert found.get("backing-filename") == options.get("backing-file")
    if 0 < size <= 4 * MIB:
        truth = bytearray(b"b" * size if "backing-file" in options else bytes(size))
        assert contents(path) == truth
        await play(path, truth, [Op("write", 4 * KIB, 100 * KIB, 7)], [Op("place", MIB, MIB, 8), Op("zero", 0, MIB)])


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
async def test_preallocated_clusters_are_all_there(tmp_path: Path, mode: str) -> None:
    """As with qemu-img, every cluster is mapped, and the host has given what was asked for."""
    path = tmp_path / "new.qcow2"
    await create(path, preallocation=mode)
    mapped = run("qemu-img", "map", "--output=json", path)
    assert mapped.count('"length"') == 1
    assert (path.stat().st_blocks * 512 >= 4 * MIB) == (mode != "metadata")


async def test_a_raw_data_file_keeps_what_it_holds(tmp_path: Path) -> None:
    """An image over an existing raw file shows it, and the file stays readable on its own."""
    data = tmp_path / "disk.raw"
    data.write_bytes(b"d" * MIB)
    path = tmp_path / "new.qcow2"
    await create(
        path, **{"data-file": {"driver": "file", "filename": str(data)}, "data-file-raw": True, "size": 2 * MIB}
    )
    check(path)
    assert contents(path) == b"d" * MIB + bytes(MIB)
    async with opened(path) as node:
        await node.write(512, b"n" * 512)
    assert data.read_bytes()[512:1024] == b"n" * 512
    assert facts(path)["format-specific"]["data"]["data-file-raw"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1000}, "multiple of 512"),
        ({"cluster-size": 256}, "power of two between 512 and 2048k"),
        ({"cluster-size": 5000}, "power of two between 512 and 2048k"),
        ({"cluster-size": 4 * MIB}, "power of two between 512 and 2048k"),
        ({"refcount-bits": 3}, "Refcount width must be a power of two"),
        ({"refcount-bits": 128}, "may not exceed 64 bits"),
        ({"version": "v2", "refcount-bits": 8}, "compatibility level 1.1"),
        ({"version": "v2", "lazy-refcounts": True}, "Lazy refcounts"),
        ({"extended-l2": True, "cluster-size": 4096}, "at least 16384"),
        ({"data-file-raw": True}, "data-file-raw requires data-file"),
        ({"backing-fmt": "raw"}, "without backing file"),
        ({"backing-file": "x", "preallocation": "full"}, "extended_l2"),
        ({"size": 1 << 60}, "too large"),
        ({"encrypt": {"format": "luks"}}, "Encryption"),
    ],
    ids=str,
)
async def test_what_no_image_can_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Options that do not go together are refused before the file is touched, in QEMU's words."""
    path = tmp_path / "kept"
    path.write_bytes(b"kept")
    with pytest.raises(ConfigError, match=message):
        await create(path, **options)
    assert path.read_bytes() == b"kept"


@pytest.mark.parametrize("options", ["", "compat=0.10", "cluster_size=512", "extended_l2=on", "lazy_refcounts=on"])
async def test_a_disk_changes_its_size(tmp_path: Path, options: str) -> None:
    """Growth shows zeros, whatever was behind the old end before; what is cut off is given back."""
    path = make(tmp_path / "disk.qcow2", MIB + 512, options)
    async with opened(path, discard="unmap") as node:
        await node.write(0, b"a" * (MIB + 512))
        for size in (512 * KIB + 1024, 3 * MIB, 96 * MIB, 2 * MIB + 512, 512, 0, MIB):
            kept = await node.read(0, min(size, node.size))
            await node.resize(size)
            assert node.size == size
            assert (await node.read(0, size))[: 4 * MIB] == kept.ljust(size, b"\0")[: 4 * MIB]
            await node.flush()
            await node.write(max(size - 4096, 0), b"e" * min(4096, size))
        with pytest.raises(ConfigError, match="multiple of 512"):
            await node.resize(1000)
    check(path)
    assert facts(path)["virtual-size"] == MIB


@pytest.mark.parametrize("options", ["", "compat=0.10", "extended_l2=on"])
async def test_growth_hides_what_a_longer_backing_file_has(tmp_path: Path, options: str) -> None:
    """The new part of a disk reads as zeros, though the backing file goes on."""
    (tmp_path / "base.raw").write_bytes(b"b" * 4 * MIB)
    path = make(tmp_path / "disk.qcow2", MIB, options, "-b", "base.raw", "-F", "raw")
    async with opened(path) as node:
        await node.resize(3 * MIB)
        assert await node.read(0, 3 * MIB) == b"b" * MIB + bytes(2 * MIB)
    check(path)
    assert contents(path) == b"b" * MIB + bytes(2 * MIB)


@pytest.mark.parametrize("options", ["", "compat=0.10", "extended_l2=on"])
async def test_growth_over_a_backing_file_touches_no_other_cluster(tmp_path: Path, options: str) -> None:
    """The backing file ends within a cluster: that one is made zero, those behind it in the image stay as they are."""
    (tmp_path / "base.raw").write_bytes(b"b" * (3 * MIB + 5120))
    path = make(tmp_path / "disk.qcow2", MIB, options, "-b", "base.raw", "-F", "raw")
    async with opened(path, discard="unmap") as node:
        await node.write(0, b"0" * 64 * KIB)
        for at in range(1, 16):
            await node.write(at * 64 * KIB, bytes((at,)) * 64 * KIB)
        await node.discard(0, 64 * KIB)  # leaves a hole in front of the others
        await node.flush()
        before = await node.read(0, MIB)
        await node.resize(4 * MIB)
        assert await node.read(0, 4 * MIB) == before + bytes(3 * MIB)
    check(path)
    assert contents(path) == before + bytes(3 * MIB)
