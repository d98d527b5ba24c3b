"""What a drive puts over its image: a temporary one for `snapshot=on`, a filter for `copy-on-read=on`.

A temporary image has no name once it is open, so nothing of it stays, however the machine ends. It is not flushed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioemu.blockdev.options import read_options
from aioemu.blockdev.registry import find_driver
from aioemu.errors import HostError

if TYPE_CHECKING:
    from aioemu.blockdev.graph import Graph
    from aioemu.blockdev.node import Node

FOLDER = "/var/tmp"  # noqa: S108 - where TMPDIR says nothing: on a disk, as images are large; QEMU's choice
KEPT = ("discard", "detect-zeroes", "read-only")  # of a drive's options, for the image that the guest writes


async def temporary_over(graph: Graph, node: Node[Any], given: Mapping[str, Any]) -> Node[Any]:
    """A qcow2 image over `node` that takes what is written. On failure `node` is released."""
    file: Node[Any] | None = None
    try:
        path = _make_file()
        try:
            below = {"driver": "file", "filename": path, "discard": "unmap", "cache": {"no-flush": True}}
            file = await graph.open(below)
            graph.owned.add(file.name)  # until the image is there
        finally:
            os.unlink(path)
        qcow2 = find_driver("qcow2")
        assert qcow2.create_type is not None
        await qcow2.create(graph, read_options(qcow2.create_type, {"file": file.name, "size": node.size}), Progress())
        kept = {key: given[key] for key in KEPT if key in given}
        top = {"driver": "qcow2", "file": file.name, "backing": node.name, "cache": {"no-flush": True}, **kept}
        made = await graph.open(top, legacy=True)
        graph.owned.discard(file.name)
        return made
    except BaseException:
        if file is not None:
            graph.owned.discard(file.name)
            await graph.release(file)
        await graph.release(node)
        raise


async def copy_on_read_over(graph: Graph, node: Node[Any]) -> Node[Any]:
    """The filter over `node`. On failure that is released."""
    try:
        top = await graph.open({"driver": "copy-on-read", "file": node.name})
    except BaseException:
        await graph.release(node)
        raise
    top.implicit = True
    return top


class Progress:
    """Nobody looks how far it is."""

    current = total = 0


def _make_file() -> str:
    folder = os.environ.get("TMPDIR", FOLDER)
    try:
        fd, path = tempfile.mkstemp(prefix="aioemu-", suffix=".qcow2", dir=folder)
    except OSError as exc:
        raise HostError(f"Could not get temporary filename in {folder}", exc.errno) from exc
    os.close(fd)
    return path
