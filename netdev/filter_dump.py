"""What passes a back end, written to a file as pcap (`-object filter-dump`).

Recorded natively with the host's time (`core/dump.c`); a thread of its own writes, so a slow disk delays nobody: what
its buffer has no room for is counted. Not here: pcapng and links (capture), other filters.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from aioemu._core import ffi, lib
from aioemu.errors import ConfigError, HostError
from aioemu.netdev.port import Port

DIRECTIONS = {"all": 3, "tx": 1, "rx": 2}  # as the back end sees it: what it sends, what it is given
SNAP_BYTES = 65536


class FilterDump:
    """Records one port from now on; `close` returns when the file is whole."""

    def __init__(self, port: Port, path: str, *, snap_bytes: int = SNAP_BYTES, queue: str = "all") -> None:
        if queue not in DIRECTIONS:
            raise ConfigError(f"Invalid parameter '{queue}' for queue (known: {', '.join(DIRECTIONS)})", "-object")
        port.check_open()
        self._port = port
        self._fd = _open(path)
        error = ffi.new("int *")
        self._ptr: Any = lib.core_dump_new(port.ptr, self._fd, snap_bytes, DIRECTIONS[queue], error)
        if self._ptr == ffi.NULL:
            os.close(self._fd)
            raise HostError(f"filter-dump: write {path}", -error[0])
        self._path = path
        self._on = True
        port.closers.append(self.close)

    @property
    def status(self) -> str:
        """ "on" or "off"."""
        return "on" if self._on else "off"

    @status.setter
    def status(self, value: str) -> None:
        if value not in ("on", "off"):
            raise ConfigError("Invalid value for filter status, should be 'on' or 'off'")
        self._on = value == "on"
        if self._ptr != ffi.NULL:
            lib.core_dump_set(self._ptr, self._on)

    @property
    def counts(self) -> tuple[int, int]:
        """Frames recorded, and lost because the file was too slow."""
        if self._ptr == ffi.NULL:
            return 0, 0
        counts = ffi.new("uint64_t[2]")
        lib.core_dump_counts(self._ptr, counts, counts + 1)
        return int(counts[0]), int(counts[1])

    def close(self) -> None:
        """Stop, and write what is left; may be called twice."""
        if self._ptr == ffi.NULL:
            return
        ptr, self._ptr = self._ptr, ffi.NULL
        with contextlib.suppress(ValueError):
            self._port.closers.remove(self.close)
        lib.core_dump_free(ptr, self._port.ptr != ffi.NULL)
        os.close(self._fd)


def _open(path: str) -> int:
    """A file or a pipe that somebody reads."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError as exc:
        raise HostError(f"filter-dump: open {path}", exc.errno) from exc
