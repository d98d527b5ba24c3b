"""Questions about disks (QAPI block-core.json): drives, nodes, figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.protocol.commands.block_types import (
    BlockdevCacheInfo,
    BlockDeviceInfo,
    BlockDeviceIoStatus,
    BlockInfo,
    BlockStats,
    DetectZeroes,
    ImageInfo,
    stats_of,
)
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record

if TYPE_CHECKING:
    from aioemu.blockdev.backend import Backend
    from aioemu.blockdev.node import Node
    from aioemu.machine.drives import Drives

    AnyNode = Node[Any]


class DrivesMachine(Machine):
    """A machine that has disks (attribute `drives`)."""

    drives: Drives


class QueryBlockStats(Record):
    """`query-nodes`: the nodes instead of the devices."""

    query_nodes: bool | None = None


class QueryNamedBlockNodes(Record):
    """`flat`: images without those below them."""

    flat: bool | None = None


@command("query-block", needs=("drives",))
async def query_block(machine: DrivesMachine) -> list[BlockInfo]:
    """Every drive, and every disk of a device."""
    return [await _drive(each) for each in machine.drives.all]


@command("query-named-block-nodes", needs=("drives",))
async def query_named_block_nodes(machine: DrivesMachine, args: QueryNamedBlockNodes) -> list[BlockDeviceInfo]:
    """Every node, the latest first."""
    return [await describe_node(each, flat=bool(args.flat)) for each in _nodes(machine.drives)]


@command("query-blockstats", needs=("drives",))
def query_blockstats(machine: DrivesMachine, args: QueryBlockStats) -> list[BlockStats]:
    """What each disk has done."""
    if args.query_nodes:
        return [_node_stats(each) for each in reversed(_nodes(machine.drives))]
    return [_backend_stats(each) for each in machine.drives.all]


def _nodes(drives: Drives) -> list[AnyNode]:
    return [each for each in reversed(drives.graph.nodes.values()) if each.opened] if drives.used else []


async def _drive(backend: Backend) -> BlockInfo:
    inserted = None
    if backend.edge is not None:
        node = backend.node
        while node.implicit:
            node = node.file
        inserted = await describe_node(node, flat=False)
        inserted.cache.writeback = backend.writeback
        for name, value in backend.limits().items():
            setattr(inserted, name, value)
    attached = backend.device is not None
    return BlockInfo(
        device=backend.name,
        qdev=backend.device,
        type="unknown",
        removable=not attached,
        locked=False,
        inserted=inserted,
        io_status=BlockDeviceIoStatus(backend.io_status) if attached and backend.tells_status else None,
    )


async def describe_node(node: AnyNode, *, flat: bool) -> BlockDeviceInfo:
    """A node as the protocol tells it."""
    backing, depth = image_below(node), 0
    below = backing if not flat else None
    while below is not None:
        depth += 1
        below = image_below(below)
    return BlockDeviceInfo(
        file=node.filename,
        node_name=node.name,
        ro=node.read_only,
        drv=node.driver,
        backing_file=backing.filename if backing is not None else None,
        backing_file_depth=depth,
        active=True,
        encrypted=False,
        detect_zeroes=DetectZeroes(node.options.detect_zeroes),
        bps=0,
        bps_rd=0,
        bps_wr=0,
        iops=0,
        iops_rd=0,
        iops_wr=0,
        image=await describe_image(node, flat=flat),
        cache=BlockdevCacheInfo(writeback=True, direct=node.options.cache.direct, no_flush=node.options.cache.no_flush),
        write_threshold=0,
    )


async def describe_image(node: AnyNode, *, flat: bool) -> ImageInfo:
    """The image of a node, with those below it."""
    facts = {name.replace("-", "_"): value for name, value in node.info().items()}
    below = node.file if node.is_filter else node.backing
    return ImageInfo(
        filename=node.filename,
        format=node.driver,
        actual_size=await node.allocated_bytes(),
        backing_image=None if flat or below is None else await describe_image(below, flat=False),
        **facts,
    )


def image_below(node: AnyNode) -> AnyNode | None:
    """The backing image, seen through filters on top of it."""
    while node.is_filter:
        node = node.file
    return node.backing


def _backend_stats(backend: Backend) -> BlockStats:
    node = backend.node if backend.edge is not None else None
    figures = backend.figures()
    highest = figures.get("wr_highest_offset", 0)
    return BlockStats(
        device=backend.name,
        qdev=backend.device,
        node_name=node.name if node is not None else None,
        stats=stats_of(figures, counted=True),
        driver_specific=_figures(node) if node is not None else None,
        parent=_file_stats(node, highest) if node is not None else None,
        backing=_node_stats(node.backing) if node is not None and node.backing is not None else None,
    )


def _file_stats(node: AnyNode, highest: int) -> BlockStats | None:
    """Of the node below, whose watermark programs watch that give an image its space as it grows."""
    return _node_stats(node.file, node.highest_below(highest)) if node.file_role in node.children else None


def _node_stats(node: AnyNode, highest: int = 0) -> BlockStats:
    return BlockStats(
        node_name=node.name,
        stats=stats_of({"wr_highest_offset": highest}, counted=False),
        driver_specific=_figures(node),
        parent=_file_stats(node, highest),
        backing=_node_stats(node.backing) if node.backing is not None else None,
    )


def _figures(node: AnyNode) -> Any:
    """What a driver counts, flat as a union's members are on the wire."""
    return node.driver_figures()


COMMANDS = (query_block, query_named_block_nodes, query_blockstats)
