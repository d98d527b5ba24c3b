"""Locks on an image file that keep other programs' writers out: byte for byte those of QEMU and qemu-img.

A permission that is used holds a shared lock on byte 100 + its number, one that is not shared on byte 200 + its number;
whoever comes looks at the opposite bytes (QEMU, docs/devel and file-posix: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE).
Locks belong to the open file, so a second node on the same file in this process meets them too. Advisory: what does not
ask is not kept out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from aioemu.blockdev.permissions import NAMES, Permission
from aioemu.errors import ConfigError, Hint, HostError

USED_BASE, UNSHARED_BASE = 100, 200
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of Linux on 64-bit hosts
_NO_LOCKS = (errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class ImageLock:
    """What one open file holds."""

    def __init__(self, fd: int, filename: str) -> None:
        self._fd = fd
        self._filename = filename
        self._held: set[int] = set()

    def take(self, used: Permission, shared: Permission) -> None:
        """Hold what these permissions need, beside what is held, unless another program is in the way (ConfigError)."""
        for byte in _bytes(used, shared):
            if byte not in self._held:
                self._lock(byte)
        for bit, name in NAMES.items():
            if used & bit and self._is_held(UNSHARED_BASE + _number(bit)):
                self._refuse(f'Failed to get "{name}" lock')
        for bit, name in NAMES.items():
            if not shared & bit and self._is_held(USED_BASE + _number(bit)):
                self._refuse(f'Failed to get shared "{name}" lock')

    def settle(self, used: Permission, shared: Permission) -> None:
        """Let go of what these permissions do not need."""
        for byte in self._held - set(_bytes(used, shared)):
            with contextlib.suppress(OSError):  # somebody closed the file: its locks went with it
                self._set(self._fd, fcntl.F_UNLCK, byte)
            self._held.discard(byte)

    def move_to(self, fd: int) -> None:
        """Hold the same through another open file, which is about to take the place of this one."""
        for byte in self._held:
            self._set(fd, fcntl.F_RDLCK, byte)

    def _lock(self, byte: int) -> None:
        try:
            self._set(self._fd, fcntl.F_RDLCK, byte)
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                self._refuse(f"Failed to lock byte {byte}")
            raise HostError(f"Failed to lock byte {byte} of {self._filename}", exc.errno) from exc
        self._held.add(byte)

    def _set(self, fd: int, kind: int, byte: int) -> None:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))

    def _is_held(self, byte: int) -> bool:
        """Whether somebody else holds it."""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def _refuse(self, words: str) -> None:
        refusal = ConfigError(words)
        refusal.add_note(Hint(f"Is another process using the image [{self._filename}]?"))
        raise refusal


def can_lock(fd: int) -> bool:
    """Whether the host can lock this file so; some network file systems cannot."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as exc:
        if exc.errno in _NO_LOCKS:
            return False
        raise
    return True


def _bytes(used: Permission, shared: Permission) -> Iterator[int]:
    for bit in NAMES:
        if used & bit:
            yield USED_BASE + _number(bit)
        if not shared & bit:
            yield UNSHARED_BASE + _number(bit)


def _number(bit: Permission) -> int:
    return int(bit).bit_length() - 1
