"""Commands that change disks (QAPI block-core.json): nodes come, go and change; sizes; limits; new images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from aioemu.blockdev.registry import find_driver
from aioemu.errors import MonitorError
from aioemu.protocol.commands.block import DrivesMachine
from aioemu.protocol.commands.block_options import BlockdevDriver, blockdev_create_options, blockdev_options
from aioemu.protocol.commands.block_types import Limits
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record

if TYPE_CHECKING:
    from aioemu.blockdev.jobs import Job

RATES = {
    "bps": "bps-total",
    "bps_rd": "bps-read",
    "bps_wr": "bps-write",
    "iops": "iops-total",
    "iops_rd": "iops-read",
    "iops_wr": "iops-write",
}


class BlockdevOptions(Record, kw_only=True):
    """A node's driver and name; its driver says which further members it takes."""

    takes_any: ClassVar = True
    hidden: ClassVar = ("extra",)
    shape: ClassVar = staticmethod(blockdev_options)

    driver: BlockdevDriver
    node_name: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        """As the block graph takes them."""
        name = {} if self.node_name is None else {"node-name": self.node_name}
        return {"driver": str(self.driver), **name, **self.extra}


class BlockdevReopen(Record, kw_only=True):
    """Nodes with their new options."""

    options: list[BlockdevOptions]


class NodeName(Record, kw_only=True):
    """Which node."""

    node_name: str


class BlockResize(Record, kw_only=True):
    """Which drive or node, and its size in bytes."""

    device: str | None = None
    node_name: str | None = None
    size: int


class BlockIOThrottle(Limits, rename=None, kw_only=True):
    """A disk's limits: all zero is none. A maximum is for bursts; the group shares them with other disks."""

    device: str | None = None
    id: str | None = None


class BlockdevCreateOptions(Record, kw_only=True):
    """What image is made; its driver says which further members it takes."""

    takes_any: ClassVar = True
    hidden: ClassVar = ("extra",)
    shape: ClassVar = staticmethod(blockdev_create_options)

    driver: BlockdevDriver
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class BlockdevCreate(Record, kw_only=True):
    """A job's name, and what it makes."""

    job_id: str
    options: BlockdevCreateOptions


@command("blockdev-add", needs=("drives",))
async def blockdev_add(machine: DrivesMachine, args: BlockdevOptions) -> None:
    """Open a node."""
    await machine.drives.graph.add(args.given(), strict=True)


@command("blockdev-del", needs=("drives",))
async def blockdev_del(machine: DrivesMachine, args: NodeName) -> None:
    """Close a node that nobody uses."""
    await machine.drives.graph.remove(args.node_name)


@command("blockdev-reopen", needs=("drives",))
async def blockdev_reopen(machine: DrivesMachine, args: BlockdevReopen) -> None:
    """Give nodes new options, while they are in use; what is not given goes back to its default."""
    await machine.drives.graph.reopen([each.given() for each in args.options])


@command("block_resize", needs=("drives",))
async def block_resize(machine: DrivesMachine, args: BlockResize) -> None:
    """Set the size of a drive or node; the guest is told."""
    if args.size < 0:
        raise MonitorError("Parameter 'size' expects a >0 size")
    await machine.drives.resize(args.device, args.node_name, args.size)


@command("blockdev-create", needs=("drives",))
async def blockdev_create(machine: DrivesMachine, args: BlockdevCreate) -> None:
    """Make an image, as a job that stays until it is dismissed."""
    from aioemu.blockdev.options import read_options

    drives = machine.drives
    driver = find_driver(str(args.options.driver))
    if driver.create_type is None:
        raise MonitorError("Driver does not support blockdev-create")
    given = read_options(driver.create_type, args.options.extra, path="options.", strict=True)

    async def work(job: Job) -> None:
        await driver.create(drives.graph, given, job)

    drives.jobs.start(args.job_id, "create", work)


@command("block_set_io_throttle", needs=("drives",))
def block_set_io_throttle(machine: DrivesMachine, args: BlockIOThrottle) -> None:
    """Limit a disk, or take its limits away."""
    limits: dict[str, int] = {} if args.iops_size is None else {"iops-size": args.iops_size}
    for short, kind in RATES.items():
        for tail in ("", "_max", "_max_length"):
            value = getattr(args, f"{short}{tail}")
            if value is not None:
                limits[f"{kind}{tail.replace('_', '-')}"] = value
    machine.drives.set_limits(args.device, args.id, args.group, limits)


COMMANDS = (blockdev_add, blockdev_del, blockdev_reopen, block_resize, block_set_io_throttle, blockdev_create)
