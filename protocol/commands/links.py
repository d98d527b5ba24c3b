"""Links: cut them, impair them, look at their counters. Not of QEMU: the names begin with `aioemu-`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Protocol

from aioemu.errors import ConfigError, MonitorError
from aioemu.netdev.impair import NAMES
from aioemu.netdev.link import Direction, Link
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record, UInt32, UInt64


class LinkDirection(StrEnum):
    """Which way of a link."""

    A_TO_B = "a-to-b"
    B_TO_A = "b-to-a"
    BOTH = "both"


class LinkJitter(StrEnum):
    """How jitter is distributed around the delay."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    PARETO = "pareto"


class LinkSet(Record):
    """What to change of a link; what is left out stays as it is. Shares are 0 to 1, times milliseconds.

    A link is named by its own name, or by the id of a network card or its back end.
    """

    link: str
    direction: LinkDirection = LinkDirection.BOTH
    up: bool | None = None
    delay_ms: float | None = None
    jitter_ms: float | None = None
    jitter: LinkJitter | None = None
    loss: float | None = None
    loss_every: UInt32 | None = None
    burst_enter: float | None = None
    burst_leave: float | None = None
    burst_loss: float | None = None
    duplicate: float | None = None
    corrupt: float | None = None
    reorder: float | None = None
    reorder_ms: float | None = None
    rate_mbit: float | None = None
    queue_packets: UInt32 | None = None
    queue_bytes: UInt64 | None = None
    outage_up_ms: float | None = None
    outage_down_ms: float | None = None
    seed: UInt64 | None = None


class LinkName(Record):
    """Which link."""

    link: str


class LinkDrop(Record):
    """How many frames were lost for one reason."""

    reason: str
    frames: int


class LinkDirectionInfo(Record):
    """One way of a link: what is done to its frames, and what became of them so far."""

    direction: LinkDirection
    delay_ms: float
    jitter_ms: float
    jitter: LinkJitter
    loss: float
    loss_every: int
    burst_enter: float
    burst_leave: float
    burst_loss: float
    duplicate: float
    corrupt: float
    reorder: float
    reorder_ms: float
    rate_mbit: float
    queue_packets: int
    queue_bytes: int
    outage_up_ms: float
    outage_down_ms: float
    seed: int
    frames: int
    bytes: int
    delivered: int
    delivered_bytes: int
    duplicated: int
    corrupted: int
    reordered: int
    waiting: int
    waiting_bytes: int
    dropped: list[LinkDrop]


class LinkInfo(Record):
    """A link."""

    link: str
    up: bool
    seed: int
    directions: list[LinkDirectionInfo]


class Links(Protocol):
    """The links of a machine's network cards."""

    def find(self, name: str) -> Link | None:
        """By its name, or by the id of a card or back end: a link is put between the two where there is none."""

    def items(self) -> Iterable[tuple[str, Link]]: ...


class LinkedMachine(Machine):
    """A machine whose network cards may be on links."""

    links: Links


@command("aioemu-query-links", needs=("links",))
def query_links(machine: LinkedMachine) -> list[LinkInfo]:
    """List the links that the machine's network cards are on."""
    return [
        LinkInfo(
            link=name, up=link.is_up, seed=link.seed, directions=[_describe(direction) for direction in link.directions]
        )
        for name, link in machine.links.items()
    ]


@command("aioemu-link-set", needs=("links",))
async def link_set(machine: LinkedMachine, args: LinkSet) -> None:
    """Cut or mend a link, and impair it one way or both; in force when this is answered."""
    link = _find(machine, args.link)
    given = {name: getattr(args, name) for name in NAMES if getattr(args, name) is not None}
    if "jitter" in given:
        given["jitter"] = given["jitter"].value
    try:
        for direction in link.directions:  # all or nothing
            direction.impairment.changed(given)
    except ConfigError as exc:
        raise MonitorError(str(exc)) from exc
    if given and args.direction is LinkDirection.BOTH:
        await link.impair(**given)
    elif given:
        await _direction(link, args.direction).impair(**given)
    if args.up is not None:
        link.set_up(args.up)


@command("aioemu-link-clear", needs=("links",))
async def link_clear(machine: LinkedMachine, args: LinkName) -> None:
    """Let the frames of a link pass as they are again, both ways; whether it is cut stays."""
    await _find(machine, args.link).clear()


def _find(machine: LinkedMachine, name: str) -> Link:
    link = machine.links.find(name)
    if link is None:
        raise MonitorError(f"Link '{name}' not found", "DeviceNotFound")
    return link


def _direction(link: Link, which: LinkDirection) -> Direction:
    return link.a_to_b if which is LinkDirection.A_TO_B else link.b_to_a


def _describe(direction: Direction) -> LinkDirectionInfo:
    stats = direction.stats
    values: dict[str, Any] = {name: getattr(direction.impairment, name) for name in NAMES}
    values |= {name: getattr(stats, name) for name in stats.__dataclass_fields__ if name != "dropped"}
    values["jitter"] = LinkJitter(values["jitter"])
    dropped = [LinkDrop(reason=reason, frames=frames) for reason, frames in stats.dropped.items()]
    return LinkDirectionInfo(direction=LinkDirection(direction.name), dropped=dropped, **values)


COMMANDS = (query_links, link_set, link_clear)
