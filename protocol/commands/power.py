"""Run, stand still, start over, end."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class RunState(StrEnum):
    """Where a machine is in its life (run-state.json)."""

    DEBUG = "debug"
    INMIGRATE = "inmigrate"
    INTERNAL_ERROR = "internal-error"
    IO_ERROR = "io-error"
    PAUSED = "paused"
    POSTMIGRATE = "postmigrate"
    PRELAUNCH = "prelaunch"
    FINISH_MIGRATE = "finish-migrate"
    RESTORE_VM = "restore-vm"
    RUNNING = "running"
    SAVE_VM = "save-vm"
    SHUTDOWN = "shutdown"
    SUSPENDED = "suspended"
    WATCHDOG = "watchdog"
    GUEST_PANICKED = "guest-panicked"
    COLO = "colo"


class StatusInfo(Record):
    """Whether the guest runs, and why not."""

    running: bool
    status: RunState


class NmiMachine(Machine):
    """A machine whose processors take NMIs."""

    inject_nmi: Callable[[], None]


@command("query-status")
def query_status(machine: Machine) -> StatusInfo:
    """Say whether the guest runs."""
    return StatusInfo(running=machine.running, status=RunState(machine.state.value))


@command("stop")
async def stop(machine: Machine) -> None:
    """Let the guest stand still; nothing happens if it does already."""
    await machine.pause()


@command("cont")
async def cont(machine: Machine) -> None:
    """Let the guest go on; nothing happens if it runs."""
    await machine.resume()


@command("system_reset")
async def system_reset(machine: Machine) -> None:
    """Press the reset button."""
    await machine.reset()


@command("system_powerdown")
def system_powerdown(machine: Machine) -> None:
    """Press the power button; an operating system in the guest shuts down, or does not care."""
    machine.powerdown()


@command("system_wakeup")
def system_wakeup(machine: Machine) -> None:
    """Wake a guest that sleeps: no board here lets a guest sleep, and this says so."""
    raise MonitorError("wake-up from suspend is not supported by this guest")


@command("quit")
async def quit_(machine: Machine) -> None:
    """End the machine now, whatever the guest does."""
    await machine.quit()


@command("inject-nmi", needs=("inject_nmi",))
def inject_nmi(machine: NmiMachine) -> None:
    """Interrupt every processor in a way that cannot be masked."""
    machine.inject_nmi()


@command("x-exit-preconfig", features=("unstable",))
async def exit_preconfig(machine: Machine) -> None:
    """End what `--preconfig` began: the guest runs, unless -S has it wait."""
    await machine.leave_preconfig()


COMMANDS = (query_status, stop, cont, system_reset, system_powerdown, system_wakeup, quit_, inject_nmi, exit_preconfig)
