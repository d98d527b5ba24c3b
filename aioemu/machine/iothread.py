"""I/O contexts: where native parts of devices serve their queues and descriptors (`core/io.h`).

The reactor's own context is a reader on the loop, one call for everything that is ready. An IoThread (`-object
iothread`) has a native thread instead, which never takes the GIL and looks for work a while before it sleeps. Not here:
what is served. Whoever put something into a context takes it out before the context is closed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aioemu._core import ffi, lib
from aioemu.devices.properties import Live, prop
from aioemu.errors import ConfigError, HostError

INT64_MAX = (1 << 63) - 1
REACTOR_BUDGET_NS = 500_000  # of one call: then the loop's other business has its turn
REACTOR_POLL_NS = 50_000  # how long it looks for more at most: falling asleep and waking up costs about as much


@dataclass(frozen=True, slots=True)
class IoThreadProperties:
    """How an iothread looks for work before it sleeps: QEMU's properties and defaults."""

    poll_max_ns: int = prop(32768, "uint64", "longest look before sleeping", most=INT64_MAX)
    poll_grow: int = prop(0, "uint32", "factor by which a look grows; 0: 2, or always the longest if poll-shrink=0")
    poll_shrink: int = prop(0, "uint32", "divisor by which it shrinks; 0: to nothing at once")
    aio_max_batch: int = prop(0, "uint32", "requests handed to the kernel at once; 0: the back end's choice")


class ReactorIo:
    """The context that the running loop drives."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ptr = _new_context()
        lib.core_io_set_poll(self.ptr, REACTOR_POLL_NS, 0, 0, 0)
        self._fd = lib.core_io_fd(self.ptr)
        self._loop.add_reader(self._fd, lib.core_io_run, self.ptr, REACTOR_BUDGET_NS)

    def close(self) -> None:
        """Free it; may be called twice."""
        if self.ptr != ffi.NULL:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            lib.core_io_free(self.ptr)
            self.ptr = ffi.NULL


class IoThread:
    """A context with a thread of its own."""

    def __init__(self, name: str, properties: IoThreadProperties) -> None:
        self.name = name
        self.users: set[str] = set()  # devices served here
        self.ptr = _new_context()
        self.set_properties(properties)
        rc = lib.core_io_thread_start(self.ptr, name.encode())
        if rc < 0:
            self.close()
            raise HostError(f"start the thread of iothread {name}", -rc)

    @property
    def thread_id(self) -> int:
        """The host's id of the thread."""
        return int(lib.core_io_thread_id(self.ptr))

    def set_properties(self, properties: IoThreadProperties) -> None:
        """Change how it looks for work; from now on."""
        self.properties = properties
        p = properties
        lib.core_io_set_poll(self.ptr, p.poll_max_ns, p.poll_grow, p.poll_shrink, p.aio_max_batch)

    def live(self) -> Mapping[str, Live]:
        """Its properties, which may be set while it runs."""
        fields = dataclasses.fields(self.properties)
        found = {f.name.replace("_", "-"): self._live(f.name, f.metadata) for f in fields}
        return {**found, "thread-id": Live("int", lambda: self.thread_id)}

    def _live(self, name: str, about: Mapping[str, Any]) -> Live:
        def write(value: int) -> None:
            if not 0 <= value <= INT64_MAX:
                raise ConfigError(f"{name.replace('_', '-')} value must be in range [0, {INT64_MAX}]")
            self.set_properties(dataclasses.replace(self.properties, **{name: value}))

        return Live("int", lambda: getattr(self.properties, name), write, about["about"])

    def close(self) -> None:
        """End the thread and free the context; may be called twice."""
        if self.ptr != ffi.NULL:
            lib.core_io_free(self.ptr)
            self.ptr = ffi.NULL


class IoThreads(dict[str, IoThread]):
    """A machine's iothreads by id."""

    def add(self, name: str, properties: IoThreadProperties) -> IoThread:
        """Start one."""
        self[name] = IoThread(name, properties)
        return self[name]

    def end(self, name: str) -> None:
        """End one that nobody uses."""
        self.pop(name).close()

    def close(self) -> None:
        """End them all."""
        while self:
            self.popitem()[1].close()


def _new_context() -> Any:
    made = lib.core_io_new()
    if made == ffi.NULL:
        raise HostError("an I/O context: no more descriptors or memory")
    return made
