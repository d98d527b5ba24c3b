"""A pseudo terminal as a chardev: whoever opens its name is the other side.

While nobody has it open, output is lost as on an unplugged line. The kernel reports the open by nothing but the end of
a hang-up condition, so that is looked for at intervals (as long as nobody is there, and only then).
"""

from __future__ import annotations

import asyncio
import os
import select

from aioemu.chardev.base import running_loop
from aioemu.chardev.descriptor import DescriptorChardev
from aioemu.chardev.terminal import make_raw
from aioemu.config import PtyOptions
from aioemu.errors import HostError

LOOK_INTERVAL_S = 0.1  # a person who opens a terminal does not see a tenth of a second


class PtyChardev(DescriptorChardev):
    """The master side; `name` is what others open."""

    def __init__(self, options: PtyOptions) -> None:
        super().__init__(options)
        self._link = os.path.abspath(options.path) if options.path else None
        self._master = -1
        self._look: asyncio.TimerHandle | None = None
        self.name = ""

    @property
    def filename(self) -> str:
        return f"pty:{self.name}"

    async def open(self) -> None:
        try:
            master, slave = os.openpty()
        except OSError as exc:
            raise HostError(f"chardev {self.id}: open a pseudo terminal", exc.errno) from exc
        self._master = self.own(master)
        self.name = os.ttyname(slave)
        make_raw(slave)
        os.close(slave)
        os.set_blocking(master, False)
        self._make_link()
        self._look_for_peer()

    def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._link is not None and self.name and _points_to(self._link, self.name):
            os.unlink(self._link)
        super().close()

    def write(self, data: bytes) -> int:
        if not self.is_open and self._master >= 0:
            self._look_for_peer()  # a peer that just came must not lose the first bytes
        return super().write(data)

    def input_ended(self, errno: int | None) -> None:
        """The last one who had it open closed it."""
        self.stop()
        self._reader = self._writer = None
        self._set_closed()
        self._look_later()

    def output_failed(self, exc: OSError) -> None:
        self.input_ended(exc.errno)

    def _look_later(self) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look = running_loop().call_later(LOOK_INTERVAL_S, self._look_for_peer)

    def _look_for_peer(self) -> None:
        poller = select.poll()
        poller.register(self._master, select.POLLHUP)
        if any(events & select.POLLHUP for _, events in poller.poll(0)):
            self._look_later()
            return
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self.start(self._master, self._master)

    def _make_link(self) -> None:
        if self._link is None:
            return
        try:
            os.symlink(self.name, self._link)
        except OSError as exc:
            raise HostError(f"chardev {self.id}: link {self._link}", exc.errno) from exc


def _points_to(link: str, name: str) -> bool:
    try:
        return os.readlink(link) == name
    except OSError:
        return False
