"""virtio-blk (Virtio 1.2, 5.2): a disk. Requests are run natively (`core/blk*.c`), in the reactor or an iothread.

Here are what the driver may know and set: size, geometry, limits, the write cache. A resize reaches the driver as a
configuration change. Left out: zones, lifetime and secure erase. A driver that can neither flush nor set the cache gets
writes that are on the disk when they are done.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from aioemu.blockdev.engine import DiskShape, Engine
from aioemu.bus.state import Field, Flag
from aioemu.devices.virtio.blk_limits import OWN_SEGMENTS, SECTOR, check_limits
from aioemu.devices.virtio.blk_properties import BlkProperties
from aioemu.devices.virtio.device import VirtioDevice

if TYPE_CHECKING:
    from aioemu.blockdev.backend import Backend

SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH = 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 9
TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES = 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14
CONFIG = struct.Struct("<QIIHBBIBBHIBxHIIIIIB3x")  # struct virtio_blk_config as far as write_zeroes_may_unmap
CAPACITY_AT, WCE_AT = 0, 32
HEADS, TRACK = 16, 63  # of a geometry that nobody asked for
CYLINDERS = (2, 16383)


class VirtioBlk(VirtioDevice):
    """The device over a backend, served in the I/O context `io`."""

    device_id = 2
    pci_class = 0x010000
    state: ClassVar[Mapping[str, Field]] = {"writeback": Flag()}

    def __init__(self, backend: Backend, io: Any, given: BlkProperties, queues: int) -> None:
        check_limits(given)
        self.given = given
        self.backend = backend
        self.writeback = self._offered_cache = self._cache(backend, given)
        super().__init__(
            [given.queue_size] * queues,
            features=self._features(given, self.writeback, backend.read_only, queues),
            config=self._describe(given, queues),
            ring=given,
        )
        self.engine = Engine(self.chip, io, backend, self._shape(given))
        backend.on_resized = self._resized

    # ---- for the driver ----------------------------------------------------------------------------------------------

    def bell(self, index: int) -> int:
        return self.engine.bell(index)

    def started(self) -> None:
        self._settle_cache()
        self.engine.start()

    def stopped(self) -> None:
        self.engine.stop()
        self.writeback = self._offered_cache

    def queue_off(self, index: int, reset: bool) -> None:
        self.engine.queue_off(index, reset)

    def config_written(self, offset: int, data: bytes) -> None:
        """Only the write cache may be set."""
        if offset <= WCE_AT < offset + len(data) and self.features & CONFIG_WCE:
            self.writeback = bool(data[WCE_AT - offset] & 1)
            self.set_config(WCE_AT, bytes([self.writeback]), tell=False)
            self._settle_cache()

    def close(self) -> None:
        super().close()
        self.engine.close()

    def loaded(self) -> None:
        self.set_config(CAPACITY_AT, struct.pack("<Q", self.backend.size // SECTOR), tell=False)

    def _settle_cache(self) -> None:
        can_flush = self.features & (FLUSH | CONFIG_WCE)
        self.engine.set_writethrough(not (self.writeback and can_flush))

    def _resized(self, size: int) -> None:
        self.engine.refresh()
        capacity = struct.pack("<Q", size // SECTOR)
        self.power_on_config = capacity + self.power_on_config[len(capacity) :]
        self.set_config(CAPACITY_AT, capacity)

    # ---- what it says of itself --------------------------------------------------------------------------------------

    @staticmethod
    def _cache(backend: Backend, given: BlkProperties) -> bool:
        return backend.writeback if given.write_cache == "auto" else given.write_cache == "on"

    @staticmethod
    def _shape(given: BlkProperties) -> DiskShape:
        return DiskShape(
            block_size=given.logical_block_size,
            max_discard=given.max_discard_sectors if given.discard else 0,
            max_zeroes=given.max_write_zeroes_sectors if given.write_zeroes else 0,
            serial=(given.serial or "").encode(),
            rerror=given.rerror,
            werror=given.werror,
        )

    @staticmethod
    def _features(given: BlkProperties, writeback: bool, read_only: bool, queues: int) -> int:
        bits = SEG_MAX | GEOMETRY | BLK_SIZE | TOPOLOGY
        for wanted, feature in (
            (writeback or given.config_wce, FLUSH),  # else every write is on the disk when it is done
            (read_only, RO),
            (given.config_wce, CONFIG_WCE),
            (queues > 1, MQ),
            (given.discard, DISCARD),
            (given.write_zeroes, WRITE_ZEROES),
        ):
            bits |= feature if wanted else 0
        return bits

    def _describe(self, given: BlkProperties, queues: int) -> bytes:
        sectors = self.backend.size // SECTOR
        block = given.logical_block_size
        cylinders, heads, track = geometry(given, sectors)
        known = given.discard_granularity if given.report_discard_granularity else None
        align = known if known is not None else block
        return CONFIG.pack(
            sectors,
            0,  # size_max: not offered
            (given.queue_size if given.seg_max_adjust else 128) - OWN_SEGMENTS,
            cylinders,
            heads,
            track,
            block,
            (given.physical_block_size // block).bit_length() - 1,
            0,  # alignment_offset
            given.min_io_size // block,
            given.opt_io_size // block,
            self.writeback,
            queues,
            given.max_discard_sectors if given.discard else 0,
            1 if given.discard else 0,
            align // SECTOR if given.discard else 0,
            given.max_write_zeroes_sectors if given.write_zeroes else 0,
            1 if given.write_zeroes else 0,
            1 if given.write_zeroes else 0,  # write_zeroes_may_unmap
        )


def geometry(given: BlkProperties, sectors: int) -> tuple[int, int, int]:
    """Cylinders, heads, sectors of a track: as given, or such as fit the size."""
    if given.cyls or given.heads or given.secs:
        return given.cyls, given.heads, given.secs
    low, high = CYLINDERS
    return max(low, min(high, sectors // (HEADS * TRACK))), HEADS, TRACK
