"""Chardevs over file descriptors: readiness from the loop, back-pressure both ways, no buffer of their own.

Files that cannot be polled (regular files, /dev/null) are always ready; they are read in slices so that the loop
keeps turning. The descriptors may be shared with other processes: their flags are not touched here.
"""

from __future__ import annotations

import asyncio
import os
import select

from aioemu.chardev.base import READ_CHUNK_BYTES, Chardev, Event, log, running_loop
from aioemu.config import ChardevOptions


def can_poll(fd: int) -> bool:
    """Whether readiness of `fd` can be waited for."""
    with select.epoll() as poller:
        try:
            poller.register(fd, 0)
        except PermissionError:
            return False
    return True


class Reader:
    """Reads one descriptor into a chardev's front end while there is room."""

    def __init__(self, chardev: DescriptorChardev, fd: int) -> None:
        self.fd = fd
        self._chardev = chardev
        self._loop = running_loop()
        self._pollable = can_poll(fd)
        self._active = False
        self._next: asyncio.Handle | None = None

    def resume(self) -> None:
        """Read again."""
        if self._active:
            return
        self._active = True
        if self._pollable:
            self._loop.add_reader(self.fd, self._ready)
        else:
            self._next = self._loop.call_soon(self._slice)

    def pause(self) -> None:
        """Stop reading; what comes stays with the host."""
        if not self._active:
            return
        self._active = False
        if self._pollable:
            self._loop.remove_reader(self.fd)
        elif self._next is not None:
            self._next.cancel()

    def _slice(self) -> None:
        self._ready()
        if self._active:
            self._next = self._loop.call_soon(self._slice)

    def _ready(self) -> None:
        room = min(self._chardev.room(), READ_CHUNK_BYTES)
        if room <= 0:
            self.pause()  # accept_input resumes
            return
        try:
            data = os.read(self.fd, room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self.pause()
            self._chardev.input_ended(exc.errno)
            return
        if data:
            self._chardev.input(data)
        else:
            self.pause()
            self._chardev.input_ended(None)


class Writer:
    """Writes to one descriptor as far as it takes; a file that cannot be polled takes everything."""

    def __init__(self, chardev: DescriptorChardev, fd: int) -> None:
        self.fd = fd
        self._chardev = chardev
        self._loop = running_loop()
        self._pollable = can_poll(fd)
        self._waiting = False
        self.failed = False

    def write(self, data: bytes) -> int:
        """Write what fits now; 0 or less than all means `output_ready` follows."""
        if self.failed:
            return len(data)
        try:
            done = os.write(self.fd, data)
            while not self._pollable and done < len(data):
                done += os.write(self.fd, data[done:])
        except (BlockingIOError, InterruptedError):
            done = 0
        except OSError as exc:
            self._fail(exc)
            return len(data)
        if done < len(data) and not self._waiting:
            self._waiting = True
            self._loop.add_writer(self.fd, self._ready)
        return done

    def stop(self) -> None:
        """Forget about waiting."""
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self.fd)

    def _ready(self) -> None:
        self.stop()
        self._chardev.output_ready()

    def _fail(self, exc: OSError) -> None:
        self.failed = True
        self._chardev.output_failed(exc)


class DescriptorChardev(Chardev):
    """A chardev that reads `in_fd` and writes `out_fd`; either may be absent."""

    def __init__(self, options: ChardevOptions) -> None:
        super().__init__(options)
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._owned: list[int] = []

    def start(self, in_fd: int | None, out_fd: int | None) -> None:
        """Begin with these descriptors."""
        self._reader = Reader(self, in_fd) if in_fd is not None else None
        self._writer = Writer(self, out_fd) if out_fd is not None else None
        self._set_open()
        self.accept_input()

    def own(self, fd: int) -> int:
        """Have `fd` closed with this chardev."""
        self._owned.append(fd)
        return fd

    def stop(self) -> None:
        """Stop reading and writing."""
        if self._reader is not None:
            self._reader.pause()
        if self._writer is not None:
            self._writer.stop()

    def close(self) -> None:
        super().close()
        self.stop()
        self._reader = self._writer = None
        for fd in self._owned:
            os.close(fd)
        self._owned.clear()

    def room(self) -> int:
        """Bytes of input that may come now."""
        return self._room()

    def input(self, data: bytes) -> None:
        """Input came."""
        self._deliver(data)

    def input_ended(self, errno: int | None) -> None:
        """There will be no more input: at the end of a file, or after an error. Output goes on."""
        self._reader = None
        self._event(Event.CLOSED)

    def output_failed(self, exc: OSError) -> None:
        """A full disk or a vanished reader loses the output, not the guest."""
        log.warning("chardev %s: write: %s; output is dropped from here on", self.id, exc.strerror)

    def output_ready(self) -> None:
        """The descriptor takes output again."""
        self._writable()

    def accept_input(self) -> None:
        if self._reader is not None and self._room() > 0:
            self._reader.resume()

    def _send(self, data: bytes) -> int:
        return self._writer.write(data) if self._writer is not None else len(data)
