"""Images made to break whoever opens them: each is refused or served within bounds of time and memory, never obeyed."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.backend import Backend
from aioemu.blockdev.graph import Graph
from aioemu.blockdev.qcow2.header import Header, parse
from aioemu.blockdev.qcow2.image import SLICE
from aioemu.blockdev.qcow2.node import Qcow2Node
from aioemu.errors import ConfigError, EmuError, HostError
from tests.blockdev.qcow2.conftest import opened
from tests.blockdev.qcow2.tools import KIB, MIB, fill, make, needs_tools, run

pytestmark = needs_tools
ALL_ONES = (1 << 64) - 1
FIELDS = {  # offset and struct code
    "backing_offset": (8, ">Q"),
    "backing_size": (16, ">I"),
    "cluster_bits": (20, ">I"),
    "size": (24, ">Q"),
    "crypt": (32, ">I"),
    "l1_size": (36, ">I"),
    "l1_offset": (40, ">Q"),
    "table_offset": (48, ">Q"),
    "table_clusters": (56, ">I"),
    "snapshots": (60, ">I"),
    "snapshots_offset": (64, ">Q"),
    "incompatible": (72, ">Q"),
    "autoclear": (88, ">Q"),
    "order": (96, ">I"),
    "length": (100, ">I"),
}
REFUSED: list[
    tuple[dict[str, int], str]
] = [  # what QEMU's own tests (iotests 080) and advisories tried, and the answer
    ({"length": 0xFFFFFFFF}, "header exceeds cluster size"),
    ({"length": 0x7FFFFFFF}, "header exceeds cluster size"),
    ({"length": 103}, "header too short"),
    ({"backing_offset": ALL_ONES}, "Invalid backing file offset"),
    ({"backing_offset": 0x200, "backing_size": 0xFFFFFFFF}, "Backing file name too long"),
    ({"table_clusters": 0xFFFFFFFF}, "reference count table too large"),
    ({"table_clusters": 0x00020001}, "reference count table too large"),
    ({"table_clusters": 0}, "does not contain a reference count table"),
    ({"table_offset": 0x1234567890ABCDEF}, "Invalid refcount table offset"),
    ({"table_offset": 0xFFFFFFFFFFFF0000}, "Invalid refcount table offset"),
    ({"snapshots": 0xFFFFFFFF}, "Snapshot table too large"),
    ({"snapshots": 0x7FFFFFFF}, "Snapshot table too large"),
    ({"snapshots": 0xFFFF, "snapshots_offset": 0x1234567890ABCDEF}, "Invalid snapshot table offset"),
    ({"snapshots": 0xFFFF, "snapshots_offset": 0xFFFFFFFFFFFF0000}, "Invalid snapshot table offset"),
    ({"l1_size": 0xFFFFFFFF}, "L1 table too large"),
    ({"l1_size": 0x7FFFFFFF}, "L1 table too large"),
    ({"l1_size": 0}, "L1 table is too small"),
    ({"l1_offset": 0x1234567890ABCDEF}, "Invalid L1 table offset"),
    ({"l1_offset": 0x7FFFFFFFFFFF0000, "l1_size": 0x8000}, "Invalid L1 table offset"),
    ({"l1_offset": 0}, "Invalid L1 table offset"),
    ({"size": ALL_ONES}, "too big"),
    ({"size": 1 << 62}, "too big"),
    ({"cluster_bits": 8}, "Unsupported cluster size"),
    ({"cluster_bits": 22}, "Unsupported cluster size"),
    ({"cluster_bits": 0xFFFFFFFF}, "Unsupported cluster size"),
    ({"crypt": 1}, "AES encryption"),
    ({"crypt": 2}, "LUKS encryption"),
    ({"crypt": 3}, "Unsupported encryption method"),
    ({"order": 7}, "may not exceed 64 bits"),
    ({"order": 0xFFFFFFFF}, "may not exceed 64 bits"),
    ({"incompatible": 1 << 3}, "Compression type"),
    ({"incompatible": 1 << 2}, "'data-file' is required"),
    ({"incompatible": 1 << 1}, "Image is corrupt"),
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with every kind of cluster."""
    raw = tmp_path / "some.raw"
    raw.write_bytes(bytes(range(256)) * 256 + os.urandom(64 * KIB) + bytes(MIB - 128 * KIB))
    path = tmp_path / "disk.qcow2"
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", raw, path)
    fill(path, "write -P 1 128k 64k", "write -z 512k 64k")
    run("qemu-img", "snapshot", "-c", "one", path)
    fill(path, "write -P 2 160k 64k", "discard 128k 8k")
    return path


@pytest.fixture(autouse=True)
def memory_bound(image: Path) -> Iterator[None]:
    """Whatever an image asks for: no more than this many bytes on top of what is there already."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def patch(path: Path, **fields: int) -> None:
    """Change fields of the header."""
    with path.open("r+b") as file:
        for name, value in fields.items():
            offset, code = FIELDS[name]
            file.seek(offset)
            file.write(struct.pack(code, value))


def put(path: Path, offset: int, *values: int) -> None:
    """Write 64-bit numbers."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(f">{len(values)}Q", *values))


def header_of(path: Path) -> Header:
    return parse(path.read_bytes()[: 1 << 16])


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda value: str(value)[:60])
async def test_a_header_that_cannot_be(image: Path, fields: dict[str, int], message: str) -> None:
    """Each size and offset of the header is checked before anything is allocated or read on its word."""
    patch(image, **fields)
    before = image.read_bytes()
    with pytest.raises(ConfigError, match=message):
        async with opened(image):
            pass
    assert image.read_bytes() == before


async def test_extensions_and_backing_name_that_leave_the_first_cluster(image: Path) -> None:
    """An extension is as long as it says only if it ends in the header's area."""
    length = header_of(image).length
    with image.open("r+b") as file:
        file.seek(length)
        file.write(struct.pack(">II", 0x44415441, 0x7FFFFFFF))
    for offset in (0, ALL_ONES):
        patch(image, backing_offset=offset)
        with pytest.raises(ConfigError):
            async with opened(image):
                pass


async def test_not_an_image(tmp_path: Path) -> None:
    """Short files and other formats are none."""
    for content in (b"", b"QFI\xfb", b"QFI\xfb" + bytes(68), bytes(4096), os.urandom(512)):
        path = tmp_path / "other"
        path.write_bytes(content)
        with pytest.raises(ConfigError):
            async with opened(path):
                pass


async def use(node: Qcow2Node) -> None:
    """What a guest does, whatever comes of it: only errors of the project may."""
    for offset, size in ((0, 4096), (100 * 512, 512), (128 * KIB, 128 * KIB), (512 * KIB, 64 * KIB), (0, 64 * KIB)):
        for call in (node.read(offset, size), node.extent(offset, size)):
            with suppress(EmuError):
                await call
        if not node.read_only:
            for change in (
                node.write(offset, b"w" * size),
                node.extent(offset, size, write=True),
                node.write_zeroes(offset, size),
                node.discard(offset, size),
                node.flush(),
            ):
                with suppress(EmuError):
                    await change


async def corrupts(path: Path, offset: int, change: str = "write") -> None:
    """Writing there is refused, the image is marked as corrupt, and after that it opens only to be read."""
    told: list[dict[str, Any]] = []
    async with opened(path, told) as node:
        with pytest.raises(HostError, match="corrupt"):
            await (node.write(offset, b"x" * 512) if change == "write" else node.extent(offset, 512, write=True))
        with pytest.raises(HostError, match="corrupt"):
            await node.write(0, b"x" * 512)
        with pytest.raises(HostError, match="corrupt"):
            await node.flush()
    assert [(each["event"], each["fatal"]) for each in told] == [("BLOCK_IMAGE_CORRUPTED", True)]
    assert header_of(path).incompatible & 2
    with pytest.raises(ConfigError, match="corrupt"):
        async with opened(path):
            pass
    async with opened(path, read_only=True) as node:
        await use(node)


def l2_offset(path: Path) -> int:
    entry = struct.unpack_from(">Q", path.read_bytes(), header_of(path).l1_offset)[0]
    return int(entry & 0x00FF_FFFF_FFFF_FE00)


@pytest.mark.parametrize("change", ["write", "extent"])
@pytest.mark.parametrize("target", ["header", "l1", "table", "block", "l2", "snapshots"])
async def test_a_guest_never_writes_tables(image: Path, target: str, change: str) -> None:
    """A data cluster that is a table as well is a corruption, found before the write."""
    header = header_of(image)
    block = struct.unpack_from(">Q", image.read_bytes(), header.refcount_table_offset)[0]
    targets = {
        "header": 0,
        "l1": header.l1_offset,
        "table": header.refcount_table_offset,
        "block": block,
        "l2": l2_offset(image),
        "snapshots": header.snapshots_offset,
    }
    put(image, l2_offset(image) + 160 // 4 * 8, targets[target] | 1 << 63)
    if target == "header":  # offset 0 is no offset: such a cluster is unallocated
        async with opened(image) as node:
            await node.write(160 * KIB, b"x" * 512)
        return
    await corrupts(image, 160 * KIB, change)


@pytest.mark.parametrize("drive", ["d0", ""])
async def test_who_listens_learns_which_disk_and_where(image: Path, drive: str) -> None:
    """BLOCK_IMAGE_CORRUPTED names the drive, if it has a name, and the place in the file that would have been hit."""
    target = header_of(image).l1_offset
    put(image, l2_offset(image) + 160 // 4 * 8, target | 1 << 63)
    told: list[dict[str, Any]] = []
    async with opened(image, told) as node:
        backend = Backend(Graph(lambda *words: None), drive)
        backend.insert(node)
        with pytest.raises(HostError, match="corrupt"):
            await node.write(160 * KIB + 512, b"x" * 1024)
        backend.eject()
    assert [{**each, "msg": ""} for each in told] == [
        {
            "event": "BLOCK_IMAGE_CORRUPTED",
            "device": drive,
            "node_name": node.name,
            "msg": "",
            "offset": target + 512,
            "size": 1024,
            "fatal": True,
        }
    ]


@pytest.mark.parametrize("entry", [0xBFFFFFFFFFFF0000, 0x800000FFFFFF0000, 0x8000000000001200, 0x80FFFFFFFFFFF000])
async def test_an_entry_that_leads_nowhere(image: Path, entry: int) -> None:
    """A misaligned cluster is a corruption; one beyond the end of the file reads as zeros and is not written."""
    put(image, l2_offset(image) + 160 // 4 * 8, entry)
    if not entry & 0xE00:
        async with opened(image, read_only=True) as node:
            assert await node.read(160 * KIB, 4096) == bytes(4096)
    size = image.stat().st_size
    await corrupts(image, 160 * KIB)
    assert image.stat().st_size == size


@pytest.mark.parametrize("value", [0x1200, 0x800000FFFFFF0000, 0x80FFFFFFFFFFF000, 0x8000000000000200])
async def test_an_l1_entry_that_leads_nowhere(image: Path, value: int) -> None:
    """An L2 table must be at a cluster's start; one beyond the end of the file maps nothing."""
    put(image, header_of(image).l1_offset, value)
    async with opened(image, read_only=True) as node:
        await use(node)
    async with opened(image) as node:
        await use(node)


async def test_tables_within_each_other(image: Path) -> None:
    """An L1 entry that names the refcount block, or the L2 table of another one, stops changes, not reading."""
    header = header_of(image)
    block = struct.unpack_from(">Q", image.read_bytes(), header.refcount_table_offset)[0]
    put(image, header.l1_offset, block | 1 << 63)
    await corrupts(image, 0)


@pytest.mark.parametrize("value", [0x1200, 0, 0xFFFFFFFFFFFFF000])
async def test_refcount_blocks_that_lie(image: Path, value: int) -> None:
    """A misaligned block, none where clusters are used, or one beyond the end: no cluster in use is handed out."""
    put(image, header_of(image).refcount_table_offset, value)
    before = image.read_bytes()
    async with opened(image) as node:
        await use(node)
    after = image.read_bytes()
    table = l2_offset(image)
    assert after[table : table + 4096][:64] == before[table : table + 4096][:64]


async def test_counts_that_call_everything_free(image: Path) -> None:
    """Metadata that is counted as free is not taken for data."""
    header = header_of(image)
    block = struct.unpack_from(">Q", image.read_bytes(), header.refcount_table_offset)[0]
    put(image, block, *([0] * 512))
    await corrupts(image, 768 * KIB)


@pytest.mark.parametrize(
    ("offset", "entries"),
    [(0x400200, 1), (0, 0x10000000), (0x7FFFFFFFFFFF0000, 0x400000), (0xFFFFFFFFFFFFF000, 1)],
)
async def test_a_snapshot_that_cannot_be(image: Path, offset: int, entries: int) -> None:
    """The L1 table of a snapshot is checked like the disk's own."""
    with image.open("r+b") as file:
        file.seek(header_of(image).snapshots_offset)
        file.write(struct.pack(">QI", offset, entries))
    with pytest.raises(ConfigError, match=r"[Ss]napshot"):
        async with opened(image):
            pass


async def test_snapshot_tables_in_holes(image: Path) -> None:
    """As many snapshots as a header may claim, in a file that has none of them, cost next to nothing."""
    patch(image, snapshots=65536, snapshots_offset=1 << 40)
    with pytest.raises(ConfigError, match="beyond the end"):
        async with opened(image):
            pass
    os.truncate(image, (1 << 40) + (16 << 20))
    async with opened(image, read_only=True) as node:
        await use(node)


@pytest.mark.parametrize("kind", ["length", "garbage", "offset"])
async def test_compressed_clusters_that_lie(image: Path, kind: str) -> None:
    """What does not decompress to one cluster is an I/O error, whatever it decompresses to."""
    entry = struct.unpack_from(">Q", image.read_bytes(), l2_offset(image) + 4 * 8)[0]
    assert entry >> 62 & 1
    values = {"length": entry | 0xF << 58, "garbage": 1 << 62 | 4096, "offset": 1 << 62 | (1 << 56) - 600}
    put(image, l2_offset(image) + 4 * 8, values[kind])
    async with opened(image) as node:
        if kind == "length":  # longer than it is: what follows the end of the stream does not matter
            await node.read(16 * KIB, 4096)
        else:
            with pytest.raises(HostError, match="compressed cluster"):
                await node.read(16 * KIB, 4096)
        await use(node)


async def test_a_backing_file_that_is_the_image(tmp_path: Path) -> None:
    """A chain that loops is refused, and so is a name that leads to a protocol nobody asked for."""
    path = make(tmp_path / "loop.qcow2", MIB)
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "loop.qcow2", "-F", "qcow2", path)
    with pytest.raises(EmuError):
        async with opened(path):
            pass
    async with opened(path, backing=None) as node:
        assert await node.read(0, 512) == bytes(512)


async def test_others_have_their_turn_however_many_tables_there_are(tmp_path: Path) -> None:
    """An image with hundreds of thousands of tables holds up its first write, and nothing else on the loop."""
    tables = 300_000
    path = make(tmp_path / "many", tables * 64 * 512, "cluster_size=512")
    start = -(-path.stat().st_size // 512) * 512
    put(path, header_of(path).l1_offset, *(1 << 63 | start + at * 512 for at in range(tables)))
    os.truncate(path, start + tables * 512)
    async with opened(path) as node:
        counting = node.image._build_metadata()
        turns = 0
        with suppress(StopIteration):  # it waits for nothing but its turn
            while counting.send(None) is None:
                turns += 1
        assert turns > 2 * tables // SLICE
        assert node.image.is_metadata((start >> 9) + tables - 1, 1)
