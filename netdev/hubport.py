"""A port of one of the machine's hubs, by number (`-netdev hubport`): with `netdev=` that back end is plugged into it.

All ports of a hub hear every frame of the others. A hub is there as long as one of its ports is. The hub is native and
lives in the reactor's io context (`core/switch.c`), with a bounded queue for each port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aioemu.errors import ConfigError
from aioemu.netdev.hub import Hub
from aioemu.netdev.port import Port
from aioemu.netdev.registry import NetContext

if TYPE_CHECKING:
    from aioemu.netdev.link import Clockwork


@dataclass(frozen=True, slots=True)
class Options:
    """`-netdev hubport`: see docs/user-networking.md."""

    hubid: int
    netdev: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a hub's queues are served: what a switch asks of its clockwork."""

    io: Any


class SharedHub:
    """A hub and who uses its ports; one that is given back is used again."""

    def __init__(self, number: int, io: Any) -> None:
        self._hub = Hub(f"hub {number}", cast("Clockwork", Place(io)))
        self._free: list[Port] = []
        self.used = 0

    def take(self) -> Port:
        """A port that nobody has."""
        port = self._free.pop() if self._free else self._hub.add_port()
        self.used += 1
        return port

    def give_back(self, port: Port) -> None:
        """That port is not used any more."""
        while port.closers:
            port.closers.pop()()
        port.part()
        port.set_up(True)
        self._free.append(port)
        self.used -= 1

    def close(self) -> None:
        """Free the hub."""
        self._hub.close()


class HubPort:
    """One port. Reactor thread only."""

    def __init__(self, options: Options, context: NetContext) -> None:
        self._hubs, self._number = context.hubs, options.hubid
        self._netdev = options.netdev
        if self._number not in self._hubs:
            self._hubs[self._number] = SharedHub(self._number, context.io())
        self._hub: SharedHub | None = self._hubs[self._number]
        self.port = self._hub.take()

    @property
    def summary(self) -> str:
        return f"hubid={self._number}" + (f",netdev={self._netdev}" if self._netdev is not None else "")

    def close(self) -> None:
        """Give the port back; the last one takes the hub with it. May be called twice."""
        hub, self._hub = self._hub, None
        if hub is None:
            return
        hub.give_back(self.port)
        if not hub.used:
            hub.close()
            del self._hubs[self._number]


async def open_netdev(options: Options, context: NetContext) -> HubPort:
    """Make the port, and plug in what `netdev=` names."""
    other = None
    if options.netdev is not None:
        other = context.find_netdev(options.netdev) if context.find_netdev is not None else None
        if other is None:
            raise ConfigError(f"netdev '{options.netdev}' not found", "-netdev hubport")
        if other.peer is not None:
            raise ConfigError(f"netdev '{options.netdev}' is in use", "-netdev hubport")
    made = HubPort(options, context)
    if other is not None:
        made.port.join(other)
    return made
