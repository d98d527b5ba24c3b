"""Makes a qcow2 image in a node: `blockdev-create` with the options and refusals of QEMU.

Left out: encryption (refused). A preallocated image maps every cluster to zeros; `falloc` and `full` also have the host
keep their places. An existing raw data file keeps its contents, which is what the image then shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aioemu.blockdev.file import FileNode
from aioemu.blockdev.newfile import FileCreateOptions
from aioemu.blockdev.node import Creator, Node
from aioemu.blockdev.options import NOT_GIVEN, anything, child, choice, flag, number, read_options, size, text
from aioemu.blockdev.permissions import Permission
from aioemu.blockdev.qcow2 import header as fields
from aioemu.blockdev.qcow2.entries import Kind
from aioemu.blockdev.qcow2.header import Header
from aioemu.blockdev.qcow2.serialise import feature_table, first_cluster
from aioemu.blockdev.qcow2.tables import RefcountWidth, encode
from aioemu.errors import ConfigError, HostError

STEP = 64 << 20  # of preallocation, between two reports of progress
ZEROES = bytes(1 << 20)
V3_ONLY = "only supported with compatibility level 1.1 and above (use version=v3 or greater)"


@dataclass(frozen=True, kw_only=True)
class Qcow2CreateOptions:
    """BlockdevCreateOptionsQcow2."""

    file: Any = child()
    data_file: Any = child(optional=True)
    data_file_raw: bool = flag(False)
    extended_l2: bool = flag(False)
    cluster_size: int = size(65536)
    size: int = size()
    version: str = choice(("v2", "v3"), "v3")
    backing_file: str | None = text(None)
    backing_fmt: str | None = text(None)
    encrypt: Any = anything()
    preallocation: str = choice(("off", "metadata", "falloc", "full"), "off")
    lazy_refcounts: bool = flag(False)
    refcount_bits: int = number(16)
    compression_type: str = choice(("zlib", "zstd"), "zlib")


def check(given: Qcow2CreateOptions) -> None:
    """ConfigError for what no image can be."""
    v2 = given.version == "v2"
    has_data = given.data_file not in (NOT_GIVEN, None)
    cluster, bits = given.cluster_size, given.refcount_bits
    refused = (
        (given.encrypt is not None, "Encryption is not supported"),
        (given.size % 512, "Image size must be a multiple of 512 bytes"),
        (
            cluster & (cluster - 1) or not 512 <= cluster <= 2 << 20,
            "Cluster size must be a power of two between 512 and 2048k",
        ),
        (
            bits <= 0 or bits > 64 or bits & (bits - 1),
            "Refcount width must be a power of two and may not exceed 64 bits",
        ),
        (
            v2 and bits != 16,
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or "
            "greater)",
        ),
        (v2 and given.lazy_refcounts, f"Lazy refcounts {V3_ONLY}"),
        (v2 and has_data, f"External data files are {V3_ONLY}"),
        (v2 and given.extended_l2, f"Extended L2 entries are {V3_ONLY}"),
        (v2 and given.compression_type != "zlib", f"Non-zlib compression type is {V3_ONLY}"),
        (
            given.extended_l2 and cluster < 16384,
            "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
        ),
        (given.data_file_raw and not has_data, "data-file-raw requires data-file"),
        (
            given.data_file_raw and given.backing_file is not None,
            "Backing file and data-file-raw cannot be used at the same time",
        ),
        (
            given.backing_fmt is not None and given.backing_file is None,
            "Backing format cannot be used without backing file",
        ),
        (
            given.backing_file is not None and given.preallocation != "off" and not given.extended_l2,
            "Backing file and preallocation can only be used at the same time if extended_l2 is enabled",
        ),
    )
    for wrong, message in refused:
        if wrong:
            raise ConfigError(message)


async def create(graph: Creator, given: Qcow2CreateOptions, progress: Any) -> None:
    """Make the image that the options describe, in a node that exists or is opened for it."""
    check(given)
    async with _held(graph, given.data_file) as data, _held(graph, given.file) as file:
        if file is None:
            raise ConfigError("Parameter 'file' is missing", "file")
        used = Permission.CONSISTENT_READ | Permission.WRITE | Permission.RESIZE
        edge = graph.attach(_Maker(), "file", file, used, Permission.ALL & ~used | Permission.CONSISTENT_READ)
        try:
            await _format(file, given, data)
        finally:
            graph.detach(edge)
        mode = given.preallocation
        if given.data_file_raw and mode == "off":
            mode = "metadata"  # what is in the data file is what the image shows
        if mode != "off" and given.size:
            progress.total = given.size
            await _preallocate(graph, given, file, data, mode, progress)


class Progress:
    """How far it is, where no job keeps it."""

    current = 0
    total = 1


async def create_image(path: str | Path, size: int, **options: Any) -> None:
    """Make an image file: (options) are those of `blockdev-create`, with `_` for `-`. An existing file is emptied."""
    from aioemu.blockdev.graph import Graph

    given = {name.replace("_", "-"): value for name, value in options.items()}
    given |= {"size": size, "file": {"driver": "file", "filename": str(path)}}
    graph = Graph(lambda *args: None)
    try:
        if not Path(path).exists():  # noqa: ASYNC240 - one that is there is emptied when the options are known to be good
            await FileNode.create(graph, FileCreateOptions(filename=str(path), size=0), Progress())
        await create(graph, read_options(Qcow2CreateOptions, given), Progress())
    finally:
        await graph.close()


class _Maker:
    """Who writes the new image: a parent that lets nobody else write meanwhile."""

    def describe(self) -> str:
        return "block job blockdev-create"

    def child_changed(self, role: str, start: int, length: int) -> None:
        pass

    def child_resized(self, role: str, size: int) -> None:
        pass


@asynccontextmanager
async def _held(graph: Creator, given: Any) -> AsyncIterator[Node[Any] | None]:
    """The node of a reference; closed at the end if it was opened here."""
    if given in (NOT_GIVEN, None):
        yield None
        return
    node = graph.find(given) if isinstance(given, str) else await graph.open(given)
    try:
        yield node
    finally:
        await graph.release(node)


def _header(given: Qcow2CreateOptions, data: Node[Any] | None) -> Header:
    """The header of the new image, but for the places of its tables."""
    compressed = fields.ZSTD if given.compression_type == "zstd" else fields.ZLIB
    incompatible = (
        (fields.DATA_FILE if data is not None else 0)
        | (fields.EXTENDED_L2 if given.extended_l2 else 0)
        | (fields.COMPRESSION if compressed else 0)
    )
    header = Header(
        version=3 if given.version == "v3" else 2,
        backing_offset=0,
        backing_size=0,
        cluster_bits=given.cluster_size.bit_length() - 1,
        size=given.size,
        crypt_method=0,
        l1_size=0,
        l1_offset=0,
        refcount_table_offset=given.cluster_size,
        refcount_table_clusters=1,
        snapshots=0,
        snapshots_offset=0,
        incompatible=incompatible,
        compatible=fields.LAZY_REFCOUNTS if given.lazy_refcounts else 0,
        autoclear=fields.AUTOCLEAR_RAW_DATA if given.data_file_raw else 0,
        refcount_order=given.refcount_bits.bit_length() - 1,
        length=112 if given.version == "v3" else fields.V2_LENGTH,
        compression=compressed,
        backing_name=given.backing_file,
    )
    if given.size > fields.OFFSET_MAX or fields.l1_entries(given.size, header) > fields.L1_BYTES_MAX // 8:
        raise ConfigError("The image size is too large (try using a larger cluster size)")
    return header


async def _format(file: Node[Any], given: Qcow2CreateOptions, data: Node[Any] | None) -> None:
    """Write header, refcount table, refcount blocks and L1 table of an image that maps nothing."""
    header = _header(given, data)
    cluster = header.cluster_size
    width = RefcountWidth(header.refcount_order, cluster)
    l1_size = fields.l1_entries(header.size, header)
    l1_clusters = -(-l1_size * 8 // cluster)
    blocks, tables = 1, 1
    while (total := 1 + tables + blocks + l1_clusters) > blocks * width.per_block or blocks * 8 > tables * cluster:
        blocks = -(-total // width.per_block)
        tables = max(-(-blocks * 8 // cluster), 1)
    header = replace(header, refcount_table_clusters=tables, l1_size=l1_size, l1_offset=(1 + tables + blocks) * cluster)
    with suppress(HostError, ConfigError):  # a device keeps its size
        await file.resize(0)
    first = 1 + tables
    counts = encode(width.counts(total)).ljust(blocks * cluster, b"\0")
    table = b"".join(((first + at) * cluster).to_bytes(8, "big") for at in range(blocks)).ljust(tables * cluster, b"\0")
    end = header.l1_offset + max(l1_clusters, 1) * cluster
    if file.size < end:
        await file.resize(end)
    await file.write(0, first_cluster(header, _extensions(given, data)).ljust(cluster, b"\0"))
    await file.write(cluster, table)
    await file.write(first * cluster, counts)
    await file.write_zeroes(header.l1_offset, end - header.l1_offset)
    await file.flush()


def _extensions(given: Qcow2CreateOptions, data: Node[Any] | None) -> list[tuple[int, bytes]]:
    """What follows the header."""
    found: list[tuple[int, bytes]] = []
    if given.backing_fmt is not None:
        found.append((fields.EXT_BACKING_FORMAT, given.backing_fmt.encode()))
    if data is not None:
        found.append((fields.EXT_DATA_FILE, data.filename.encode("utf-8", "surrogateescape")))
    if given.version == "v3":
        found.append((fields.EXT_FEATURES, feature_table()))
    return found


async def _preallocate(
    graph: Creator, given: Qcow2CreateOptions, file: Node[Any], data: Node[Any] | None, mode: str, progress: Any
) -> None:
    """Map every cluster of the new image."""
    from aioemu.blockdev.qcow2.node import Qcow2Node

    options: dict[str, Any] = {"driver": "qcow2", "file": file.name, "backing": None}
    if data is not None:
        options["data-file"] = data.name
        if data.size < given.size:
            await data.resize(given.size)
    node = await graph.open(options)
    assert isinstance(node, Qcow2Node)
    try:
        for at in range(0, given.size, STEP):
            await node.preallocate(at, min(STEP, given.size - at), keep=data is not None)
            if mode != "metadata":
                await _have_places(node, at, min(STEP, given.size - at), mode == "full")
            progress.current = at
        await node.flush()
        progress.current = given.size
    finally:
        await graph.release(node)


async def _have_places(node: Any, start: int, length: int, full: bool) -> None:
    """Have the host keep the places of a mapped range: reserved, or written with zeros."""
    image = node.image
    while length:
        run = await image.lookup(start, length)
        if run.kind is not Kind.DATA:
            raise HostError(f"{image.name}: a preallocated cluster is not there")
        if full:
            for at in range(run.host, run.host + run.length, len(ZEROES)):
                await image.data.write(at, memoryview(ZEROES)[: run.host + run.length - at])
        else:
            await image.data.write_zeroes(run.host, run.length)
        start += run.length
        length -= run.length
