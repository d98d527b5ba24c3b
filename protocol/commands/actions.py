"""What follows a guest's reboot, shutdown, panic or a fired watchdog."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from aioemu.protocol.events import WatchdogAction
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class RebootAction(StrEnum):
    """After a guest's reboot."""

    RESET = "reset"
    SHUTDOWN = "shutdown"


class ShutdownAction(StrEnum):
    """After a guest's shutdown."""

    POWEROFF = "poweroff"
    PAUSE = "pause"


class PanicAction(StrEnum):
    """After a guest's panic."""

    PAUSE = "pause"
    SHUTDOWN = "shutdown"
    EXIT_FAILURE = "exit-failure"
    NONE = "none"


class SetAction(Record):
    """Which actions to change."""

    reboot: RebootAction | None = None
    shutdown: ShutdownAction | None = None
    panic: PanicAction | None = None
    watchdog: WatchdogAction | None = None


class WatchdogSetAction(Record):
    """What a fired watchdog does."""

    action: WatchdogAction


class ActionsMachine(Machine):
    """A machine whose actions can be changed while it lives; only the given ones change."""

    set_actions: Callable[..., None]


@command("set-action", needs=("set_actions",))
def set_action(machine: ActionsMachine, args: SetAction) -> None:
    """Change what follows certain events of the guest."""
    wanted = {name: getattr(args, name) for name in ("reboot", "shutdown", "panic", "watchdog")}
    machine.set_actions(**{name: value.value for name, value in wanted.items() if value is not None})


@command("watchdog-set-action", needs=("set_actions", "watchdog"))
def watchdog_set_action(machine: ActionsMachine, args: WatchdogSetAction) -> None:
    """Change what a fired watchdog does."""
    machine.set_actions(watchdog=args.action.value)


COMMANDS = (set_action, watchdog_set_action)
