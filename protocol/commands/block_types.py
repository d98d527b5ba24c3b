"""What the queries about disks answer (QAPI block-core.json), and how a node is described in these terms.

Figures of I/O come from the device that has the disk; what nobody counts is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from aioemu.protocol.schema import Record


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
    snapshots: list[Any] | None = None
    backing_image: Any = None
    format_specific: Any = None


class BlockDeviceInfo(Record, rename=None, kw_only=True):
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
    bps: int
    bps_rd: int
    bps_wr: int
    iops: int
    iops_rd: int
    iops_wr: int
    image: ImageInfo
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
    timed_stats: list[Any]


class BlockStats(Record, kw_only=True):
    """Figures of a device or a node, and of the node below it."""

    device: str | None = None
    qdev: str | None = None
    node_name: str | None = None
    stats: BlockDeviceStats
    driver_specific: Any = None
    parent: Any = None
    backing: Any = None


def stats_of(figures: Mapping[str, int], *, counted: bool) -> BlockDeviceStats:
    """All counters, those that are not given as zero; `counted`: failed and invalid requests count."""
    known = {name: 0 for name, kind in BlockDeviceStats.__annotations__.items() if kind == "int"}
    values: dict[str, Any] = {name: figures.get(name, value) for name, value in known.items()}
    return BlockDeviceStats(account_invalid=counted, account_failed=counted, timed_stats=[], **values)
