"""What an L2 entry says about a guest cluster, and how far the same goes on: standard and extended entries.

Pure: one table in, a `Run` out. Entries are not trusted: one that points nowhere a cluster can be is INVALID.
"""

from __future__ import annotations

from array import array
from enum import Enum
from typing import Final, NamedTuple

from aioemu._core import ffi, lib
from aioemu.blockdev.qcow2.header import Header

COPIED: Final = 1 << 63
COMPRESSED_BIT: Final = 1 << 62
ZERO_BIT: Final = 1
OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
SUBCLUSTERS: Final = 32
ALL_ALLOCATED: Final = 0xFFFF_FFFF
ALL_ZERO: Final = 0xFFFF_FFFF << 32


class Kind(Enum):
    """Where a range of the guest's disk is found."""

    NONE = "unallocated"  # in the backing file, or zeros
    ZERO = "zero"
    DATA = "data"
    COMPRESSED = "compressed"
    INVALID = "invalid"


class Run(NamedTuple):
    """A stretch of the guest's disk that is found in one way.

    `host` is the host offset of its first byte for DATA, else the entry itself: a ZERO or NONE one may name a cluster
    that is not in use; a COMPRESSED run is within one cluster. `owned`: DATA is this disk's alone and may be written.
    """

    kind: Kind
    length: int
    host: int = 0
    owned: bool = False


def run_length(entries: array[int], at: int, end: int, step: int) -> int:
    """How many entries from (at) on, up to (end), each are (step) more than the one before."""
    return int(lib.core_run_length(ffi.from_buffer("uint64_t[]", entries), at, end, step))


class Layout:
    """How guest offsets fall into tables for one image."""

    def __init__(self, header: Header) -> None:
        self.bits = header.cluster_bits
        self.cluster = 1 << self.bits
        self.mask = self.cluster - 1
        self.extended = header.extended
        self.l2_bits = header.l2_bits
        self.l2_mask = (1 << self.l2_bits) - 1
        self.span_bits = self.bits + self.l2_bits  # of what one L2 table maps
        self.subcluster = self.cluster // SUBCLUSTERS if self.extended else self.cluster
        self.external = bool(header.incompatible & 4)
        self.zero_bit = header.version >= 3 and not self.extended
        self.zeroes = header.version >= 3  # whether a cluster can be marked as zero at all

    def index(self, offset: int) -> int:
        """The number, in its L2 table, of the guest cluster at (offset)."""
        return offset >> self.bits & self.l2_mask

    def classify(self, entry: int) -> Kind:
        """The kind of a whole cluster by its first word; for extended entries the bitmap decides within DATA."""
        if entry & COMPRESSED_BIT:
            return Kind.INVALID if self.external else Kind.COMPRESSED
        host = entry & OFFSET_MASK
        if host & self.mask:
            return Kind.INVALID
        if self.zero_bit and entry & ZERO_BIT:
            return Kind.ZERO
        if host or (self.external and entry & COPIED):
            return Kind.DATA
        return Kind.NONE

    def run(self, entries: array[int], offset: int, limit: int) -> Run:
        """What is at guest (offset), over at most (limit) bytes and to the end of this table."""
        index = self.index(offset)
        return (
            self._extended(entries, index, offset, limit)
            if self.extended
            else self._plain(entries, index, offset, limit)
        )

    def _plain(self, entries: array[int], index: int, offset: int, limit: int) -> Run:
        """Standard entries: one word for a cluster."""
        entry = entries[index]
        kind = self.classify(entry)
        inside = offset & self.mask
        end = min(index + (inside + limit + self.mask >> self.bits), len(entries))
        if kind is Kind.DATA:
            found = run_length(entries, index, end, self.cluster)
            length = min((found << self.bits) - inside, limit)
            return Run(kind, length, (entry & OFFSET_MASK) + inside, bool(entry & COPIED))
        placed = bool(entry & OFFSET_MASK)
        if kind is Kind.NONE or (kind is Kind.ZERO and not placed):
            at = index + run_length(entries, index, end, 0)
        else:
            at = index + 1
        if kind is Kind.ZERO and placed:  # preallocated ones apart from those that have no place
            while at < end and self.classify(entries[at]) is kind and entries[at] & OFFSET_MASK:
                at += 1
        return Run(kind, min((at - index << self.bits) - inside, limit), entry)

    def _extended(self, entries: array[int], index: int, offset: int, limit: int) -> Run:
        """Extended entries: within one cluster by its bitmap, whole clusters joined while they go on alike."""
        first = self._subclusters(entries, index, offset & self.mask, limit)
        total = first.length
        if first.kind in (Kind.COMPRESSED, Kind.INVALID):
            return first
        while total < limit and not (offset + total) & self.mask:
            index += 1
            if index > self.l2_mask:
                break
            more = self._subclusters(entries, index, 0, limit - total)
            if more.kind is not first.kind or more.owned != first.owned:
                break
            if first.kind is Kind.DATA and more.host != first.host + total:
                break
            if first.kind is not Kind.DATA and bool(more.host & OFFSET_MASK) != bool(first.host & OFFSET_MASK):
                break
            total += more.length
        return first._replace(length=total)

    def _subclusters(self, entries: array[int], index: int, inside: int, limit: int) -> Run:
        """What is at (inside) of one cluster with an extended entry, to the cluster's end at most."""
        entry, bitmap = entries[2 * index], entries[2 * index + 1]
        kind = self.classify(entry)
        room = min(self.cluster - inside, limit)
        if kind in (Kind.COMPRESSED, Kind.INVALID):
            return Run(kind, room, entry)
        first = inside // self.subcluster
        found = self.subcluster_kind(entry, bitmap, first)
        at = first + 1
        while at < SUBCLUSTERS and self.subcluster_kind(entry, bitmap, at) is found:
            at += 1
        length = min(at * self.subcluster - inside, room)
        owned = bool(entry & COPIED)
        return Run(found, length, (entry & OFFSET_MASK) + inside if found is Kind.DATA else entry, owned)

    def subcluster_kind(self, entry: int, bitmap: int, number: int) -> Kind:
        """The kind of one subcluster."""
        allocated, zero = bitmap >> number & 1, bitmap >> (number + SUBCLUSTERS) & 1
        if allocated:
            return Kind.DATA if not zero and self.classify(entry) is Kind.DATA else Kind.INVALID
        return Kind.ZERO if zero else Kind.NONE

    def compressed(self, entry: int) -> tuple[int, int]:
        """Host offset and length of a compressed cluster's bytes; the length goes to the end of its last sector."""
        shift = 62 - (self.bits - 8)
        offset = entry & (1 << shift) - 1 & (1 << 56) - 1
        sectors = (entry >> shift & (1 << self.bits - 8) - 1) + 1
        return offset, sectors * 512 - (offset & 511)
