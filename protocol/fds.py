"""File descriptors that clients passed: named ones (getfd), and sets of them (add-fd) for opening /dev/fdset/N.

All monitors of a machine share them. Whatever is here is owned here until it is taken, removed or closed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from aioemu.errors import MonitorError

FDSET_LIMIT = (1 << 31) - 1


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
        os.close(self.take(name))

    def take(self, name: str) -> int:
        """Hand out the descriptor called (name); the caller owns it now."""
        if name not in self._named:
            raise MonitorError(f"File descriptor named '{name}' not found")
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

    def close(self) -> None:
        """Close everything."""
        for fd in [*self._named.values(), *(fd for each in self.sets.values() for fd in each.fds)]:
            os.close(fd)
        self._named.clear()
        self.sets.clear()
