"""Guest RAM as files in memory: the accelerator, devices in C and Python all see the same bytes.

Python never holds a pointer into guest RAM: it reads and writes the file, or maps a piece of it for as long as the view
lives, so nothing dangles after the machine is gone. Not here: MMIO, dirty logging. Addresses come from guests: every
access outside RAM is a GuestError and changes nothing.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct

from aioemu._core import lib
from aioemu.errors import ConfigError, GuestError, HostError
from aioemu.memory.ranges import RamRange

PAGE_SIZE = 4096
HUGE_PAGE = 2 << 20  # of x86-64; a hint, nothing depends on it
MAX_RAM_BYTES = 1 << 46  # what 46 physical address bits reach; more than any host here has


class RamBackend(Struct, frozen=True):
    """How the memory is provided: `hugepage_bytes` 0 = ordinary pages; `path` = a file or a hugetlbfs folder."""

    prealloc: bool = False
    hugepage_bytes: int = 0
    path: str | None = None


DEFAULT_BACKEND = RamBackend()


def split_around_hole(size: int, low_limit: int, high_start: int = 1 << 32) -> list[RamRange]:
    """Lay `size` bytes from 0 up to `low_limit`, the rest from `high_start` on: PC memory around its PCI hole."""
    low = min(size, low_limit)
    ranges = [RamRange(0, low)]
    if size > low:
        ranges.append(RamRange(high_start, size - low))
    return ranges


class GuestMemory:
    """The RAM of one machine. Control thread only."""

    def __init__(self, machine: Any, ranges: Sequence[RamRange], backend: RamBackend = DEFAULT_BACKEND) -> None:
        self._machine = machine
        self._ranges = tuple(sorted(ranges))
        self._offsets = [sum(r.size for r in self._ranges[:i]) for i in range(len(self._ranges))]
        self.backend = backend
        self.size_bytes = sum(r.size for r in self._ranges)
        in_pages = all(r.size % PAGE_SIZE == 0 and r.start % PAGE_SIZE == 0 for r in self._ranges)
        if not 0 < self.size_bytes <= MAX_RAM_BYTES or not in_pages:
            reason = f"not a whole number of pages up to {MAX_RAM_BYTES}"
            raise ConfigError(f"memory of {self.size_bytes} bytes: {reason}", "-m")
        self._fd = _open_backing(self.size_bytes, backend)
        try:
            self._map_all()
        except BaseException:
            self.close()
            raise

    @property
    def ranges(self) -> Sequence[RamRange]:
        """Where RAM is, ascending."""
        return self._ranges

    @property
    def fd(self) -> int:
        """The file that holds it all, for back ends that map it themselves."""
        return self._fd

    def read(self, address: int, size: int) -> bytes:
        """Copy `size` bytes out."""
        offset = self._offset(address, size)
        if self.backend.hugepage_bytes:
            return bytes(self.view(address, size))
        data = os.pread(self._fd, size, offset)
        if len(data) != size:
            raise HostError(f"read guest memory at {address:#x}")
        return data

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Copy `data` in."""
        size = len(data)
        offset = self._offset(address, size)
        if self.backend.hugepage_bytes:
            self.view(address, size)[:] = data
        elif os.pwrite(self._fd, data, offset) != size:
            raise HostError(f"write guest memory at {address:#x}")
        lib.core_ram_written(self._machine, address, size)

    def view(self, address: int, size: int) -> memoryview:
        """Writable memory itself, within one range. Tell `written` what was changed through it."""
        offset = self._offset(address, size)
        grain = max(mmap.ALLOCATIONGRANULARITY, self.backend.hugepage_bytes)
        start = offset // grain * grain
        length = offset - start + max(size, 1)
        if self.backend.hugepage_bytes:
            length = -(-length // grain) * grain
        try:
            mapping = mmap.mmap(self._fd, length, offset=start)
            if size >= HUGE_PAGE and not self.backend.hugepage_bytes:
                _prefer_huge_pages(mapping)
        except OSError as exc:
            raise HostError(f"map guest memory at {address:#x}", exc.errno) from exc
        return memoryview(mapping)[offset - start : offset - start + size]

    def written(self, address: int, size: int) -> None:
        """Bytes were changed through a view: translated code from there is void."""
        lib.core_ram_written(self._machine, address, size)

    def close(self) -> None:
        """Let go of the file; the core unmaps its part with the machine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _offset(self, address: int, size: int) -> int:
        for each, offset in zip(self._ranges, self._offsets, strict=True):
            if size >= 0 and each.holds(address, size):
                return offset + address - each.start
        raise GuestError(f"{address:#x} and {size} bytes on: not guest memory")

    def _map_all(self) -> None:
        flags = int(lib.CORE_RAM_PREALLOC) if self.backend.prealloc else 0
        for each, offset in zip(self._ranges, self._offsets, strict=True):
            rc = lib.core_ram_add(self._machine, each.start, each.size, self._fd, offset, flags)
            if rc < 0:
                raise HostError(f"guest memory of {each.size >> 20} MiB at {each.start:#x}", -rc)


def _prefer_huge_pages(mapping: mmap.mmap) -> None:
    """What is written through this mapping shall come in huge pages, as what the guest touches."""
    with suppress(OSError):  # a kernel without them
        mapping.madvise(mmap.MADV_HUGEPAGE)


def _open_backing(size: int, backend: RamBackend) -> int:
    try:
        fd = _open_file(backend.path) if backend.path else _open_memfd(backend.hugepage_bytes)
    except OSError as exc:
        raise HostError(f"guest memory of {size >> 20} MiB", exc.errno) from exc
    try:
        os.ftruncate(fd, size)
    except OSError as exc:
        os.close(fd)
        raise HostError(f"guest memory of {size >> 20} MiB", exc.errno) from exc
    return fd


def _open_memfd(hugepage_bytes: int) -> int:
    if not hugepage_bytes:
        fd = int(lib.core_ram_file())
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd))
        return fd
    size_flag = (hugepage_bytes.bit_length() - 1) << os.MFD_HUGE_SHIFT
    return os.memfd_create("aioemu-ram", os.MFD_CLOEXEC | os.MFD_HUGETLB | size_flag)


def _open_file(path: str) -> int:
    if os.path.isdir(path):
        return os.open(path, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
