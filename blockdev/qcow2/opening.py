"""What an image needs of others: its header from the file, the data file that it names, who hears that it is broken."""

from __future__ import annotations

import os.path
from typing import Any

from aioemu.blockdev.backend import Backend
from aioemu.blockdev.node import Node, Opener
from aioemu.blockdev.options import NOT_GIVEN
from aioemu.blockdev.qcow2 import header as fields
from aioemu.blockdev.qcow2.header import Header, parse
from aioemu.errors import ConfigError


async def read_header(store: Node[Any]) -> Header:
    """The header of an image; ConfigError when it is none that can be opened."""
    start = await store.read(0, min(store.size, 512))
    bits = int.from_bytes(start[20:24], "big")
    if start[:4] == fields.MAGIC and bits in fields.CLUSTER_BITS:
        start = await store.read(0, 1 << bits)
    return parse(start)


async def open_data_file(node: Node[Any], graph: Opener, header: Header) -> Node[Any]:
    """The node that holds the guest's clusters: the image file, or the external one that options or header name."""
    given = "data-file" in node.children
    if not header.incompatible & fields.DATA_FILE:
        if given:
            raise ConfigError("'data-file' can only be set for images with an external data file")
        return node.children["file"]
    if not given:
        name = header.text(fields.EXT_DATA_FILE)
        if not name:
            raise ConfigError("'data-file' is required for this image")
        path = os.path.join(os.path.dirname(node.filename), name)  # an absolute name stays
        await graph.open_child(node, "data-file", {"driver": "file", "filename": path})
    return node.children["data-file"]


async def open_backing(node: Node[Any], graph: Opener, header: Header) -> None:
    """Open what is below the image, where it is not there yet and not refused (`backing: null`)."""
    given = node.options.backing
    if given is None or "backing" in node.children:
        return
    if header.backing_name or given is not NOT_GIVEN:
        await graph.open_backing(node, header.backing_name or "", header.text(fields.EXT_BACKING_FORMAT))


def tell_corrupt(graph: Opener, node: Node[Any], message: str, fatal: bool, where: tuple[int, int] | None) -> None:
    """Tell the user and the programs that listen; (fatal): the image is marked, and changes no more."""
    graph.warn(
        "%s: Image is corrupt: %s; %s",
        node.filename or node.name,
        message,
        "further write attempts will be refused" if fatal else "it was opened read-only",
    )
    fields: dict[str, Any] = {"offset": where[0], "size": where[1]} if where else {}
    fields |= {"device": drive_of(node), "node_name": node.name, "msg": message, "fatal": fatal}
    graph.event("BLOCK_IMAGE_CORRUPTED", **fields)


def drive_of(node: Node[Any]) -> str:
    """The name of a drive that this node is the top of; empty where there is none, or a device named the node."""
    names = [edge.parent.name for edge in node.parents if edge.role == "root" and isinstance(edge.parent, Backend)]
    return next(filter(None, names), "")
