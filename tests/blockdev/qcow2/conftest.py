"""Images opened without a machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aioemu.blockdev.graph import Graph
from aioemu.blockdev.legacy import open_image
from aioemu.blockdev.qcow2.node import Qcow2Node


@asynccontextmanager
async def opened(path: Path, events: list[dict[str, Any]] | None = None, **options: Any) -> AsyncIterator[Qcow2Node]:
    """The image as a node, closed at the end; what programs are told is added to (events)."""
    graph = Graph(lambda *args: None)
    if events is not None:
        graph.event = lambda name, /, **fields: events.append({"event": name, **fields})
    given = {name.replace("_", "-"): value for name, value in options.items()}
    node = await open_image(graph, str(path), {"driver": "qcow2", **given})
    assert isinstance(node, Qcow2Node)
    try:
        yield node
    finally:
        await graph.close()
