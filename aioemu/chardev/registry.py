"""A machine's chardevs by id: made in order, opened, claimed by front ends, closed together.

One front end claims a chardev, several a muxed one. What nobody claims is open all the same, as its peers expect.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from aioemu.chardev.base import Chardev, OutputLog
from aioemu.chardev.files import FileOpener
from aioemu.chardev.mux import MuxChardev, MuxKeys, MuxPort
from aioemu.chardev.sockets import FdFinder, SocketChardev
from aioemu.chardev.table import create
from aioemu.config import ChardevOptions, FileOptions, HubOptions, SerialOptions, SocketOptions
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError


class ChardevInfo(NamedTuple):
    """One line of `query-chardev`."""

    label: str
    filename: str
    frontend_open: bool


class Chardevs:
    """The set. `keys` says what Ctrl-A x and s do, `find_fd` what fd=NAME means, `open_file` opens a path."""

    def __init__(
        self, keys: MuxKeys | None = None, find_fd: FdFinder | None = None, open_file: FileOpener | None = None
    ) -> None:
        self._keys = keys if keys is not None else MuxKeys()
        self._find_fd = find_fd
        self._open_file = open_file
        self._all: dict[str, Chardev] = {}
        self._claimed: dict[str, Chardev] = {}

    def __contains__(self, chardev_id: str) -> bool:
        return chardev_id in self._all

    def add(self, options: ChardevOptions) -> Chardev:
        """Make a chardev; `open` (its own, or `open_all`) starts it."""
        if options.id in self._all:
            raise ConfigError(f"Chardev with id '{options.id}' already exists")
        chardev = self._create(options)
        self._all[options.id] = chardev
        return chardev

    def _create(self, options: ChardevOptions) -> Chardev:
        if isinstance(options, HubOptions):
            return create(options, [self.claim(name) for name in options.chardevs])
        if isinstance(options, SocketOptions) and self._find_fd is not None:
            chardev = create(options, self._find_fd)
        elif isinstance(options, FileOptions | SerialOptions) and self._open_file is not None:
            chardev = create(options, self._open_file)
        else:
            chardev = create(options)
        if options.logfile is not None:
            chardev.log_to(OutputLog(options, self._open_file or os.open))
        return MuxChardev(chardev, self._keys) if options.mux else chardev

    async def open_all(self) -> None:
        """Start all of them in the order they were made; the first that fails ends it."""
        for chardev in list(self._all.values()):
            await chardev.open()

    def close(self) -> None:
        """Close all of them, the last made first: a hub goes before its members."""
        for chardev in reversed(list(self._all.values())):
            chardev.close()
        self._all.clear()
        self._claimed.clear()

    def get(self, chardev_id: str) -> Chardev:
        """The chardev itself, for looking at it (ringbuf-read, a pty's name)."""
        if chardev_id not in self._all:
            raise ConfigError(f"chardev '{chardev_id}' not found{did_you_mean(chardev_id, self._all)}")
        return self._all[chardev_id]

    def claim(self, chardev_id: str, focus: bool = True) -> Chardev:
        """The chardev for one front end's use; of a mux, a new port, which asks for the focus or not."""
        chardev = self.get(chardev_id)
        if isinstance(chardev, MuxChardev):
            return chardev.port(focus)
        if chardev_id in self._claimed:
            raise ConfigError(f"chardev '{chardev_id}' is in use")
        self._claimed[chardev_id] = chardev
        return chardev

    def release(self, chardev: Chardev) -> None:
        """A front end no longer uses what it claimed."""
        chardev.disconnect()
        if isinstance(chardev, MuxPort):
            chardev.close()
        else:
            self._claimed.pop(chardev.id, None)

    def remove(self, chardev_id: str) -> None:
        """Close and forget a chardev that nobody uses (chardev-remove)."""
        chardev = self.get(chardev_id)
        if chardev_id in self._claimed or (isinstance(chardev, MuxChardev) and chardev.ports):
            raise ConfigError(f"Chardev '{chardev_id}' is busy")
        if isinstance(chardev.options, HubOptions):
            for name in chardev.options.chardevs:
                self._claimed.pop(name, None)
        chardev.close()
        del self._all[chardev_id]

    def query(self) -> list[ChardevInfo]:
        """All of them, as `query-chardev` lists them."""
        return [ChardevInfo(name, chardev.filename, self._in_use(name)) for name, chardev in self._all.items()]

    def _in_use(self, chardev_id: str) -> bool:
        chardev = self._all[chardev_id]
        if isinstance(chardev, MuxChardev):
            return bool(chardev.ports)
        if isinstance(chardev, SocketChardev) and chardev.clients:
            return True
        return chardev_id in self._claimed
