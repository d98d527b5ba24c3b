"""File descriptors that clients or launchers passed: named ones (getfd), and sets of them (add-fd).

What opens a file of the host for the machine opens it here: `/dev/fdset/N` is a copy of the descriptor in set N that
was opened for the same kind of access. Whatever is here is owned here until it is taken, removed or closed.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aioemu.errors import MonitorError

FDSET_LIMIT = (1 << 31) - 1
FDSET_PREFIX = "/dev/fdset/"
LATER_FLAGS = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT  # what can still be said of an open file


@dataclass
class FdSet:
    """One set: descriptor to what its client calls it."""

    id: int
    fds: dict[int, str | None] = field(default_factory=dict)


class FdTable:
    """The descriptors of one machine."""

    def __init__(self) -> None:
        self._named: dict[str, int] = {}
        self.sets: dict[int, FdSet] = {}

    def keep(self, name: str, fd: int) -> None:
        """Own (fd) as (name); one of that name before it is closed."""
        if name[:1].isdigit():
            os.close(fd)
            raise MonitorError("Parameter 'fdname' expects a name not starting with a digit")
        if name in self._named:
            os.close(self._named[name])
        self._named[name] = fd

    def close_named(self, name: str) -> None:
        """Close the descriptor called (name)."""
        if name not in self._named:
            raise MonitorError(f"File descriptor named '{name}' not found")
        os.close(self.take(name))

    def take(self, name: str) -> int:
        """Hand out the descriptor called (name); the caller owns it now."""
        if name not in self._named:
            raise MonitorError(f"File descriptor named '{name}' has not been found")
        return self._named.pop(name)

    def add(self, fd: int, set_id: int | None, opaque: str | None) -> FdSet:
        """Put (fd) into the set (set_id), or into a new one."""
        if set_id is None:
            set_id = next(each for each in range(len(self.sets) + 1) if each not in self.sets)
        elif not 0 <= set_id <= FDSET_LIMIT:
            os.close(fd)
            raise MonitorError("Parameter 'fdset-id' expects a non-negative value")
        fd_set = self.sets.setdefault(set_id, FdSet(set_id))
        fd_set.fds[fd] = opaque
        return fd_set

    def adopt(self, values: Mapping[str, Any]) -> None:
        """`-add-fd`: a copy of a descriptor that the process was started with."""
        copy = fcntl.fcntl(int(values["fd"]), fcntl.F_DUPFD_CLOEXEC, 3)
        self.add(copy, int(values["set"]), values["opaque"])

    def remove(self, set_id: int, fd: int | None) -> None:
        """Close one descriptor of a set, or all; an empty set goes."""
        fd_set = self.sets.get(set_id)
        if fd_set is None or (fd is not None and fd not in fd_set.fds):
            name = f"fdset-id:{set_id}" if fd is None else f"fdset-id:{set_id}, fd:{fd}"
            raise MonitorError(f"File descriptor named '{name}' not found")
        for each in list(fd_set.fds) if fd is None else [fd]:
            del fd_set.fds[each]
            os.close(each)
        if not fd_set.fds:
            del self.sets[set_id]

    def number(self, name: str) -> int:
        """What `fd=` means: the number of a descriptor of the process, or the name of one that getfd kept."""
        return int(name) if name.isdecimal() else self.take(name)

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        """As os.open, and of `/dev/fdset/N` a copy of what is in that set. OSError as of a file."""
        if not path.startswith(FDSET_PREFIX):
            return os.open(path, flags | os.O_CLOEXEC, mode)
        fd_set = self.sets.get(int(number)) if (number := path.removeprefix(FDSET_PREFIX)).isdecimal() else None
        if fd_set is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        for fd in fd_set.fds:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == flags & os.O_ACCMODE:
                return _copy(fd, flags)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def close(self) -> None:
        """Close everything."""
        for fd in [*self._named.values(), *(fd for each in self.sets.values() for fd in each.fds)]:
            os.close(fd)
        self._named.clear()
        self.sets.clear()


def _copy(fd: int, flags: int) -> int:
    """Another descriptor of the same open file, which takes on the flags that it can."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        now = fcntl.fcntl(copy, fcntl.F_GETFL)
        if now & LATER_FLAGS != flags & LATER_FLAGS:
            fcntl.fcntl(copy, fcntl.F_SETFL, now & ~LATER_FLAGS | flags & LATER_FLAGS)
        if flags & os.O_TRUNC:
            os.ftruncate(copy, 0)
    except OSError:
        os.close(copy)
        raise
    return copy
