"""An image file of the host, opened once and read piece by piece into bounded buffers or guest RAM.

Only regular files are taken: a pipe has no offsets, a device may block or never end. The size that the file system
tells is a hint: what counts is how many bytes a read gives. A decision rests on one copy of the bytes; what is read
again goes to the guest as data.
"""

from __future__ import annotations

import os
import stat
from types import TracebackType

from aioemu.boot.ram import GuestRam, RamRange
from aioemu.errors import ConfigError, HostError

OFFSET_MAX = 1 << 62  # beyond the end of any file, and what the host's calls take together with a size

_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


class ImageFile:
    """One file, held open: the file meant when the machine was made, whatever its name points to later."""

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        self.path = os.fspath(path)
        self.what = what
        try:
            self._refuse(os.stat(self.path))  # before it is opened: opening a device or a FIFO has effects
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as exc:
            raise HostError(f"open {what} {self.path}", exc.errno) from exc
        except ValueError as exc:
            raise ConfigError(f"{what} {self.path!r}: {exc}") from exc
        try:
            status = os.fstat(self._fd)
            self._refuse(status)
        except BaseException:
            self.close()
            raise
        self.size_hint = status.st_size

    def _refuse(self, status: os.stat_result) -> None:
        """Only a regular file has a size and offsets, and never blocks."""
        if not stat.S_ISREG(status.st_mode):
            kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
            raise self.error(f"is {kind}, a regular file is needed")

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset` on; less only where the file ends."""
        done = 0
        while done < len(view) and offset <= OFFSET_MAX:
            try:
                count = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as exc:
                raise HostError(f"read {self.what} {self.path}", exc.errno) from exc
            if count == 0:
                break
            done += count
        return done

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; the caller names the bound."""
        buffer = bytearray(size)
        count = self.read_into(offset, memoryview(buffer))
        return bytes(memoryview(buffer)[:count])

    def read_exact(self, offset: int, size: int, part: str) -> bytes:
        data = self.read(offset, size)
        if len(data) < size:
            raise self.truncated(part, offset, size, len(data))
        return data

    def error(self, reason: str) -> ConfigError:
        return ConfigError(f"{self.what} {self.path}: {reason}")

    def truncated(self, part: str, offset: int, size: int, got: int) -> ConfigError:
        return self.error(f"truncated: {part} needs {size} bytes at offset {offset:#x}, the file has {got} there")

    def load(self, offset: int, ram: GuestRam, place: RamRange, part: str) -> None:
        """Fill a place in guest RAM completely or say that the file is truncated."""
        if place.size:
            with ram.view(place.start, place.size) as view:
                count = self.read_into(offset, view)
            ram.written(place.start, place.size)
            if count < place.size:
                raise self.truncated(part, offset, place.size, count)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> ImageFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
