"""What back ends need of a machine: an io context, boxes for their other ends; links with their thread; namespaces."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from aioemu.chardev import Chardevs
from aioemu.log import EventLog, Log
from aioemu.machine.iothread import ReactorIo
from aioemu.machine.net_chardevs import chardev_opener
from aioemu.netdev.link import Clockwork
from aioemu.netdev.port import Box
from aioemu.netdev.registry import NetContext, open_netdev
from tests.netdev.link_rig import Rig
from tests.netdev.namespaces import Namespace, namespace


@pytest.fixture
async def context() -> AsyncIterator[NetContext]:
    """A back end's machine, as far as it sees it; `context.log` keeps the events."""
    io, chardevs = ReactorIo(), Chardevs()
    yield NetContext("n0", Log("netdev", "test", EventLog()), lambda: io.ptr, int, chardev_opener(chardevs))
    chardevs.close()
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
    made: list[tuple[str, Any]] = []

    async def open_one(kind: str, name: str = "n0", **values: Any) -> Any:
        where = replace(
            context, id=name, find_netdev=lambda wanted: next((n.port for each, n in made if each == wanted), None)
        )
        netdev = await open_netdev(kind, {key.replace("_", "-"): value for key, value in values.items()}, where)
        made.append((name, netdev))
        return netdev

    yield open_one
    for _, each in reversed(made):
        each.close()


@pytest.fixture
def netns() -> Iterator[Namespace]:
    """A network namespace; skips where none may be made."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root and /dev/net/tun")
    with namespace() as made:
        yield made


@pytest.fixture
def clockwork() -> Iterator[Clockwork]:
    """The thread of links and switches."""
    made = Clockwork()
    yield made
    made.close()


@pytest.fixture
async def rig(clockwork: Clockwork) -> AsyncIterator[Rig]:
    """A link with a box at either end."""
    made = Rig(clockwork)
    yield made
    made.close()
