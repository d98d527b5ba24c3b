"""File descriptors that clients pass: named ones, and sets."""

from __future__ import annotations

from aioemu.protocol.machine import Machine
from aioemu.protocol.monitor import Caller
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class FdName(Record):
    """What the descriptor is called."""

    fdname: str


class AddFd(Record):
    """Which set to put it into, and a word for it."""

    fdset_id: int | None = None
    opaque: str | None = None


class AddfdInfo(Record):
    """Where it went."""

    fdset_id: int
    fd: int


class RemoveFd(Record):
    """Which one, or which set."""

    fdset_id: int
    fd: int | None = None


class FdsetFdInfo(Record):
    """A descriptor in a set."""

    fd: int
    opaque: str | None = None


class FdsetInfo(Record):
    """A set."""

    fdset_id: int
    fds: list[FdsetFdInfo]


@command("getfd")
def getfd(machine: Machine, args: FdName, monitor: Caller) -> None:
    """Keep the descriptor that came along under a name; one that had it is closed."""
    monitor.hub.fds.keep(args.fdname, monitor.take_fd())


@command("closefd")
def closefd(machine: Machine, args: FdName, monitor: Caller) -> None:
    """Close a named descriptor."""
    monitor.hub.fds.close_named(args.fdname)


@command("add-fd")
def add_fd(machine: Machine, args: AddFd, monitor: Caller) -> AddfdInfo:
    """Put the descriptor that came along into a set."""
    fd = monitor.take_fd()
    fd_set = monitor.hub.fds.add(fd, args.fdset_id, args.opaque)
    return AddfdInfo(fdset_id=fd_set.id, fd=fd)


@command("remove-fd")
def remove_fd(machine: Machine, args: RemoveFd, monitor: Caller) -> None:
    """Close one descriptor of a set, or all of them."""
    monitor.hub.fds.remove(args.fdset_id, args.fd)


@command("query-fdsets")
def query_fdsets(machine: Machine, monitor: Caller) -> list[FdsetInfo]:
    """List the sets."""
    return [
        FdsetInfo(fdset_id=each.id, fds=[FdsetFdInfo(fd=fd, opaque=opaque) for fd, opaque in each.fds.items()])
        for each in monitor.hub.fds.sets.values()
    ]


COMMANDS = (getfd, closefd, add_fd, remove_fd, query_fdsets)
