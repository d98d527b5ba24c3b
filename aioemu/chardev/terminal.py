"""Terminal modes: raw while a machine has the terminal, the user's own again whatever ends the process.

Restoring happens on close, at interpreter exit and, through `restore_all`, in fatal signal handlers. SIGKILL alone
cannot be answered; the file descriptor's shared flags are never changed, so even then the shell keeps working.
"""

from __future__ import annotations

import atexit
import contextlib
import termios

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
        _GUARDS.add(self)

    def restore(self) -> None:
        """Put the modes back; a terminal that is gone is left alone."""
        if self in _GUARDS:
            _GUARDS.discard(self)
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)


def restore_all() -> None:
    """Give every terminal back; for exits that run no other cleanup."""
    for guard in list(_GUARDS):
        guard.restore()


_GUARDS: set[TerminalGuard] = set()  # the process's terminals, which belong to no machine
atexit.register(restore_all)
