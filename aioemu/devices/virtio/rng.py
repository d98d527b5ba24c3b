"""virtio-rng (Virtio 1.2, 5.4): the host's entropy for the guest, as much in a period as the user allows.

A request is answered with at most CHAIN_BYTES, however much room it has: drivers ask again. A reset does not refill the
budget. Not here: other sources than the host kernel's and files.
"""

from __future__ import annotations

import os
from typing import Protocol

from aioemu.bus.virtqueue import Chain, Queue
from aioemu.bus.wires import Timers
from aioemu.devices.virtio.device import RingProperties, VirtioDevice
from aioemu.errors import ConfigError, HostError

CHAIN_BYTES = 64 << 10  # of one answer: a chain may have room for 4 GiB
QUEUE_SIZE = 8
RETRY_NS = 20_000_000  # a file that has nothing now is asked again
KERNEL_FILES = ("/dev/random", "/dev/urandom")


class Entropy(Protocol):
    """Where the bytes come from."""

    def take(self, size: int) -> bytes:
        """Up to `size` bytes; none: later."""

    def close(self) -> None:
        """Let go of the source."""


class KernelEntropy:
    """getrandom: never blocks once the host has started."""

    def take(self, size: int) -> bytes:
        return os.urandom(size)

    def close(self) -> None:
        """Nothing is held."""


class FileEntropy:
    """A character device or a file of bytes; what it cannot give now is asked for later."""

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise HostError(f"open {path}", exc.errno) from exc

    def take(self, size: int) -> bytes:
        try:
            return os.read(self._fd, size)
        except OSError:
            return b""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def make_entropy(kind: str, filename: str | None) -> Entropy:
    """The source that an `-object` of this kind is."""
    if kind == "rng-builtin":
        return KernelEntropy()
    if kind == "rng-random":
        return KernelEntropy() if filename is None or filename in KERNEL_FILES else FileEntropy(filename)
    raise ConfigError(f"rng: an object of type {kind} is no source of entropy", "-device")


class VirtioRng(VirtioDevice):
    """The device: at most `max_bytes` in every `period_ms`."""

    device_id = 4

    def __init__(
        self,
        source: Entropy,
        timers: Timers,
        *,
        max_bytes: int | None = None,
        period_ms: int = 1 << 16,
        ring: RingProperties | None = None,
    ) -> None:
        super().__init__([QUEUE_SIZE], ring=ring)
        self.source = source
        self._timers = timers
        self._timer = timers.timer(self._serve)
        self._max, self._period_ns = max_bytes, period_ms * 1_000_000
        self._left, self._until_ns = 0, -1
        self._held: Chain | None = None  # waits for a source that has nothing now

    def kicked(self, queue: Queue) -> None:
        self._serve()

    def stopped(self) -> None:
        self._timer.cancel()
        self._held = None

    def queue_lost(self, queue: Queue) -> None:
        self._held = None

    def _serve(self) -> None:
        while (budget := self._budget()) > 0 and (chain := self._held or self.queues[0].pop()) is not None:
            size = min(chain.room, budget, CHAIN_BYTES)
            data = self.source.take(size) if size else b""
            self._held = chain if size and not data else None
            if self._held is not None:
                self._timer.arm(self._timers.now_ns() + RETRY_NS)
                return
            chain.write(data)
            chain.complete()
            self._left -= len(data)
        if budget <= 0 and self.running:
            self._timer.arm(self._until_ns)

    def _budget(self) -> int:
        """Bytes that may go out now; a new period begins with the first request after the last one's end."""
        if self._max is None:
            return CHAIN_BYTES
        now = self._timers.now_ns()
        if now >= self._until_ns:
            self._left, self._until_ns = self._max, now + self._period_ns
        return self._left
