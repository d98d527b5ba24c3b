"""The balloon: how much memory the guest is asked to keep, and how much it has (QAPI machine.json)."""

from __future__ import annotations

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Balloon, Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record, Size


class BalloonTarget(Record):
    """Bytes that the guest shall have."""

    value: int


class BalloonInfo(Record):
    """Bytes that it has."""

    actual: Size


class BalloonMachine(Machine):
    """A machine that may have a balloon; one can come and go."""

    def find_balloon(self) -> Balloon | None:
        """The first there is."""


@command("balloon", needs=("find_balloon",))
def balloon(machine: BalloonMachine, args: BalloonTarget) -> None:
    """Ask the guest to keep so much memory and give the rest back; BALLOON_CHANGE says what it did."""
    found = _find(machine)
    if args.value <= 0:
        raise MonitorError("Parameter 'value' expects a size")
    found.set_target(args.value)


@command("query-balloon", needs=("find_balloon",))
def query_balloon(machine: BalloonMachine) -> BalloonInfo:
    """Say how much memory the guest has now."""
    return BalloonInfo(actual=_find(machine).actual_bytes)


def _find(machine: BalloonMachine) -> Balloon:
    found = machine.find_balloon()
    if found is None:
        raise MonitorError("No balloon device has been activated", "DeviceNotActive")
    return found


COMMANDS = (balloon, query_balloon)
