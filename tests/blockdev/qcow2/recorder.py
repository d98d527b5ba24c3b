"""A file in memory that remembers every change in order, and what a crash in the middle of them may leave."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aioemu.blockdev.node import Extent, ExtentKind, Node
from aioemu.blockdev.options import NodeOptions, read_options
from aioemu.blockdev.qcow2.node import Qcow2Node
from aioemu.blockdev.qcow2.options import Qcow2Options
from aioemu.errors import ConfigError, HostError

SECTOR = 512
LARGEST = 256 << 20  # a host's files end somewhere


@dataclass(frozen=True)
class Change:
    """One thing that was done to the file."""

    what: str  # write, zero, size, flush
    offset: int = 0
    data: bytes = b""

    def apply(self, file: bytearray) -> None:
        if self.what == "size":
            del file[self.offset :]
            file.extend(bytes(self.offset - len(file)))
        elif self.what == "write":
            end = self.offset + len(self.data)
            file.extend(bytes(max(end - len(file), 0)))
            file[self.offset : end] = self.data


class MemoryFile(Node[NodeOptions]):
    """The file; `log` is what was done to it, `fail_at` the number of changes after which nothing works any more."""

    driver = "memory"
    grows = True

    def __init__(self, content: bytes = b"") -> None:
        super().__init__("memory", NodeOptions())
        self.content = bytearray(content)
        self.size = len(content)
        self.log: list[Change] = []
        self.fail_at: int | None = None
        self.error: Exception | None = None

    def _do(self, change: Change) -> None:
        if self.fail_at is not None and len(self.log) >= self.fail_at and self.error is not None:
            raise self.error
        if change.offset + len(change.data) > LARGEST:
            raise HostError("write memory", errno.EFBIG)
        self.log.append(change)
        change.apply(self.content)
        if len(self.content) != self.size:
            self._set_size(len(self.content))

    async def read(self, offset: int, size: int) -> bytes:
        return bytes(self.content[offset : offset + size]).ljust(size, b"\0")

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._do(Change("write", offset, bytes(data)))

    async def write_zeroes(self, offset: int, size: int, *, unmap: bool = False) -> None:
        self._do(Change("write", offset, bytes(size)))

    async def discard(self, offset: int, size: int) -> None:
        size = min(size, self.size - offset)
        if size > 0:
            self._do(Change("write", offset, b"\xdd" * size))  # whatever was there does not matter any more

    async def flush(self) -> None:
        self._do(Change("flush"))

    async def extent(self, offset: int, size: int, *, write: bool = False) -> Extent:
        return Extent(0, self.size, ExtentKind.DATA, -1, 0, True)

    async def resize(self, size: int) -> None:
        self._do(Change("size", size))

    async def close(self) -> None:
        pass

    @property
    def filename(self) -> str:
        return "memory"


class NoGraph:
    """Opens nothing: an image whose children are there already."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, message: str, *args: object) -> None:
        self.warned.append(message % args)

    def event(self, name: str, /, **fields: object) -> None:
        self.warned.append(f"{name} {fields}")

    async def open_child(self, node: Node[Any], role: str, given: Any) -> Node[Any]:
        raise ConfigError("no other image is opened")

    async def open_backing(self, node: Node[Any], filename: str, driver: str | None) -> Node[Any]:
        raise ConfigError("no other image is opened")


async def open_memory(file: Node[Any], backing: Node[Any] | None = None, **options: Any) -> Qcow2Node:
    """The image in a file of memory."""
    given = {name.replace("_", "-"): value for name, value in options.items()}
    node = Qcow2Node("disk", read_options(Qcow2Options, {"file": "memory", **given}))
    node.children["file"] = file
    if backing is not None:
        node.children["backing"] = backing
    await node.open(NoGraph())  # type: ignore[arg-type]  # asks for nothing else
    return node


def crashes(start: bytes, log: list[Change], chooser: random.Random, each: int) -> Iterator[tuple[int, bytes]]:
    """What may be on the disk after a crash at each change: all before the last flush, any part of the later ones.

    (each) variants of every cut: everything, nothing, and some of it with one write torn between two sectors.
    """
    flushed = bytearray(start)
    pending: list[Change] = []
    for number, change in enumerate([*log, Change("end")]):
        for variant in range(each):
            file = bytearray(flushed)
            for one in pending:
                if variant == 0 or (variant > 1 and chooser.random() < 0.5):
                    torn(one, chooser, variant > 1).apply(file)
            yield number, bytes(file)
        if change.what == "flush":
            for one in pending:
                one.apply(flushed)
            pending.clear()
        else:
            pending.append(change)


def torn(change: Change, chooser: random.Random, may_tear: bool) -> Change:
    """A write of which only the first sectors, or all, got to the disk."""
    if change.what != "write" or not may_tear or chooser.random() < 0.7:
        return change
    sectors = len(change.data) // SECTOR
    return Change("write", change.offset, change.data[: chooser.randrange(sectors + 1) * SECTOR] if sectors else b"")
