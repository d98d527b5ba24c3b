"""The links that a machine's cards are on, by name: those of a lab, and those put in where one is asked for.

`find("net0")` of a card that is joined to a back end directly puts a link between the two, unseen by both: a tap or
user networking of a machine by itself can so be impaired, cut and captured like a link of a lab.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioemu.log import Log

if TYPE_CHECKING:
    from aioemu.machine.nics import Nic, Nics
    from aioemu.netdev.link import Link


@dataclass(frozen=True, slots=True)
class _Context:
    """What serves a link that was put in: the context of its card."""

    io: Any


class NicLinks(dict[str, Any]):
    """Links by name."""

    def __init__(self, nics: Callable[[], Nics], log: Log) -> None:
        super().__init__()
        self._nics = nics
        self._log = log
        self._own: list[Link] = []

    def find(self, name: str) -> Link | None:
        """A link by its name, or by the id of a card or its back end; None where nothing is joined."""
        if name in self:
            found: Link = self[name]
            return found
        nic = next((nic for nic in self._nics().cards if name in _names(nic)), None)
        if nic is None or nic.port.peer is None:
            return None
        from aioemu.netdev.link import Link

        if isinstance(nic.port.peer.owner, Link):
            return nic.port.peer.owner
        return self._put_in(nic, name)

    def _put_in(self, nic: Nic, name: str) -> Link:
        from aioemu.netdev.link import Link

        link = Link(name, _Context(nic.io), log=self._log.to("net"))
        link.insert(nic.port)
        self._own.append(link)
        self[name] = link
        nic.port.closers.append(lambda: self._end(name, link))  # its context may go after the card
        return link

    def _end(self, name: str, link: Link) -> None:
        if link in self._own:
            self._own.remove(link)
            self.pop(name, None)
            link.close()

    def close(self) -> None:
        """End those that were put in; cards and back ends are parted by then, or will be."""
        while self._own:
            self._own.pop().close()
        self.clear()


def _names(nic: Nic) -> tuple[str, ...]:
    return (nic.name,) if nic.back_end is None else (nic.name, nic.back_end.id)
