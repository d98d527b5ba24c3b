"""One front end on several back ends: output goes to all, input comes from each, in the order it comes.

The slowest back end sets the pace: what one of them has not accepted is owed to it, and no more is taken until then.
"""

from __future__ import annotations

from collections.abc import Sequence

from aioemu.chardev.base import Chardev, Event
from aioemu.config import HubOptions


class HubChardev(Chardev):
    """Joins `members`, which are chardevs of their own and are opened and closed as such."""

    def __init__(self, options: HubOptions, members: Sequence[Chardev]) -> None:
        super().__init__(options)
        self._arms = [_Arm(self, member) for member in members]

    @property
    def filename(self) -> str:
        return "hub"

    async def open(self) -> None:
        for arm in self._arms:
            arm.member.connect(arm)
        await super().open()

    def close(self) -> None:
        super().close()
        for arm in self._arms:
            arm.member.disconnect()

    def accept_input(self) -> None:
        for arm in self._arms:
            arm.member.accept_input()

    def send_break(self) -> None:
        for arm in self._arms:
            arm.member.send_break()

    def _send(self, data: bytes) -> int:
        """All or nothing: an arm that falls short owes the rest, and the hub takes no more until it is paid."""
        if any(arm.owed for arm in self._arms):
            return 0
        for arm in self._arms:
            arm.send(data)
        return len(data)

    def paid(self) -> None:
        """An arm has no debt any more."""
        if not any(arm.owed for arm in self._arms):
            self._writable()

    def room(self) -> int:
        """Bytes of input that may come now, from any arm."""
        return self._room()

    def deliver(self, data: bytes) -> None:
        """Input from an arm."""
        self._deliver(data)

    def pass_on(self, event: Event) -> None:
        """An arm's break; an arm that comes or goes is not the hub's own coming or going."""
        if event is Event.BREAK:
            self._event(event)


class _Arm:
    """A hub's front end on one member. Owes at most one write of the hub's front end."""

    def __init__(self, hub: HubChardev, member: Chardev) -> None:
        self._hub = hub
        self.member = member
        self.owed = b""

    def send(self, data: bytes) -> None:
        self.owed = data[self.member.write(data) :]

    def receive(self, data: bytes) -> None:
        self._hub.deliver(data)

    def can_receive(self) -> int:
        return self._hub.room()

    def event(self, event: Event) -> None:
        self._hub.pass_on(event)

    def writable(self) -> None:
        if self.owed:
            self.send(self.owed)
            if not self.owed:
                self._hub.paid()
