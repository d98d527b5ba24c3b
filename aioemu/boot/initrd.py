"""Puts the initial RAM disk as high as the kernel allows: below its address limit, in one range of RAM, page aligned.

The file's size is learned from the file system, then proved: a file that ends earlier or goes on is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from aioemu.boot import lowmem
from aioemu.boot.image import ImageFile
from aioemu.boot.ram import GuestRam, RamRange, runs_of

ADDRESS_MAX = 0xFFFFFFFF  # within the identity map, and within 32-bit fields of every protocol


def load_initrd(ram: GuestRam, image: ImageFile, taken: Sequence[RamRange], address_max: int) -> RamRange:
    """Read the initrd into RAM clear of `taken`; its last byte is at most at `address_max`."""
    size = image.size_hint
    if size == 0:
        raise image.error("is empty")
    place = place_high(ram.ranges, taken, size, min(address_max, ADDRESS_MAX))
    if place is None:
        where = f"below {address_max + 1:#x} and beside the kernel, RAM is {runs_of(ram)}"
        raise image.error(f"does not fit: {size} bytes are needed {where}")
    image.load(0, ram, place, "the initrd")
    if image.read(size, 1):
        raise image.error(f"has more than the {size} bytes that it had when it was opened")
    return place


def place_high(ranges: Sequence[RamRange], taken: Sequence[RamRange], size: int, address_max: int) -> RamRange | None:
    """The highest page-aligned place for `size` bytes, or None."""
    blocks = [RamRange(0, lowmem.LOAD_MIN), *taken]
    for run in sorted(ranges, reverse=True):
        end = min(run.end, address_max + 1)
        while (start := (end - size) & -lowmem.PAGE) >= run.start and start >= 0:
            place = RamRange(start, size)
            block = next((b for b in blocks if b.overlaps(place)), None)
            if block is None:
                return place
            end = block.start
    return None
