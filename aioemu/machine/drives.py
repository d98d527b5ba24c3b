"""The disks of one machine: its block graph, the backends of `-drive`, and which device has which.

Nothing of the block layer is loaded before a disk is asked for. Not here: the devices, and what the options mean.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aioemu.config import DeviceOptions, MachineConfig
from aioemu.errors import ConfigError, EmuError, MonitorError, with_hints
from aioemu.log import Log

if TYPE_CHECKING:
    from aioemu.blockdev.backend import Backend
    from aioemu.blockdev.drive import Drive
    from aioemu.blockdev.graph import Graph
    from aioemu.blockdev.jobs import Jobs
    from aioemu.blockdev.node import Node
    from aioemu.blockdev.throttle import Throttles

INTERFACES = ("none", "virtio")  # of -drive; what else QEMU has needs controllers that are not here


class Drives:
    """Opened before the devices, closed after them."""

    def __init__(self, config: MachineConfig, log: Log, open_file: Callable[[str, int], int] = os.open) -> None:
        self._config = config
        self._open_file = open_file
        self._log = log.to("block")
        self._graph: Graph | None = None
        self._jobs: Jobs | None = None
        self._throttles: Throttles | None = None
        self.backends: dict[str, Backend] = {}  # of -drive, by id
        self.unnamed: list[Backend] = []  # of devices whose drive= names a node
        self._tasks: set[asyncio.Task[None]] = set()  # nodes that close because their device went
        self._automatic: list[tuple[str, Drive]] = []  # drives that are devices as well
        self._places: dict[tuple[str, int, int], str] = {}  # interface, bus and unit of each drive

    @property
    def graph(self) -> Graph:
        """The nodes; made when they are first wanted."""
        if self._graph is None:
            from aioemu.blockdev.graph import Graph

            self._graph = Graph(self._log.warning, self.throttles)
            self._graph.open_file = self._open_file
            self._graph.event = self._log.event
            self._graph.reserved = self.backends.__contains__
        return self._graph

    @property
    def throttles(self) -> Throttles:
        """The groups that limit disks; made when they are first wanted."""
        if self._throttles is None:
            from aioemu.blockdev.throttle import Throttles

            self._throttles = Throttles()
        return self._throttles

    @property
    def jobs(self) -> Jobs:
        """Work on disks; made when it is first wanted."""
        if self._jobs is None:
            from aioemu.blockdev.jobs import Jobs

            self._jobs = Jobs(lambda job: self._log.event("JOB_STATUS_CHANGE", id=job.id, status=job.status.value))
        return self._jobs

    @property
    def used(self) -> bool:
        """Whether there ever was a disk."""
        return self._graph is not None

    @property
    def all(self) -> list[Backend]:
        """Every backend, named ones first."""
        return [*self.backends.values(), *self.unnamed]

    # ---- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open what the configuration has."""
        for group in self._config.blockdevs:
            try:
                await self.graph.add({"driver": group.type, **group.values})
            except EmuError as exc:
                raise ConfigError(
                    f"-blockdev {_shown(group.type, group.values)}: {with_hints(exc)}", "-blockdev"
                ) from exc
        for group in self._config.drives:
            try:
                await self.add(group.id, group.values)
            except EmuError as exc:
                told = with_hints(exc).removeprefix("-drive: ")
                shown = _shown(None, {**group.values, "id": group.id})
                raise ConfigError(f"-drive {shown}: {told}", "-drive") from exc

    async def add(self, drive_id: str | None, values: Mapping[str, Any]) -> Backend:
        """One `-drive`."""
        from aioemu.blockdev.backend import Backend
        from aioemu.blockdev.drive import read_drive

        drive = read_drive(drive_id, values)
        place = self._place(drive)
        name = self._name(drive, place)
        if drive.interface not in INTERFACES:
            wanted = f"if={drive.interface},bus={drive.place.bus},unit={drive.place.unit or 0}"
            raise ConfigError(
                f"machine type does not support {wanted}; disks here are if=virtio, or if=none and -device"
            )
        backend = Backend(self.graph, name)
        backend.rerror, backend.werror, backend.writeback = drive.rerror, drive.werror, drive.writeback
        if drive.file is not None or drive.node.keys() & {"file", "driver"}:
            node = await self._open_image(drive)
            try:
                backend.insert(node)
            except BaseException:
                await self.graph.release(node)
                raise
        if drive.limits:
            try:
                backend.set_limits(drive.throttle_group, drive.limits)
            except BaseException:
                held = backend.eject()
                if held is not None:
                    await self.graph.release(held)
                raise
        self.backends[name] = backend
        self._places[place] = name
        if drive.interface == "virtio":
            self._automatic.append((name, drive))
        return backend

    async def delete(self, name: str) -> None:
        """Close a drive (drive_del); one that a device has stays until that goes."""
        backend = self.backends.get(name)
        if backend is None:
            raise EmuError(f"Device '{name}' not found")
        if backend.device is not None:
            raise EmuError(f"Device '{name}' is in use")
        del self.backends[name]
        node = backend.eject()
        if node is not None:
            await self.graph.release(node)

    async def _open_image(self, drive: Drive) -> Node[Any]:
        """A drive's node, and what the drive puts over it."""
        from aioemu.blockdev.legacy import open_image

        options = drive.node
        temporary = self._config.snapshot if drive.snapshot is None else drive.snapshot
        if temporary and drive.media == "disk":
            options = {**options, "read-only": True, "auto-read-only": False}
        node = await open_image(self.graph, drive.file, options)
        if temporary and drive.media == "disk":
            from aioemu.blockdev.overlay import temporary_over

            node = await temporary_over(self.graph, node, drive.node)
        if drive.copy_on_read and drive.node["read-only"]:
            self._log.warning("disabling copy-on-read on read-only drive")
        elif drive.copy_on_read:
            from aioemu.blockdev.overlay import copy_on_read_over

            node = await copy_on_read_over(self.graph, node)
        return node

    def devices(self) -> Iterable[DeviceOptions]:
        """The devices that `-drive if=virtio` makes."""
        for name, _ in self._automatic:
            yield DeviceOptions("virtio-blk", None, None, None, {"drive": name})

    async def end(self) -> None:
        """The machine ends: no job goes on, and all is on the disks."""
        if self._jobs is not None:
            await self._jobs.end()
        await self.flush()

    async def flush(self) -> None:
        """All that guests wrote is on the disks; what cannot be is said and does not stop the others."""
        for backend in self.all:
            if backend.edge is not None and not backend.read_only:
                try:
                    await backend.flush()
                except EmuError as exc:
                    self._log.error("%s: %s", backend.describe(), exc)

    def close(self) -> None:
        """Let go of everything, at once."""
        if self._jobs is not None:
            self._jobs.close()
        for backend in self.all:
            backend.eject()
        self.backends.clear()
        self.unnamed.clear()
        if self._graph is not None:
            self._graph.close_now()
        if self._throttles is not None:
            self._throttles.close()

    async def resize(self, drive: str | None, node_name: str | None, size: int) -> None:
        """Another size for a drive or a node; the device that has it learns of it."""
        from aioemu.blockdev.permissions import Permission

        async with self.graph.lock:
            node = self._find(drive, node_name)
            if node.read_only:
                raise EmuError("Image is read-only")
            edge = self.graph.attach(_Monitor(), "root", node, Permission.RESIZE)
            try:
                await node.resize(size)
            finally:
                self.graph.detach(edge)

    def _find(self, drive: str | None, node_name: str | None) -> Node[Any]:
        """By a drive's id or a node's name."""
        backend = self.backends.get(drive or "")
        if backend is not None:
            if backend.edge is None:
                raise EmuError(f"Device '{drive}' has no medium")
            return backend.node
        node = self.graph.nodes.get(node_name or drive or "")
        if node is None or not node.opened:
            raise EmuError(f"Cannot find device='{drive or ''}' nor node-name='{node_name or ''}'")
        return node

    def set_limits(self, drive: str | None, device: str | None, group: str | None, limits: Mapping[str, Any]) -> None:
        """Other limits for the disk of a drive or a device (block_set_io_throttle)."""
        if (drive is None) == (device is None):
            raise EmuError("Need exactly one of 'device' and 'id'")
        for backend in self.all:
            if (drive is not None and backend.name == drive) or (device is not None and device in _names(backend)):
                if backend.edge is None:
                    raise EmuError("Device has no medium")
                backend.set_limits(group, limits)
                return
        raise MonitorError(f"Device '{drive or device}' not found", "DeviceNotFound")

    # ---- devices -----------------------------------------------------------------------------------------------------

    def claim(self, name: str, device: str, driver: str, *, share_rw: bool = False) -> Backend:
        """The disk that `drive=name` of a device is: a drive's id, or a node's name. ConfigError when it cannot be had.

        `device` is the path of the device in the object tree; `release` gives the disk back.
        """
        backend = self.backends.get(name)
        if backend is None:
            backend = self._unnamed(name, driver)
        if backend.device is not None:
            words = f"Drive '{name}' is already in use"
            if any(name == each for each, _ in self._automatic):
                words += " because it has been automatically connected to another device"
                words += " (did you need 'if=none' in the drive options?)"
            else:
                words += " by another device"
            raise ConfigError(words, "-device")
        try:
            backend.attach(device, share_rw=share_rw)
        except BaseException:
            if not backend.name:
                backend.eject()
            raise
        if not backend.name:
            self.unnamed.append(backend)
        return backend

    def release(self, backend: Backend) -> None:
        """The device is gone, and its drive with it; nodes that have a name of their own stay."""
        if backend in self.unnamed:
            self.unnamed.remove(backend)
        else:
            self.backends.pop(backend.name, None)
        node = backend.eject()
        if node is not None:
            self._release_soon(node)

    def _release_soon(self, node: Node[Any]) -> None:
        task = asyncio.get_running_loop().create_task(self.graph.release(node))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _unnamed(self, name: str, driver: str) -> Backend:
        from aioemu.blockdev.backend import Backend
        from aioemu.blockdev.permissions import Permission

        node = self.graph.nodes.get(name) if self._graph is not None else None
        if node is None or not node.opened:
            raise ConfigError(f"Property '{driver}.drive' can't find value '{name}'", "-device")
        backend = Backend(self.graph)
        backend.edge = self.graph.attach(backend, "root", node, Permission.NONE)
        return backend

    def _place(self, drive: Drive) -> tuple[str, int, int]:
        """Interface, bus and unit of a drive: where it says, or the first that is free."""
        kind, bus, unit = drive.interface, drive.place.bus, drive.place.unit
        taken = {place for place, name in self._places.items() if name in self.backends}
        if unit is None:
            unit = next(number for number in itertools.count() if (kind, bus, number) not in taken)
        elif (kind, bus, unit) in taken:
            raise ConfigError(f"drive with bus={bus}, unit={unit} (index={drive.place.index}) exists")
        return kind, bus, unit

    def _name(self, drive: Drive, place: tuple[str, int, int]) -> str:
        """The drive's id, or the one that QEMU would make up."""
        if drive.id is not None:
            if drive.id in self.backends:
                raise ConfigError(f"Duplicate ID '{drive.id}' for drive")
            if drive.id in self.graph.nodes or drive.node.get("node-name") == drive.id:
                raise ConfigError(f"Device name '{drive.id}' conflicts with an existing node name")
            return drive.id
        kind, _, unit = place
        if f"{kind}{unit}" in self.backends:
            raise ConfigError(f"Duplicate ID '{kind}{unit}' for drive")
        return f"{kind}{unit}"


def _names(backend: Backend) -> tuple[str, ...]:
    """What the device that has a disk may be called: its path, that of its virtio part, or its id."""
    path = (backend.device or "").removesuffix("/virtio-backend")
    return () if not path else (path, f"{path}/virtio-backend", path.rpartition("/")[2])


class _Monitor:
    """Whoever gives commands, as a node's parent."""

    def describe(self) -> str:
        return "the monitor"

    def child_changed(self, role: str, start: int, length: int) -> None:
        """Nothing is remembered."""

    def child_resized(self, role: str, size: int) -> None:
        """Known already."""


def _shown(kind: str | None, values: Mapping[str, Any]) -> str:
    """An option as the user knows it again."""
    from aioemu.blockdev.legacy import flat

    words = [kind] if kind else []
    words += [f"{key}={value}" for key, value in flat(values) if isinstance(value, (str, int))]
    return ",".join(words)
