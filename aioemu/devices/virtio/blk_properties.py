"""`-device virtio-blk-*`: what may be set, by QEMU's names and defaults, and how the device is put together from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from aioemu.devices.properties import prop
from aioemu.devices.virtio.blk_limits import MAX_QUEUES, MAX_SECTORS
from aioemu.devices.virtio.device import RingProperties
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.blockdev.backend import Backend
    from aioemu.devices.virtio.blk import VirtioBlk

POLICIES = ("auto", "report", "ignore", "enospc", "stop")


@dataclass(frozen=True, slots=True)
class BlkProperties(RingProperties):
    """Of the device; what belongs to the disk is said of the drive or node."""

    drive: str | None = prop(None, "str", "Node name or ID of a block device to use as a backend")
    iothread: str | None = prop(None, "link<iothread>", "an iothread that serves it; without one, the main loop does")
    num_queues: int | None = prop(None, "uint16", "queues; by default one for each vCPU")
    queue_size: int = prop(256, "uint16", "places of a queue: a power of two")
    seg_max_adjust: bool = prop(True, "bool", "as many segments in a request as a queue has room for")
    request_merging: bool = prop(True, "bool", "accepted; the host's page cache and io_uring merge")
    serial: str | None = prop(None, "str", "what the guest reads as its serial number, 20 bytes")
    bootindex: int = prop(-1, "int32", "kept and told; there is no firmware that would boot from it", least=-1)
    share_rw: bool = prop(False, "bool", "others may write to the disk as well")
    write_cache: str = prop("auto", "OnOffAuto", "on, off or auto: as the drive says")
    config_wce: bool = prop(True, "bool", "the guest may switch the write cache")
    rerror: str = prop("auto", "BlockdevOnError", "on errors in reading; auto: as the drive says")
    werror: str = prop("auto", "BlockdevOnError", "on errors in writing; the same")
    discard: bool = prop(True, "bool", "offer discard")
    write_zeroes: bool = prop(True, "bool", "offer write zeroes")
    max_discard_sectors: int = prop(MAX_SECTORS, "uint32", "of one discard")
    max_write_zeroes_sectors: int = prop(MAX_SECTORS, "uint32", "of one write zeroes")
    logical_block_size: int = prop(512, "size", "A power of two between 512 B and 2 MiB")
    physical_block_size: int = prop(512, "size", "A power of two between 512 B and 2 MiB")
    min_io_size: int = prop(0, "size", "what writes had best be multiples of")
    opt_io_size: int = prop(0, "size", "what writes are fastest with", most=0xFFFFFFFF)
    discard_granularity: int | None = prop(None, "size", "what discards are aligned to", most=0xFFFFFFFF)
    report_discard_granularity: bool = prop(True, "bool", "tell it as the alignment of discards; off: a block")
    cyls: int = prop(0, "uint32", "of the geometry")
    heads: int = prop(0, "uint32", "of the geometry")
    secs: int = prop(0, "uint32", "of the geometry")


class DiskSite(Protocol):
    """What a disk asks of its site."""

    @property
    def vcpu_count(self) -> int: ...

    def claim_disk(self, drive: str, name: str, *, share_rw: bool) -> Backend:
        """The backend, for this device alone until it goes. ConfigError."""

    def io_context(self, iothread: str | None, name: str) -> Any:
        """Where native parts of a device are served: an iothread, or the loop. ConfigError."""

    def watch_disk(self, name: str, disk: VirtioBlk) -> None:
        """It waits while the machine does; its errors become events and stop the machine by its policy."""


def make_blk(site: DiskSite, name: str, given: BlkProperties) -> VirtioBlk:
    """The disk of `drive=`, which must be given."""
    from aioemu.devices.virtio.blk import VirtioBlk
    from aioemu.devices.virtio.blk_limits import AUTO_GRANULARITY, check_limits

    if given.drive is None:
        raise ConfigError("drive property not set", "-device")
    check_limits(given)
    granularity = given.discard_granularity if given.discard_granularity != AUTO_GRANULARITY else None
    backend = site.claim_disk(given.drive, name, share_rw=given.share_rw)
    settled = replace(
        given,
        discard_granularity=granularity,
        rerror=backend.rerror if given.rerror == "auto" else given.rerror,
        werror=backend.werror if given.werror == "auto" else given.werror,
    )
    io = site.io_context(given.iothread, name)
    disk = VirtioBlk(backend, io, settled, given.num_queues or min(site.vcpu_count, MAX_QUEUES))
    site.watch_disk(name, disk)
    return disk
