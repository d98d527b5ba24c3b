"""Makes a file for an image, at once or with its space taken. A file that a running guest has is locked, and stays."""

from __future__ import annotations

import os
from dataclasses import dataclass

from aioemu.blockdev.imagelock import ImageLock, can_lock
from aioemu.blockdev.options import choice, size, text
from aioemu.blockdev.permissions import Permission
from aioemu.errors import HostError

ZEROES = bytes(1 << 20)  # written at a time where the host cannot zero a range itself


@dataclass(frozen=True, kw_only=True)
class FileCreateOptions:
    """`blockdev-create` of a file."""

    filename: str = text()
    size: int = size()
    preallocation: str = choice(("off", "falloc", "full"), "off")


def create_file(given: FileCreateOptions) -> None:
    """Make it, or empty it. Blocks."""
    filename = given.filename.removeprefix("file:")
    try:
        fd = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if can_lock(fd):
                used = Permission.WRITE | Permission.RESIZE
                ImageLock(fd, filename).take(used, Permission.ALL & ~Permission.RESIZE)
            os.ftruncate(fd, 0)
            os.ftruncate(fd, given.size)
            if given.preallocation == "falloc":
                os.posix_fallocate(fd, 0, given.size)
            elif given.preallocation == "full":
                for at in range(0, given.size, len(ZEROES)):
                    os.pwrite(fd, memoryview(ZEROES)[: given.size - at], at)
                os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise HostError(f"Could not create '{filename}'", exc.errno) from exc
