"""Disks on a machine: each waits while the machine stands still, and what fails is told and acted on.

Not here: which device has which disk (drives), the devices, and what runs the requests (the engine).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError
from aioemu.machine.kit import Kit

if TYPE_CHECKING:
    from aioemu.blockdev.backend import Backend
    from aioemu.blockdev.engine import DiskError
    from aioemu.devices.virtio.blk import VirtioBlk


def claim_disk(kit: Kit, drive: str, path: str, driver: str, *, share_rw: bool) -> Backend:
    """The disk that `drive=` says, until the device goes, which is at `path` in the object tree."""
    backend = kit.drives.claim(drive, path, driver, share_rw=share_rw)
    kit.closers.append(lambda: kit.drives.release(backend))
    return backend


def io_context(kit: Kit, iothread: str | None, name: str) -> Any:
    """The I/O context of an iothread by id, until the device goes; the loop's own for None."""
    if iothread is None:
        return kit.native.io.ptr
    thread = kit.iothreads.get(iothread)
    if thread is None:
        hint = did_you_mean(iothread, kit.iothreads)
        raise ConfigError(f"iothread={iothread}: no such -object iothread{hint}", "-device")
    thread.users.add(name)
    kit.closers.append(lambda: thread.users.discard(name))
    return thread.ptr


def watch_disk(kit: Kit, name: str, disk: VirtioBlk) -> None:
    """Connect a disk with the machine's life and its events."""
    engine = disk.engine
    kit.closers.append(engine.close)
    kit.flushers.append(engine.hold)
    kit.closers.append(lambda: kit.flushers.remove(engine.hold))
    kit.resumers.append(engine.go_on)
    kit.closers.append(lambda: kit.resumers.remove(engine.go_on))

    def failed(error: DiskError) -> None:
        backend = disk.backend
        known = {"nospace": error.errno == errno.ENOSPC} if backend.tells_status else {}
        kit.log.event(
            "BLOCK_IO_ERROR",
            node_name=backend.node.name if backend.edge is not None else "",
            qom_path=backend.device or name,
            device=backend.name,
            operation="write" if error.is_write else "read",
            action=error.action,
            reason=os.strerror(error.errno),
            **known,
        )
        if error.action == "stop":
            kit.wishes.io_error()

    engine.on_error = failed
