"""The first cluster of a qcow2 image: its header, extensions and feature names, read with every field checked.

Pure: bytes in, values out. Fields are changed in place on disk (`FIELDS` names where), so that whatever else an image
carries stays as it was. The bytes are not trusted: each size has a bound, and nothing is allocated on their word.
The section names are those of the format's specification (docs/interop/qcow2 of QEMU).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Final

from aioemu.errors import ConfigError

MAGIC: Final = b"QFI\xfb"
V2_LENGTH: Final = 72
V3_LENGTH: Final = 104  # the shortest; 112 with the compression type
CLUSTER_BITS: Final = range(9, 22)  # 512 bytes to 2 MiB
L1_BYTES_MAX: Final = 32 << 20  # the specification's note on QEMU's limit
REFTABLE_BYTES_MAX: Final = 8 << 20
SNAPSHOTS_MAX: Final = 65536
BITMAPS_MAX: Final = 65535
BACKING_NAME_MAX: Final = 1023
OFFSET_MAX: Final = (1 << 63) - 1  # what a host file can have

INCOMPATIBLE: Final = {"dirty": 0, "corrupt": 1, "data-file": 2, "compression-type": 3, "extended-l2": 4}
DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in INCOMPATIBLE.values())
LAZY_REFCOUNTS: Final = 1  # compatible
AUTOCLEAR_BITMAPS: Final = 1
AUTOCLEAR_RAW_DATA: Final = 2
AUTOCLEAR_KNOWN: Final = AUTOCLEAR_BITMAPS | AUTOCLEAR_RAW_DATA
ZLIB, ZSTD = range(2)

EXT_END, EXT_BACKING_FORMAT, EXT_FEATURES = 0, 0xE2792ACA, 0x6803F857
EXT_BITMAPS, EXT_CRYPTO, EXT_DATA_FILE = 0x23852875, 0x0537BE77, 0x44415441

_V2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_V3: Final = struct.Struct(">QQQII")
# offset of what is ever rewritten in place
FIELDS: Final = {"size": 24, "l1": 36, "refcount_table": 48, "incompatible": 72, "autoclear": 88}


@dataclass(frozen=True, slots=True)
class BitmapsExtension:
    """Where the directory of persistent bitmaps is."""

    count: int
    directory_size: int
    directory_offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """What an image's first cluster says."""

    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    length: int = V2_LENGTH
    compression: int = ZLIB
    extensions: tuple[tuple[int, bytes], ...] = field(default=())
    backing_name: str | None = None

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def extended(self) -> bool:
        """Whether L2 entries are the long ones, with subclusters."""
        return bool(self.incompatible & EXTENDED_L2)

    @property
    def l2_entry_size(self) -> int:
        return 16 if self.extended else 8

    @property
    def l2_bits(self) -> int:
        """The number of guest clusters of one L2 table, as a power of two."""
        return self.cluster_bits - (4 if self.extended else 3)

    def extension(self, kind: int) -> bytes | None:
        return next((data for found, data in self.extensions if found == kind), None)

    def text(self, kind: int) -> str | None:
        """An extension that is one string."""
        data = self.extension(kind)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    @property
    def bitmaps(self) -> BitmapsExtension | None:
        """The bitmaps extension, if the image has one and says that it is consistent."""
        data = self.extension(EXT_BITMAPS)
        if data is None or not self.autoclear & AUTOCLEAR_BITMAPS:
            return None
        count, reserved, size, offset = struct.unpack(">IIQQ", data)
        if reserved or not 1 <= count <= BITMAPS_MAX or not count * 24 <= size <= (64 << 20):
            raise ConfigError("invalid bitmaps extension")
        _check_table(offset, size, self.cluster_size, "bitmap directory")
        return BitmapsExtension(count, size, offset)


def parse(data: bytes) -> Header:
    """The header at the start of (data), which is the image's first bytes, at least one cluster of them.

    ConfigError with what is wrong, in the words that QEMU uses where it has some.
    """
    if len(data) < V2_LENGTH or data[:4] != MAGIC:
        raise ConfigError("Image is not in qcow2 format")
    header = Header(*_V2.unpack_from(data)[1:])
    if header.version not in (2, 3):
        raise ConfigError(f"Unsupported qcow2 version {header.version}")
    if header.cluster_bits not in CLUSTER_BITS:
        raise ConfigError(f"Unsupported cluster size: 2^{header.cluster_bits}")
    header = _parse_v3(header, data) if header.version == 3 else header
    if header.length > header.cluster_size:
        raise ConfigError("qcow2 header exceeds cluster size")
    area_end = header.cluster_size
    if header.backing_offset:
        area_end = header.backing_offset
        if header.backing_offset > header.cluster_size or header.backing_offset < header.length:
            raise ConfigError("Invalid backing file offset")
    header = replace(header, extensions=_parse_extensions(data, header.length, min(area_end, len(data))))
    _check_features(header)
    _check_fields(header)
    return replace(header, backing_name=_backing_name(header, data))


def _parse_v3(header: Header, data: bytes) -> Header:
    """The fields that version 3 adds."""
    if len(data) < V3_LENGTH:
        raise ConfigError("qcow2 header too short")
    incompatible, compatible, autoclear, order, length = _V3.unpack_from(data, V2_LENGTH)
    if length < V3_LENGTH:
        raise ConfigError("qcow2 header too short")
    if length > header.cluster_size or length % 8:
        raise ConfigError("qcow2 header exceeds cluster size")
    compression = data[V3_LENGTH] if length > V3_LENGTH and len(data) > V3_LENGTH else ZLIB
    return replace(
        header,
        incompatible=incompatible,
        compatible=compatible,
        autoclear=autoclear,
        refcount_order=order,
        length=length,
        compression=compression,
    )


def _parse_extensions(data: bytes, start: int, end: int) -> tuple[tuple[int, bytes], ...]:
    """The header extensions between (start) and (end)."""
    found: list[tuple[int, bytes]] = []
    while start + 8 <= end:
        kind, length = struct.unpack_from(">II", data, start)
        if kind == EXT_END:
            break
        start += 8
        if length > end - start:
            raise ConfigError("Header extension too large")
        found.append((kind, data[start : start + length]))
        start += (length + 7) & ~7
    for kind, size in ((EXT_BITMAPS, 24), (EXT_CRYPTO, 16)):
        if any(found_kind == kind and len(content) != size for found_kind, content in found):
            raise ConfigError(f"Header extension {kind:#010x} has the wrong length")
    return tuple(found)


def feature_names(table: bytes) -> dict[tuple[int, int], str]:
    """What a feature name table calls each (kind, bit); names are shown printable, whatever the image has there."""
    names = {}
    for start in range(0, len(table) - 47, 48):
        name = table[start + 2 : start + 48].split(b"\0")[0].decode("ascii", "replace")
        names[table[start], table[start + 1]] = "".join(c if c.isprintable() else "?" for c in name)
    return names


def _check_features(header: Header) -> None:
    """Refuse what an image says must be understood and is not, by the name that it gives."""
    known = sum(1 << bit for bit in INCOMPATIBLE.values())
    unknown = header.incompatible & ~known
    if unknown:
        names = feature_names(header.extension(EXT_FEATURES) or b"")
        bits = [bit for bit in range(64) if unknown >> bit & 1]
        shown = ", ".join(names.get((0, bit)) or f"Unknown incompatible feature: {1 << bit:x}" for bit in bits)
        raise ConfigError(f"Unsupported qcow2 feature(s): {shown}")
    if header.crypt_method:
        method = {1: "AES", 2: "LUKS"}.get(header.crypt_method)
        raise ConfigError(f"{method} encryption is not supported" if method else "Unsupported encryption method")
    if bool(header.incompatible & COMPRESSION) != bool(header.compression):
        raise ConfigError("Compression type and its feature bit disagree")
    if header.compression not in (ZLIB, ZSTD):
        raise ConfigError(f"Unknown compression type: {header.compression}")
    if header.extended and header.cluster_bits < 14:
        raise ConfigError("Extended L2 entries need clusters of at least 16 KiB")
    if header.autoclear & AUTOCLEAR_RAW_DATA and header.incompatible & DATA_FILE and header.backing_offset:
        raise ConfigError("A raw external data file cannot have a backing file")


def _check_table(offset: int, size: int, cluster_size: int, what: str) -> None:
    """A table must be aligned and end where a file can."""
    if offset % cluster_size or offset + size > OFFSET_MAX:
        raise ConfigError(f"Invalid {what} offset")


def _check_fields(header: Header) -> None:
    """Offsets and sizes: aligned, bounded, and large enough for each other."""
    cluster = header.cluster_size
    if header.refcount_order > 6:
        raise ConfigError("Reference count entry width too large; may not exceed 64 bits")
    if not header.refcount_table_clusters and not header.incompatible & CORRUPT:
        raise ConfigError("Image does not contain a reference count table")
    if header.refcount_table_clusters > REFTABLE_BYTES_MAX >> header.cluster_bits:
        raise ConfigError("Image reference count table too large")
    _check_table(header.refcount_table_offset, header.refcount_table_clusters * cluster, cluster, "refcount table")
    if header.snapshots > SNAPSHOTS_MAX:
        raise ConfigError("Snapshot table too large")
    _check_table(header.snapshots_offset, header.snapshots * 40, cluster, "snapshot table")
    if header.size > OFFSET_MAX:
        raise ConfigError("Image is too big")
    if header.l1_size > L1_BYTES_MAX // 8:
        raise ConfigError("Active L1 table too large")
    needed = l1_entries(header.size, header)
    if needed > L1_BYTES_MAX // 8:
        raise ConfigError("Image is too big")
    if header.l1_size < needed:
        raise ConfigError("L1 table is too small")
    _check_table(header.l1_offset, header.l1_size * 8, cluster, "L1 table")
    if header.l1_size and not header.l1_offset:
        raise ConfigError("Invalid L1 table offset")


def l1_entries(size: int, header: Header) -> int:
    """How many L1 entries a disk of (size) bytes needs."""
    return -(-size >> (header.cluster_bits + header.l2_bits)) if size else 0


def _backing_name(header: Header, data: bytes) -> str | None:
    """The name of the backing file, as the image has it."""
    if not header.backing_offset:
        return None
    end = header.backing_offset + header.backing_size
    if header.backing_size > BACKING_NAME_MAX or end > min(header.cluster_size, len(data)):
        raise ConfigError("Backing file name too long")
    name = data[header.backing_offset : end]
    if not name or b"\0" in name:
        return None if not name else name.split(b"\0")[0].decode("utf-8", "surrogateescape")
    return name.decode("utf-8", "surrogateescape")
