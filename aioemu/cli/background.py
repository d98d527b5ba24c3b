"""Leaving the foreground: daemonize, the pid file, telling others that the machine is set up.

The process forks before anything else exists (no loop, no threads). The parent waits: it exits with 0 when the machine
is set up and its monitors listen, with 1 when the child ends before that; the child's errors go to the same stderr.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys

from aioemu.config import ProcessOptions
from aioemu.errors import HostError

READY_TEXT = b"ready\n"
_READY = b"\0"


class Announcer:
    """Says once that the machine is set up, to the waiting parent and to --ready-fd."""

    def __init__(self, options: ProcessOptions, parent_fd: int = -1) -> None:
        self._parent_fd = parent_fd
        self._ready_fd = options.ready_fd

    def announce(self) -> None:
        """The machine is set up."""
        if self._ready_fd is not None:
            with contextlib.suppress(OSError):  # whoever waited has left
                os.write(self._ready_fd, READY_TEXT)
                os.close(self._ready_fd)
            self._ready_fd = None
        if self._parent_fd >= 0:
            self._detach()
            with contextlib.suppress(OSError):
                os.write(self._parent_fd, _READY)
            os.close(self._parent_fd)
            self._parent_fd = -1

    def _detach(self) -> None:
        """Let go of the folder and the streams that the parent gave us; a log file stays."""
        os.chdir("/")
        sys.stdout.flush()
        sys.stderr.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)


def go_to_background(options: ProcessOptions) -> Announcer:
    """Fork if -daemonize says so; only the child returns."""
    if not options.daemonize:
        return Announcer(options)
    read_fd, write_fd = os.pipe()
    if os.fork():
        os.close(write_fd)
        os._exit(0 if os.read(read_fd, 1) == _READY else 1)
    os.close(read_fd)
    os.setsid()
    if os.fork():
        os._exit(0)  # the child is no session leader: no terminal becomes its own
    os.umask(0o027)
    return Announcer(options, write_fd)


class PidFile:
    """The process id in a file that is locked as long as the process lives."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._fd = _open_locked(path)
        os.ftruncate(self._fd, 0)
        os.write(self._fd, b"%d\n" % os.getpid())

    def remove(self) -> None:
        """Take the file away if it is still ours."""
        with contextlib.suppress(OSError):
            if _is_at(self._fd, self._path):
                os.unlink(self._path)
        os.close(self._fd)


def _open_locked(path: str) -> int:
    """Open and lock; once more where the file was removed by its last owner in between."""
    while True:
        try:
            fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise HostError(f"cannot create PID file: {path}", exc.errno) from exc
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                return fd
        except OSError as exc:
            os.close(fd)
            raise HostError(f"cannot create PID file: lock {path}", exc.errno) from exc
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether `path` names the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
