"""Terminal modes: raw while a machine has the terminal, the user's own again whatever ends the process.

Restoring happens on close and at interpreter exit. For the ends that run no code (SIGKILL, a crash in the core) a
shell of a few hundred kilobytes waits on a pipe, and puts the modes back when the pipe breaks.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import termios
from typing import Any

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6


def make_raw(fd: int, signals: bool = False, output: bool = True) -> None:
    """Bytes pass as they are; `signals` keeps Ctrl-C for the terminal, `output` False keeps LF as CR LF."""
    mode = termios.tcgetattr(fd)
    mode[_IFLAG] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    if output:
        mode[_OFLAG] &= ~termios.OPOST
    else:
        mode[_OFLAG] |= termios.OPOST
    mode[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    mode[_LFLAG] = mode[_LFLAG] | termios.ISIG if signals else mode[_LFLAG] & ~termios.ISIG
    mode[_CFLAG] = (mode[_CFLAG] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    mode[_CC][termios.VMIN], mode[_CC][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)


class TerminalGuard:
    """Remembers a terminal's modes and gives them back once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved = termios.tcgetattr(fd)
        self._watcher = _start_watcher(os.ttyname(fd), self._saved)
        _GUARDS.add(self)

    def restore(self) -> None:
        """Put the modes back; a terminal that is gone is left alone."""
        if self not in _GUARDS:
            return
        _GUARDS.discard(self)
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
        if self._watcher is not None:
            with contextlib.suppress(OSError):  # the watcher may have been killed
                self._watcher.communicate(b"done\n")


def _start_watcher(terminal: str, mode: list[Any]) -> subprocess.Popen[bytes] | None:
    """The shell that restores `mode` unless it reads a line first; a session of its own keeps signals from it."""
    try:
        return subprocess.Popen(
            ["/bin/sh", "-c", 'read line || exec stty -F "$0" "$1"', terminal, stty_form(mode)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        return None  # a system without a shell: close and exit still restore


def stty_form(mode: list[Any]) -> str:
    """Modes as `stty -g` writes them: four words and the control characters, in hexadecimal."""
    words = mode[: _LFLAG + 1]
    characters = [char if isinstance(char, int) else char[0] for char in mode[_CC]]
    return ":".join(f"{word:x}" for word in (*words, *characters))


def restore_all() -> None:
    """Give every terminal back; for exits that run no other cleanup."""
    for guard in list(_GUARDS):
        guard.restore()


_GUARDS: set[TerminalGuard] = set()  # the process's terminals, which belong to no machine
atexit.register(restore_all)
