"""What back ends need of a machine: a reactor's io context, and boxes for their other ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aioemu.log import EventLog, Log
from aioemu.machine.iothread import ReactorIo
from aioemu.netdev.port import Box
from aioemu.netdev.registry import NetContext, open_netdev


@pytest.fixture
async def context() -> AsyncIterator[NetContext]:
    """A back end's machine, as far as it sees it; `context.log` keeps the events."""
    io = ReactorIo()
    yield NetContext("n0", Log("netdev", "test", EventLog()), lambda: io.ptr, int)
    io.close()


@pytest.fixture
def boxes() -> Iterator[Callable[..., Box]]:
    """Boxes that are closed in the end."""
    made: list[Box] = []

    def box(*args: Any, **options: Any) -> Box:
        made.append(Box(*args, **options))
        return made[-1]

    yield box
    for each in made:
        each.close()


@pytest.fixture
async def open_back_end(context: NetContext) -> AsyncIterator[Callable[..., Any]]:
    """Opens back ends by type and options (`_` for `-`), and closes them in the end."""
    made: list[Any] = []

    async def open_one(kind: str, name: str = "n0", **values: Any) -> Any:
        where = NetContext(name, context.log, context.io, context.find_fd, context.chardev)
        made.append(await open_netdev(kind, {key.replace("_", "-"): value for key, value in values.items()}, where))
        return made[-1]

    yield open_one
    for each in made:
        each.close()
