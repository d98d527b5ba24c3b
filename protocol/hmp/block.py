"""Disks in the text monitor: `info block` and `info blockstats`, as tools read them, and what changes disks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.config.grammar import parse_pairs, parse_size
from aioemu.errors import MonitorError
from aioemu.protocol.commands.block_types import BlockDeviceInfo, BlockInfo, ImageInfo
from aioemu.protocol.hmp.table import HmpCommand, parameters

if TYPE_CHECKING:
    from aioemu.protocol.hmp.interpreter import Interpreter

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
LIMITS = (
    "bps bps_rd bps_wr bps_max bps_rd_max bps_wr_max iops iops_rd iops_wr iops_max iops_rd_max iops_wr_max iops_size"
)
FIGURES = """rd_bytes wr_bytes rd_operations wr_operations flush_operations wr_total_time_ns rd_total_time_ns
flush_total_time_ns rd_merged wr_merged idle_time_ns"""


async def block(interpreter: Interpreter, values: dict[str, Any]) -> str:
    """Drives and disks, or with -n nodes; -v tells of the images too."""
    if values["n"]:
        nodes = await interpreter.qmp("query-named-block-nodes")
        chosen = [(None, each) for each in nodes if values["device"] in (None, each.node_name)]
        return "\n".join(_entry(drive, node, values["v"]) for drive, node in chosen)
    drives = [each for each in await interpreter.qmp("query-block") if values["device"] in (None, each.device)]
    return "\n".join(_entry(drive, drive.inserted, values["v"]) for drive in drives)


async def resize(interpreter: Interpreter, values: dict[str, Any]) -> str:
    """A size in MiB, or with a suffix."""
    size = parse_size(values["size"], "M")
    if size is None:
        raise MonitorError("invalid size")
    await interpreter.qmp("block_resize", {"device": values["device"], "size": size})
    return ""


async def set_io_throttle(interpreter: Interpreter, values: dict[str, Any]) -> str:
    """By drive, or by device where there is no such drive."""
    names = {each.device for each in await interpreter.qmp("query-block")}
    given = dict(values)
    device = given.pop("device")
    await interpreter.qmp("block_set_io_throttle", {"device" if device in names else "id": device, **given})
    return ""


async def drive_add(interpreter: Interpreter, values: dict[str, Any]) -> str:
    """A drive for a device that is plugged in later; the PCI address means nothing then."""
    given: dict[str, Any] = dict(parse_pairs(values["opts"]))
    if given.get("if", "ide") != "none":
        raise MonitorError(f"Can't hot-add drive to type {given.get('if', 'ide')}: use if=none and device_add")
    await interpreter.machine.drives.add(given.pop("id", None), given)
    return "OK\n"


async def drive_del(interpreter: Interpreter, values: dict[str, Any]) -> str:
    """Close a drive that no device has."""
    await interpreter.machine.drives.delete(values["id"])
    return ""


async def blockstats(interpreter: Interpreter, values: dict[str, Any]) -> str:
    """One line a disk."""
    lines = []
    for each in await interpreter.qmp("query-blockstats"):
        if each.device is None:
            continue
        figures = " ".join(f"{name}={getattr(each.stats, name) or 0}" for name in FIGURES.split())
        lines.append(f"{each.device}: {figures}\n")
    return "".join(lines)


def _entry(drive: BlockInfo | None, node: BlockDeviceInfo | None, verbose: bool) -> str:
    lines = [_title(drive, node)]
    if drive is not None and drive.qdev:
        lines.append(f"    Attached to:      {drive.qdev}")
    if drive is not None and drive.io_status is not None and drive.io_status.value != "ok":
        lines.append(f"    I/O status:       {drive.io_status.value}")
    if drive is not None and drive.removable:
        lines.append("    Removable device: not locked, tray closed")
    if node is not None:
        lines += _node_lines(node)
        if verbose:
            lines += ["", "Images:", *_image_lines(node.image)]
    return "".join(f"{line}\n" for line in lines)


def _title(drive: BlockInfo | None, node: BlockDeviceInfo | None) -> str:
    name = drive.device if drive is not None else ""
    if node is not None and node.node_name:
        name = f"{name} ({node.node_name})" if name else node.node_name
    if node is None:
        return f"{name}: [not inserted]"
    words = [node.drv, *(["read-only"] if node.ro else []), *(["encrypted"] if node.encrypted else [])]
    return f"{name}: {node.file} ({', '.join(words)})"


def _node_lines(node: BlockDeviceInfo) -> list[str]:
    cache = node.cache
    modes = ["writeback" if cache.writeback else "writethrough"]
    modes += ["direct"] if cache.direct else []
    modes += ["ignore flushes"] if cache.no_flush else []
    lines = [f"    Cache mode:       {', '.join(modes)}"]
    if node.backing_file is not None:
        lines.append(f"    Backing file:     {node.backing_file} (chain depth: {node.backing_file_depth})")
    if node.detect_zeroes.value != "off":
        lines.append(f"    Detect zeroes:    {node.detect_zeroes.value}")
    if any(getattr(node, name) for name in LIMITS.split()):
        limits = " ".join(f"{name}={getattr(node, name) or 0}" for name in LIMITS.split())
        lines.append(f"    I/O throttling:   {limits} group={node.group}")
    return lines


def _image_lines(image: ImageInfo) -> list[str]:
    lines = [f"image: {image.filename}", f"file format: {image.format}"]
    lines.append(f"virtual size: {_sized(image.virtual_size)} ({image.virtual_size} bytes)")
    lines.append(f"disk size: {_sized(image.actual_size) if image.actual_size is not None else 'unavailable'}")
    if image.cluster_size:
        lines.append(f"cluster_size: {image.cluster_size}")
    if image.backing_filename:
        lines.append(f"backing file: {image.backing_filename}")
        if image.backing_filename_format:
            lines.append(f"backing file format: {image.backing_filename_format}")
    return lines if image.backing_image is None else [*lines, "", *_image_lines(image.backing_image)]


def _sized(count: int) -> str:
    """A size in the largest unit that leaves a whole part, to three digits."""
    unit = max(0, (count.bit_length() - 1) // 10) if count else 0
    return f"{count / (1 << 10 * unit):.3g} {UNITS[unit]}"


COMMANDS: tuple[HmpCommand, ...] = (
    HmpCommand(
        "block_resize",
        "device size",
        "resize a block image",
        resize,
        parameters("device", "size"),
        ("block_resize",),
    ),
    HmpCommand(
        "block_set_io_throttle",
        "device bps bps_rd bps_wr iops iops_rd iops_wr",
        "change I/O throttle limits for a block drive",
        set_io_throttle,
        parameters(
            "device", "bps:number", "bps_rd:number", "bps_wr:number", "iops:number", "iops_rd:number", "iops_wr:number"
        ),
        ("block_set_io_throttle", "query-block"),
    ),
    HmpCommand(
        "drive_add",
        "[[<domain>:]<bus>:]<slot> [file=file][,if=none][,...]",
        "add drive to PCI storage controller",
        drive_add,
        parameters("pci_addr", "opts:rest"),
        needs=("drives",),
    ),
    HmpCommand("drive_del", "device", "remove host block device", drive_del, parameters("id"), needs=("drives",)),
)
