"""Chardevs on names in the file system: nothing, a file, a pair of FIFOs, a host terminal device.

FIFOs are opened for both directions, so that opening never waits for a peer and a peer that leaves is not an error.
"""

from __future__ import annotations

import os
import stat
import termios
from collections.abc import Callable

from aioemu.chardev.base import Chardev
from aioemu.chardev.descriptor import DescriptorChardev
from aioemu.chardev.terminal import make_raw
from aioemu.config import FileOptions, NullOptions, PipeOptions, SerialOptions
from aioemu.errors import HostError

_FLAGS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


FileOpener = Callable[[str, int, int], int]  # path, flags, mode: as os.open


def open_path(chardev_id: str, path: str, flags: int, open_file: FileOpener = os.open) -> int:
    """Open without waiting; FIFOs for both ways."""
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            flags = os.O_RDWR
    except OSError:
        pass  # the open below creates it or says what is wrong
    try:
        return open_file(path, flags | _FLAGS, 0o666)
    except OSError as exc:
        raise HostError(f"chardev {chardev_id}: open {path}", exc.errno) from exc


class NullChardev(Chardev):
    """Output goes nowhere, input never comes."""

    def __init__(self, options: NullOptions) -> None:
        super().__init__(options)

    @property
    def filename(self) -> str:
        return "null"

    def _send(self, data: bytes) -> int:
        return len(data)


class FileChardev(DescriptorChardev):
    """Output to a file, input from another where given."""

    def __init__(self, options: FileOptions, open_file: FileOpener = os.open) -> None:
        super().__init__(options)
        self._file = options
        self._open_file = open_file

    @property
    def filename(self) -> str:
        return "file"

    async def open(self) -> None:
        options = self._file
        mode = os.O_APPEND if options.append else os.O_TRUNC
        out_fd = self.own(open_path(self.id, options.path, os.O_WRONLY | os.O_CREAT | mode, self._open_file))
        in_fd = None
        if options.input_path is not None:
            in_fd = self.own(open_path(self.id, options.input_path, os.O_RDONLY, self._open_file))
        self.start(in_fd, out_fd)


class PipeChardev(DescriptorChardev):
    """`path`.in and `path`.out where both exist, else `path`: for output if it is a FIFO, for both ways if not."""

    def __init__(self, options: PipeOptions) -> None:
        super().__init__(options)
        self._path = options.path

    @property
    def filename(self) -> str:
        return "pipe"

    async def open(self) -> None:
        self.start(*self._open_fifos())

    def _open_fifos(self) -> tuple[int | None, int]:
        incoming, outgoing = f"{self._path}.in", f"{self._path}.out"
        if os.path.exists(incoming) and os.path.exists(outgoing):
            in_fd = self.own(open_path(self.id, incoming, os.O_RDWR))
            return in_fd, self.own(open_path(self.id, outgoing, os.O_RDWR))
        both = self.own(open_path(self.id, self._path, os.O_RDWR))
        own_output = stat.S_ISFIFO(os.fstat(both).st_mode)  # reading a FIFO that we write brings our own words
        return None if own_output else both, both


class SerialChardev(DescriptorChardev):
    """A terminal device of the host, in raw mode while it is ours."""

    def __init__(self, options: SerialOptions, open_file: FileOpener = os.open) -> None:
        super().__init__(options)
        self._open_file = open_file
        self._path = options.path
        self._fd = -1

    @property
    def filename(self) -> str:
        return f"serial:{self._path}"

    async def open(self) -> None:
        self._fd = self.own(open_path(self.id, self._path, os.O_RDWR, self._open_file))
        try:
            make_raw(self._fd)
        except termios.error as exc:
            raise HostError(f"chardev {self.id}: {self._path} is not a terminal", exc.args[0]) from exc
        self.start(self._fd, self._fd)

    def send_break(self) -> None:
        """Hold the line low for a quarter second (the kernel's choice); the call waits that long."""
        if self._fd >= 0 and self.is_open:
            termios.tcsendbreak(self._fd, 1)
