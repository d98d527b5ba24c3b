"""What the queries about disks answer (QAPI block-core.json), and how a node is described in these terms.

Figures of I/O come from the device that has the disk; what nobody counts is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

import msgspec

from aioemu.protocol.schema import Record, UInt64, Union


class BlockDeviceIoStatus(StrEnum):
    """Whether an error has stopped the machine."""

    OK = "ok"
    FAILED = "failed"
    NOSPACE = "nospace"


class DetectZeroes(StrEnum):
    """What happens to writes of zeroes."""

    OFF = "off"
    ON = "on"
    UNMAP = "unmap"


class BlockdevCacheInfo(Record, kw_only=True):
    """How the host's cache is used."""

    writeback: bool
    direct: bool
    no_flush: bool


class SnapshotInfo(Record, kw_only=True):
    """A snapshot that an image holds."""

    id: str
    name: str
    vm_state_size: int
    date_sec: int
    date_nsec: int
    vm_clock_sec: int
    vm_clock_nsec: int
    icount: int | None = None


class Qcow2CompressionType(StrEnum):
    """How clusters are compressed."""

    ZLIB = "zlib"
    ZSTD = "zstd"


class ImageInfoSpecificQCow2(Record, kw_only=True):
    """What only qcow2 images have."""

    compat: str
    data_file: str | None = None
    data_file_raw: bool | None = None
    extended_l2: bool | None = None
    lazy_refcounts: bool | None = None
    corrupt: bool | None = None
    refcount_bits: int
    compression_type: Qcow2CompressionType


class ImageInfoSpecificFile(Record, kw_only=True):
    """What only files have."""


class QCow2Wrapper(Record, kw_only=True):
    """Its place in the union."""

    data: ImageInfoSpecificQCow2


class FileWrapper(Record, kw_only=True):
    """Its place in the union."""

    data: ImageInfoSpecificFile


class ImageInfoSpecificKind(StrEnum):
    """Drivers that have more to say of an image."""

    QCOW2 = "qcow2"
    FILE = "file"


class ImageInfoSpecific(Union, kw_only=True):
    """What a driver says of its image."""

    tag = "type"
    cases: ClassVar = {ImageInfoSpecificKind.QCOW2: QCow2Wrapper, ImageInfoSpecificKind.FILE: FileWrapper}

    type: ImageInfoSpecificKind


class ImageInfo(Record, kw_only=True):
    """An image; the one below it too, where it is told whole."""

    filename: str
    format: str
    virtual_size: int
    dirty_flag: bool | None = None
    actual_size: int | None = None
    cluster_size: int | None = None
    encrypted: bool | None = None
    compressed: bool | None = None
    backing_filename: str | None = None
    full_backing_filename: str | None = None
    backing_filename_format: str | None = None
    snapshots: list[SnapshotInfo] | None = None
    backing_image: ImageInfo | None = None
    format_specific: ImageInfoSpecific | None = None


class Limits(Record, rename=None, kw_only=True):
    """A disk's limits, zero is none: bytes and operations a second, with maxima for bursts; `group` shares them."""

    bps: int
    bps_rd: int
    bps_wr: int
    iops: int
    iops_rd: int
    iops_wr: int
    bps_max: int | None = None
    bps_rd_max: int | None = None
    bps_wr_max: int | None = None
    iops_max: int | None = None
    iops_rd_max: int | None = None
    iops_wr_max: int | None = None
    bps_max_length: int | None = None
    bps_rd_max_length: int | None = None
    bps_wr_max_length: int | None = None
    iops_max_length: int | None = None
    iops_rd_max_length: int | None = None
    iops_wr_max_length: int | None = None
    iops_size: int | None = None
    group: str | None = None


class BlockDeviceInfo(Limits, rename=None, kw_only=True):
    """A node: its image, how it is opened, its limits."""

    file: str
    node_name: str | None = msgspec.field(name="node-name", default=None)
    ro: bool
    drv: str
    backing_file: str | None = None
    backing_file_depth: int
    active: bool
    encrypted: bool
    detect_zeroes: DetectZeroes
    image: ImageInfo
    cache: BlockdevCacheInfo
    write_threshold: int


class BlockInfo(Record, kw_only=True):
    """A drive, or a device's disk."""

    device: str
    qdev: str | None = None
    type: str
    removable: bool
    locked: bool
    inserted: BlockDeviceInfo | None = None
    tray_open: bool | None = msgspec.field(name="tray_open", default=None)
    io_status: BlockDeviceIoStatus | None = None


class BlockDeviceTimedStats(Record, rename=None, kw_only=True):
    """Figures of an interval: none are kept."""

    interval_length: int
    min_rd_latency_ns: int
    max_rd_latency_ns: int
    avg_rd_latency_ns: int
    min_wr_latency_ns: int
    max_wr_latency_ns: int
    avg_wr_latency_ns: int
    min_zone_append_latency_ns: int
    max_zone_append_latency_ns: int
    avg_zone_append_latency_ns: int
    min_flush_latency_ns: int
    max_flush_latency_ns: int
    avg_flush_latency_ns: int
    avg_rd_queue_depth: float
    avg_wr_queue_depth: float
    avg_zone_append_queue_depth: float


class BlockDeviceStats(Record, rename=None, kw_only=True):
    """What a disk has done."""

    rd_bytes: int
    wr_bytes: int
    zone_append_bytes: int
    unmap_bytes: int
    rd_operations: int
    wr_operations: int
    zone_append_operations: int
    flush_operations: int
    unmap_operations: int
    rd_total_time_ns: int
    wr_total_time_ns: int
    zone_append_total_time_ns: int
    flush_total_time_ns: int
    unmap_total_time_ns: int
    wr_highest_offset: int
    rd_merged: int
    wr_merged: int
    zone_append_merged: int
    unmap_merged: int
    idle_time_ns: int | None = None
    failed_rd_operations: int
    failed_wr_operations: int
    failed_zone_append_operations: int
    failed_flush_operations: int
    failed_unmap_operations: int
    invalid_rd_operations: int
    invalid_wr_operations: int
    invalid_zone_append_operations: int
    invalid_flush_operations: int
    invalid_unmap_operations: int
    account_invalid: bool
    account_failed: bool
    timed_stats: list[BlockDeviceTimedStats]


class BlockStatsSpecificFile(Record, kw_only=True):
    """Discards of a file."""

    discard_nb_ok: UInt64
    discard_nb_failed: UInt64
    discard_bytes_ok: UInt64


class BlockStatsDriver(StrEnum):
    """Drivers that count something of their own."""

    FILE = "file"
    HOST_DEVICE = "host_device"


class BlockStatsSpecific(Union, kw_only=True):
    """What a driver counts."""

    tag = "driver"
    cases: ClassVar = {
        BlockStatsDriver.FILE: BlockStatsSpecificFile,
        BlockStatsDriver.HOST_DEVICE: BlockStatsSpecificFile,
    }

    driver: BlockStatsDriver


class BlockStats(Record, kw_only=True):
    """Figures of a device or a node, and of the node below it."""

    device: str | None = None
    qdev: str | None = None
    node_name: str | None = None
    stats: BlockDeviceStats
    driver_specific: BlockStatsSpecific | None = None
    parent: BlockStats | None = None
    backing: BlockStats | None = None


def stats_of(figures: Mapping[str, int], *, counted: bool) -> BlockDeviceStats:
    """All counters, those that are not given as zero; `counted`: failed and invalid requests count."""
    known = {name: 0 for name, kind in BlockDeviceStats.__annotations__.items() if kind == "int"}
    values: dict[str, Any] = {name: figures.get(name, value) for name, value in known.items()}
    values["idle_time_ns"] = figures.get("idle_time_ns")
    return BlockDeviceStats(account_invalid=counted, account_failed=counted, timed_stats=[], **values)
