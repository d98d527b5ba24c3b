"""The process's standard input and output as a chardev, with the terminal in raw mode where it is one.

The descriptors' flags are shared with the shell and the rest of a pipeline: instead of making those non-blocking,
the same files are opened anew. Where that is refused, a duplicate is used and its flags are put back at close.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from types import FrameType

from aioemu.chardev.descriptor import DescriptorChardev, can_poll
from aioemu.chardev.terminal import TerminalGuard, make_raw
from aioemu.config import StdioOptions
from aioemu.errors import ConfigError

STDIN, STDOUT = 0, 1


class StdioChardev(DescriptorChardev):
    """Standard input and output. One machine of a process may have them."""

    _taken_by: StdioChardev | None = None  # standard input and output exist once in a process

    def __init__(self, options: StdioOptions) -> None:
        super().__init__(options)
        self._signal = options.signal
        self._guard: TerminalGuard | None = None
        self._blocking: list[int] = []

    @property
    def filename(self) -> str:
        return "stdio"

    async def open(self) -> None:
        if StdioChardev._taken_by is not None:
            raise ConfigError(f"chardev {self.id}: stdio is already used by {StdioChardev._taken_by.id}")
        StdioChardev._taken_by = self
        if sys.stdout is not None:
            sys.stdout.flush()
        in_fd = self._nonblocking(STDIN, os.O_RDONLY)
        out_fd = self._nonblocking(STDOUT, os.O_WRONLY)
        self._take_terminal()
        self.start(in_fd, out_fd)

    def close(self) -> None:
        if StdioChardev._taken_by is self:
            StdioChardev._taken_by = None
        self.stop()
        if self._guard is not None:
            self._guard.restore()
            self._guard = None
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGCONT, signal.SIG_DFL)
        for fd in self._blocking:
            os.set_blocking(fd, True)
        self._blocking.clear()
        super().close()

    def _take_terminal(self) -> None:
        if not os.isatty(STDIN):
            return
        self._guard = TerminalGuard(STDIN)
        self._set_raw()
        with contextlib.suppress(ValueError):  # not the main thread: the program sees to its signals
            signal.signal(signal.SIGCONT, self._continued)  # a shell that stopped us put its own modes back

    def _set_raw(self) -> None:
        make_raw(STDIN, signals=self._signal, output=False)

    def _continued(self, _number: int, _frame: FrameType | None) -> None:
        self._set_raw()

    def _nonblocking(self, fd: int, flags: int) -> int | None:
        """A descriptor for the same file that never blocks; None where `fd` is closed."""
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            return None
        if not can_poll(fd):
            return fd  # a regular file: position and append mode are the shared description's
        if not stat.S_ISSOCK(mode):
            try:
                return self.own(os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
            except OSError:
                pass  # another user's terminal (su, sudo)
        copy = self.own(os.dup(fd))
        if os.get_blocking(copy):
            os.set_blocking(copy, False)
            self._blocking.append(copy)
        return copy
