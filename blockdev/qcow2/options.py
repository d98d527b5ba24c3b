"""What `-blockdev driver=qcow2` can be told, by QEMU's names, and what follows from it for one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aioemu.blockdev.options import NodeOptions, anything, child, choice, flag, number, read_options, size
from aioemu.blockdev.qcow2.header import CORRUPT, LAZY_REFCOUNTS, Header
from aioemu.blockdev.qcow2.image import Limits
from aioemu.errors import ConfigError

OVERLAP_CHECKS = ("none", "constant", "cached", "all")
L2_CACHE_DEFAULT = 32 << 20  # maps 256 GiB of 64 KiB clusters
REFCOUNT_CACHE_DEFAULT = 4 << 20


@dataclass(frozen=True, kw_only=True)
class OverlapFlags:
    """`overlap-check` as single checks: what a write is kept from, on top of a template."""

    template: str = choice(OVERLAP_CHECKS, "cached")
    main_header: bool = flag()
    active_l1: bool = flag()
    active_l2: bool = flag()
    refcount_table: bool = flag()
    refcount_block: bool = flag()
    snapshot_table: bool = flag()
    inactive_l1: bool = flag()
    inactive_l2: bool = flag()
    bitmap_directory: bool = flag()


@dataclass(frozen=True, kw_only=True)
class Qcow2Options(NodeOptions):
    """`-blockdev driver=qcow2`. `overlap-check` is taken and always as strict as `cached`."""

    file: Any = child()
    backing: Any = child(optional=True)
    data_file: Any = child(optional=True)
    lazy_refcounts: bool | None = flag(None)
    pass_discard_request: bool | None = flag(None)
    pass_discard_snapshot: bool = flag(True)
    pass_discard_other: bool = flag(False)
    discard_no_unref: bool = flag(False)
    overlap_check: Any = anything(shape=[OverlapFlags, OVERLAP_CHECKS])
    cache_size: int | None = size(None)
    l2_cache_size: int | None = size(None)
    l2_cache_entry_size: int | None = size(None)
    refcount_cache_size: int | None = size(None)
    cache_clean_interval: int | None = number(None, 0, (1 << 32) - 1)


def check_options(options: Qcow2Options, header: Header) -> None:
    """ConfigError for what does not go with the image, or with each other."""
    if options.lazy_refcounts and header.version < 3:
        raise ConfigError("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level")
    if options.discard_no_unref and header.version < 3:
        raise ConfigError("discard-no-unref is only supported since qcow2 version 3")
    entry = options.l2_cache_entry_size
    if entry is not None and (entry < 512 or entry > header.cluster_size or entry & (entry - 1)):
        raise ConfigError(
            f"L2 cache entry size must be a power of two between 512 and the cluster size ({header.cluster_size})"
        )
    check = options.overlap_check
    if isinstance(check, Mapping):
        read_options(OverlapFlags, check, path="overlap-check.")
    elif check is not None and check not in OVERLAP_CHECKS:
        raise ConfigError(
            f"Unsupported value '{check}' for qcow2 option 'overlap-check'. "
            f"Allowed are any of the following: {', '.join(OVERLAP_CHECKS)}",
            "overlap-check",
        )
    limits(options)


def refuse_corrupt(header: Header, read_only: bool) -> None:
    """ConfigError when an image that contradicts itself is to be changed."""
    if header.incompatible & CORRUPT and not read_only:
        raise ConfigError("qcow2: Image is corrupt; cannot be opened read/write")


def limits(options: Qcow2Options) -> Limits:
    """How much memory tables may take."""
    total, l2, counts = options.cache_size, options.l2_cache_size, options.refcount_cache_size
    if total is None:
        return Limits(l2 or L2_CACHE_DEFAULT, counts or REFCOUNT_CACHE_DEFAULT)
    if l2 is not None and counts is not None:
        raise ConfigError("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
    for name, part in (("l2-cache-size", l2), ("refcount-cache-size", counts)):
        if part is not None and part > total:
            raise ConfigError(f"{name} may not exceed cache-size")
    if l2 is not None:
        return Limits(l2, total - l2)
    counts = counts if counts is not None else min(total // 8, REFCOUNT_CACHE_DEFAULT)
    return Limits(total - counts, counts)


def is_lazy(options: Qcow2Options, header: Header) -> bool:
    """Whether reference counts may stay in memory until the image is closed."""
    if header.version < 3:
        return False
    return bool(header.compatible & LAZY_REFCOUNTS) if options.lazy_refcounts is None else options.lazy_refcounts
