"""The driver `host_device`: a block device of the host, whole. Its size, zeroing and discards are the host's."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from typing import ClassVar

from aioemu.blockdev.file import UNSUPPORTED, FileOptions, HostFile
from aioemu.errors import ConfigError, HostError

BLKZEROOUT, BLKDISCARD = 0x127F, 0x1277  # linux/fs.h


class HostDeviceNode(HostFile[FileOptions]):
    """A block device."""

    driver = "host_device"
    options_type = FileOptions
    grows: ClassVar[bool] = False

    @property
    def filename(self) -> str:
        return self.options.filename.removeprefix("host_device:")

    def check_kind(self, status: os.stat_result) -> None:
        if not (stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
            raise ConfigError(
                "'host_device' driver requires '" + self.filename + "' to be either a character or block device",
                "filename",
            )

    def probe_size(self) -> int:
        return os.lseek(self.fd, 0, os.SEEK_END)

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if offset + len(data) > self.size:
            raise HostError(f"write {self.filename}", errno.ENOSPC)
        await super().write(offset, data)

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        self._check_writable()
        if not await self._range(BLKZEROOUT, offset, size):
            await super().write_zeroes(offset, size, unmap=unmap)

    async def discard(self, offset: int, size: int) -> None:
        if self.options.discard == "unmap" and not self.read_only:
            self._discarded(size, await self._range(BLKDISCARD, offset, size))

    async def resize(self, size: int) -> None:
        """The host resizes devices: here their new size is taken on."""
        found = await self._call(self.probe_size)
        if size > found:
            raise ConfigError(f"Cannot grow device files: {self.filename}")
        self._end = found
        self._set_size(found)

    async def allocated_bytes(self) -> int | None:
        return 0

    async def _range(self, request: int, offset: int, size: int) -> bool:
        """A request of the block layer for whole sectors; whether the device did it."""
        if offset % 512 or size % 512:
            return False
        try:
            await self._call(fcntl.ioctl, self.fd, request, struct.pack("QQ", offset, size))
        except HostError as exc:
            if exc.errno in UNSUPPORTED:
                return False
            raise
        return True
