"""A graph without a machine, and images for it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aioemu.blockdev.graph import Graph

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def tools_of_their_own() -> Iterator[None]:
    """qemu-img and qemu-io run without what `make test-asan` loads into the tests: under it they hang."""
    preload = os.environ.pop("LD_PRELOAD", None)
    yield
    if preload is not None:
        os.environ["LD_PRELOAD"] = preload


class Warnings(list[str]):
    """What the user was told."""

    def __call__(self, message: str, *args: object) -> None:
        self.append(message % args)


@pytest.fixture
def warnings() -> Warnings:
    return Warnings()


@pytest.fixture
async def graph(warnings: Warnings) -> AsyncIterator[Graph]:
    graph = Graph(warnings)
    yield graph
    await graph.close()
    assert not graph.nodes


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A raw image of random bytes."""
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512) + os.urandom(MIB - 512))
    return path
