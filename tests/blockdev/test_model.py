"""Random requests through stacks of nodes, against a bytearray: what is written is what is read, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioemu.blockdev.graph import Graph
from aioemu.blockdev.node import ExtentKind
from aioemu.errors import HostError

SIZE = 64 << 10
OFFSETS = st.one_of(st.integers(0, SIZE), st.sampled_from([0, 1, 511, 512, 4095, 4096, 8191, SIZE - 512, SIZE - 1]))
SIZES = st.one_of(st.integers(0, 9000), st.sampled_from([1, 511, 512, 513, 4096, 65536]))
STEPS = st.lists(st.tuples(st.sampled_from(["read", "write", "zero", "unmap", "extent"]), OFFSETS, SIZES), max_size=25)


def stacks(path: Path) -> dict[str, dict[str, Any]]:
    file = {"driver": "file", "filename": str(path), "discard": "unmap"}
    window = {"driver": "raw", "offset": 12288, "size": SIZE, "discard": "unmap"}
    return {
        "window": {**window, "file": file},
        "direct": {**window, "file": {**file, "cache": {"direct": True}}},
        "filters": {
            **window,
            "file": {"driver": "blkdebug", "image": {"driver": "copy-on-read", "file": file}},
        },
    }


@pytest.mark.parametrize("stack", ["window", "direct", "filters"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(steps=STEPS)
async def test_bytes_are_kept(graph: Graph, tmp_path: Path, stack: str, steps: list[tuple[str, int, int]]) -> None:
    """Any offset and length, aligned or not; the rest of the file is not touched."""
    path = tmp_path / "disk"
    around = os.urandom(12288 + SIZE + 4096)
    path.write_bytes(around)
    model = bytearray(around[12288 : 12288 + SIZE])
    try:
        node = await graph.add({**stacks(path)[stack], "node-name": "n"})
    except HostError:
        pytest.skip("this file system has no O_DIRECT")
    for number, (what, offset, wanted) in enumerate(steps):
        size = min(wanted, SIZE - offset)
        if what == "write":
            data = bytes([number + 1]) * size
            await node.write(offset, data)
            model[offset : offset + size] = data
        elif what in ("zero", "unmap"):
            await node.write_zeroes(offset, size, unmap=what == "unmap")
            model[offset : offset + size] = bytes(size)
        elif what == "extent" and size:
            extent = await node.extent(offset, size)
            assert extent.start <= offset < extent.end <= SIZE
            if extent.kind is ExtentKind.DATA:
                assert extent.host_offset - extent.start == 12288
        else:
            assert await node.read(offset, size) == bytes(model[offset : offset + size])
    await node.flush()
    await graph.remove("n")
    assert path.read_bytes() == around[:12288] + bytes(model) + around[12288 + SIZE :]
