"""A new image's first cluster as bytes: header, extensions, feature names, backing name."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from aioemu.blockdev.qcow2 import header as layout
from aioemu.errors import ConfigError

FEATURE_NAMES = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)


def feature_table() -> bytes:
    """The names of every feature that this format knows, for tools that are older than the image."""
    return b"".join(bytes((kind, bit)) + name.encode().ljust(46, b"\0") for kind, bit, name in FEATURE_NAMES)


def first_cluster(header: layout.Header, extensions: Iterable[tuple[int, bytes]]) -> bytes:
    """(header) with (extensions) and its backing name, as the image begins; shorter than a cluster."""
    name = (header.backing_name or "").encode("utf-8", "surrogateescape")
    body = bytearray()
    for kind, data in extensions:
        body += struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) & ~7, b"\0")
    body += bytes(8)
    offset = header.length + len(body)
    if offset + len(name) > header.cluster_size or len(name) > layout.BACKING_NAME_MAX:
        raise ConfigError("Backing file name and header extensions do not fit into the first cluster")
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQ",
        layout.MAGIC,
        header.version,
        offset if name else 0,
        len(name),
        header.cluster_bits,
        header.size,
        header.crypt_method,
        header.l1_size,
        header.l1_offset,
        header.refcount_table_offset,
        header.refcount_table_clusters,
        header.snapshots,
        header.snapshots_offset,
    )
    if header.version == 3:
        masks = (header.incompatible, header.compatible, header.autoclear)
        fixed += struct.pack(">QQQII", *masks, header.refcount_order, header.length)
        fixed += bytes((header.compression,))
    return fixed.ljust(header.length, b"\0") + bytes(body) + name
