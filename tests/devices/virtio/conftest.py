"""Boards that are closed when their test ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.devices.virtio.driver import Board


@pytest.fixture
def boards() -> Iterator[list[Board]]:
    made: list[Board] = []
    yield made
    for board in made:
        board.close()
