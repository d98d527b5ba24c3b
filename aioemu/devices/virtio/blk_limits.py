"""What the properties of a disk may be, alone and together, in QEMU's words. Not here: what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.devices.virtio.blk_properties import BlkProperties

SECTOR = 512
BLOCK_LIMIT = 2 << 20  # of logical and physical blocks
OWN_SEGMENTS = 2  # of a request: header and status
MAX_QUEUES = 1024
MAX_QUEUE_SIZE = 1024
MAX_SECTORS = ((1 << 31) - 1) >> 9  # of one request, in QEMU's block layer
AUTO_GRANULARITY = (1 << 32) - 1  # of discards: as large as a block


def check_limits(given: BlkProperties) -> None:
    """ConfigError for values that cannot be, or do not go together."""
    _check_queues(given)
    _check_blocks(given)
    _check_geometry(given)
    for name in ("max-discard-sectors", "max-write-zeroes-sectors"):
        value = getattr(given, name.replace("-", "_"))
        if not 1 <= value <= MAX_SECTORS:
            raise ConfigError(f"invalid {name} property ({value}), must be between 1 and {MAX_SECTORS}", "-device")


def _check_queues(given: BlkProperties) -> None:
    if given.num_queues == 0:
        raise ConfigError("num-queues property must be larger than 0", "-device")
    if given.num_queues is not None and given.num_queues > MAX_QUEUES:
        raise ConfigError(f"num-queues property must be at most {MAX_QUEUES}", "-device")
    size = given.queue_size
    if size <= OWN_SEGMENTS:
        raise ConfigError(f"invalid queue-size property ({size}), must be > {OWN_SEGMENTS}", "-device")
    if size > MAX_QUEUE_SIZE or size & (size - 1):
        raise ConfigError(
            f"invalid queue-size property ({size}), must be a power of 2 (max {MAX_QUEUE_SIZE})", "-device"
        )


def _check_geometry(given: BlkProperties) -> None:
    if not (given.cyls or given.heads or given.secs):
        return
    for name, most in (("cyls", 65535), ("heads", 255), ("secs", 255)):
        if not 1 <= getattr(given, name) <= most:
            raise ConfigError(f"{name} must be between 1 and {most}", "-device")


def _check_blocks(given: BlkProperties) -> None:
    for name in ("logical_block_size", "physical_block_size"):
        value = getattr(given, name)
        if not SECTOR <= value <= BLOCK_LIMIT or value & (value - 1):
            raise ConfigError(f"{name} must be a power of 2 between 512 and {BLOCK_LIMIT}: {value}", "-device")
    if given.logical_block_size > given.physical_block_size:
        raise ConfigError("logical_block_size > physical_block_size not supported", "-device")
    for name in ("min_io_size", "opt_io_size"):
        if getattr(given, name) % given.logical_block_size:
            raise ConfigError(f"{name} must be a multiple of logical_block_size", "-device")
    granularity = given.discard_granularity
    if granularity not in (None, AUTO_GRANULARITY) and granularity % given.logical_block_size:
        raise ConfigError("discard_granularity must be a multiple of logical_block_size", "-device")
    if given.min_io_size // given.logical_block_size > 0xFFFF:
        raise ConfigError("min_io_size must not exceed 65535 logical blocks", "-device")
