"""Write cpio archives of the newc kind, as Linux takes them for an initramfs (kernel document initramfs-buffer-format).

The same entries give the same bytes: time stamps are zero, inode numbers count up, the owner is root. Data streams from
its source. Not written: hard links and checksums (070702). Names are not trusted: one that leaves the archive's root,
or that the kernel would refuse, is an error here and not a surprise at boot.
"""

from __future__ import annotations

import stat
from io import BytesIO
from typing import BinaryIO

from aioemu.errors import ConfigError

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
NAME_MAX = 4095  # PATH_MAX of Linux, without the NUL
SIZE_MAX = 0xFFFF_FFFF  # a field has eight hex digits
ENTRIES_MAX = 1_000_000  # far beyond any initramfs: stops a runaway producer
BLOCK = 512  # archives end on one, as cpio(1) makes them
CHUNK = 1 << 20


def check_name(name: str) -> str:
    """The name itself when it is a relative path that stays inside the archive; ConfigError otherwise."""
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts) or name == TRAILER:
        raise ConfigError(f"initramfs entry {name!r}: not a plain relative path")
    try:
        size = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as exc:
        raise ConfigError(f"initramfs entry {name!r}: not a name in UTF-8") from exc
    if size > NAME_MAX:
        raise ConfigError(f"initramfs entry {name[:40]!r}...: longer than {NAME_MAX} bytes")
    return name


class NewcWriter:
    """Entries in the order given, then `close`. Parents must come before what they hold, as the kernel unpacks."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.offset = 0
        self.entries = 0

    def directory(self, name: str, mode: int = 0o755) -> None:
        """A directory."""
        self._header(check_name(name), stat.S_IFDIR | stat.S_IMODE(mode), links=2)

    def symlink(self, name: str, target: str) -> None:
        """A symbolic link; the target may point anywhere."""
        data = target.encode("utf-8", "surrogateescape")
        if not 0 < len(data) <= NAME_MAX or b"\0" in data:
            raise ConfigError(f"initramfs link {name!r}: unusable target {target[:40]!r}")
        self._header(check_name(name), stat.S_IFLNK | 0o777, size=len(data))
        self._put(data)
        self._pad(4)

    def node(self, name: str, kind: int, major: int, minor: int, mode: int = 0o600) -> None:
        """A device node: (kind) is stat.S_IFCHR or stat.S_IFBLK."""
        if kind not in (stat.S_IFCHR, stat.S_IFBLK):
            raise ConfigError(f"initramfs node {name!r}: neither character nor block device")
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise ConfigError(f"initramfs node {name!r}: device numbers {major}:{minor} out of range")
        self._header(check_name(name), kind | stat.S_IMODE(mode), device=(major, minor))

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """A file with these bytes."""
        self.stream(name, BytesIO(data), len(data), mode)

    def stream(self, name: str, source: BinaryIO, size: int, mode: int = 0o644) -> None:
        """A file with exactly (size) bytes from (source); ConfigError when it holds fewer."""
        if not 0 <= size <= SIZE_MAX:
            raise ConfigError(f"initramfs file {name!r}: {size} bytes do not fit the format")
        self._header(check_name(name), stat.S_IFREG | stat.S_IMODE(mode), size=size)
        left = size
        while left:
            data = source.read(min(left, CHUNK))
            if not data:
                raise ConfigError(f"initramfs file {name!r}: {left} of {size} bytes missing")
            self._put(data)
            left -= len(data)
        self._pad(4)

    def close(self) -> None:
        """Write the trailer. The stream below stays open."""
        self._header(TRAILER, 0, inode=0)
        self._pad(BLOCK)

    def _header(
        self, name: str, mode: int, *, size: int = 0, links: int = 1, device: tuple[int, int] = (0, 0), inode: int = -1
    ) -> None:
        self.entries += 1
        if self.entries > ENTRIES_MAX:
            raise ConfigError(f"initramfs: more than {ENTRIES_MAX} entries")
        raw = name.encode("utf-8", "surrogateescape") + b"\0"
        fields = (self.entries if inode < 0 else inode, mode, 0, 0, links, 0, size, 0, 0, *device, len(raw), 0)
        self._put(MAGIC + b"".join(b"%08X" % field for field in fields) + raw)
        self._pad(4)

    def _put(self, data: bytes) -> None:
        self.out.write(data)
        self.offset += len(data)

    def _pad(self, unit: int) -> None:
        self._put(bytes(-self.offset % unit))
