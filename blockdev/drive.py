"""`-drive` as a description: which disk, how it is cached, where it goes. Everything it does not know is the node's.

Keys, aliases and words are those of QEMU's `-drive`; nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aioemu.blockdev.backend import POLICIES, ErrorPolicy
from aioemu.blockdev.legacy import flat
from aioemu.config.grammar import Options, did_you_mean
from aioemu.config.keyval import unflatten

CACHE_MODES = {  # writeback, direct, no-flush
    "writethrough": (False, False, False),
    "writeback": (True, False, False),
    "none": (True, True, False),
    "off": (True, True, False),
    "directsync": (False, True, False),
    "unsafe": (True, False, True),
}
INTERFACES = ("none", "virtio", "ide", "scsi", "floppy", "pflash", "mtd", "sd", "xen")
THROTTLE_KEYS = {  # old names
    "iops": "iops-total",
    "iops_rd": "iops-read",
    "iops_wr": "iops-write",
    "bps": "bps-total",
    "bps_rd": "bps-read",
    "bps_wr": "bps-write",
    "iops_max": "iops-total-max",
    "iops_rd_max": "iops-read-max",
    "iops_wr_max": "iops-write-max",
    "bps_max": "bps-total-max",
    "bps_rd_max": "bps-read-max",
    "bps_wr_max": "bps-write-max",
    "iops_size": "iops-size",
    "group": "group",
}


@dataclass(frozen=True)
class Place:
    """Where a drive is among those of its interface; `unit` None: the first free one."""

    bus: int = 0
    unit: int | None = None
    index: int = -1  # as it was given


@dataclass(frozen=True, kw_only=True)
class Drive:
    """One `-drive`."""

    id: str | None = None
    interface: str = "virtio"  # what boards here have; QEMU's have IDE
    place: Place = Place()
    media: str = "disk"
    file: str | None = None
    writeback: bool = True
    rerror: ErrorPolicy = "report"
    werror: ErrorPolicy = "enospc"
    snapshot: bool | None = None  # what is written goes to a temporary image; None: as -snapshot says
    copy_on_read: bool = False
    throttle_group: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)  # throttling.*, without group
    node: Mapping[str, Any] = field(default_factory=dict)  # options of the node on top


def read_drive(drive_id: str | None, values: Mapping[str, Any]) -> Drive:
    """One `-drive` out of its keys, nested or with dots."""
    opts = Options("-drive", flat(values))
    interface = opts.text("if") or "virtio"
    if interface not in INTERFACES:
        opts.fail(f"unsupported bus type '{interface}'{did_you_mean(interface, INTERFACES)}")
    media = opts.text("media") or "disk"
    if media not in ("disk", "cdrom"):
        opts.fail(f"'{media}' invalid media")
    read_only = opts.flag("read-only", opts.flag("readonly", media == "cdrom"))
    place = _place(opts)
    node: dict[str, Any] = {"read-only": read_only, "auto-read-only": opts.flag("auto-read-only", True)}
    node["cache"], writeback = _cache(opts)
    _node_words(opts, node)
    limits, group = _throttling(opts)
    return Drive(
        id=drive_id,
        interface=interface,
        place=place,
        media=media,
        file=opts.text("file") or None,
        writeback=writeback,
        rerror=_policy(opts, "rerror", "report"),
        werror=_policy(opts, "werror", "enospc"),
        snapshot=opts.maybe_flag("snapshot"),
        copy_on_read=opts.flag("copy-on-read", False),
        throttle_group=group,
        limits=limits,
        node={**_driver(opts), **node, **unflatten("-drive", opts.rest().items())},
    )


def _place(opts: Options) -> Place:
    index = opts.number("index", -1, low=-1)
    bus, unit = opts.number("bus", 0), opts.number("unit", -1, low=-1)
    if index >= 0 and (bus or unit >= 0):
        opts.fail("index cannot be used with bus and unit")
    return Place(bus, index if index >= 0 else unit if unit >= 0 else None, index)


def _cache(opts: Options) -> tuple[dict[str, bool], bool]:
    """The mode of the host's cache, and whether the guest sees a write cache."""
    mode = opts.text("cache")
    if mode is not None and mode not in CACHE_MODES:
        opts.fail("invalid cache option")
    writeback, direct, no_flush = CACHE_MODES[mode or "writeback"]
    direct = opts.flag("cache.direct", direct)
    no_flush = opts.flag("cache.no-flush", no_flush)
    return {"direct": direct, "no-flush": no_flush}, opts.flag("cache.writeback", writeback)


def _node_words(opts: Options, node: dict[str, Any]) -> None:
    """discard=, detect-zeroes=, aio=, node-name=."""
    discard = opts.text("discard")
    if discard is not None:
        if discard not in ("ignore", "off", "unmap", "on"):
            opts.fail("Invalid discard option")
        node["discard"] = "unmap" if discard in ("unmap", "on") else "ignore"
    aio = opts.text("aio")
    if aio is not None:
        if aio not in ("threads", "native", "io_uring"):
            opts.fail("invalid aio option")
        node["aio"] = aio


def _policy(opts: Options, key: str, default: ErrorPolicy) -> ErrorPolicy:
    word = opts.text(key)
    known = [policy for policy in POLICIES if policy != "enospc" or key == "werror"]
    if word in known:
        return word  # type: ignore[return-value]  # one of them
    if word is not None:
        kind = "write" if key == "werror" else "read"
        opts.fail(f"'{word}' invalid {kind} error action{did_you_mean(word, known)}")
    return default


def _throttling(opts: Options) -> tuple[dict[str, Any], str | None]:
    """The limits by their names without the prefix, and the group."""
    limits: dict[str, Any] = {}
    for old, new in THROTTLE_KEYS.items():
        for key in (old, f"throttling.{new}"):
            if (value := opts.value(key)) is not None:
                limits[new] = value
        length = f"throttling.{new}-length"
        if new.endswith("-max") and (value := opts.value(length)) is not None:
            limits[f"{new}-length"] = value
    group = limits.pop("group", None)
    return limits, str(group) if group is not None else None


def _driver(opts: Options) -> dict[str, Any]:
    """`format=` is an older name of `driver=`."""
    given, driver = opts.text("format"), opts.text("driver")
    if given is not None and driver is not None:
        opts.fail("Cannot specify both 'driver' and 'format'")
    name = given or driver
    return {} if name is None else {"driver": name}
