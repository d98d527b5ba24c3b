"""The last bytes of output in memory, for `ringbuf-read`.

What is not read in time is overwritten; there is no input.
"""

from __future__ import annotations

from aioemu.chardev.base import Chardev
from aioemu.config import RingbufOptions


class RingbufChardev(Chardev):
    """Keeps at most `size_bytes` of output until it is read or written to."""

    def __init__(self, options: RingbufOptions) -> None:
        super().__init__(options)
        self._size = options.size_bytes
        self._held = bytearray()

    @property
    def filename(self) -> str:
        return "ringbuf"

    def read(self, size: int) -> bytes:
        """Take the oldest bytes, at most `size`."""
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def inject(self, data: bytes) -> None:
        """Put bytes into the buffer from outside (`ringbuf-write`)."""
        self._held += data[-self._size :]
        del self._held[: max(0, len(self._held) - self._size)]

    def _send(self, data: bytes) -> int:
        self.inject(data)
        return len(data)
