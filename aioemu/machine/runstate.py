"""The run state of a machine, and what leads from one to the next (QEMU's RunState, QAPI run-state.json)."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class RunState(StrEnum):
    """Where a machine is in its life; the values are those of query-status."""

    PRELAUNCH = "prelaunch"
    RUNNING = "running"
    PAUSED = "paused"
    DEBUG = "debug"
    SAVE_VM = "save-vm"
    SHUTDOWN = "shutdown"
    GUEST_PANICKED = "guest-panicked"
    INTERNAL_ERROR = "internal-error"
    IO_ERROR = "io-error"
    WATCHDOG = "watchdog"

    @property
    def needs_reset(self) -> bool:
        """Nothing can go on from here: only a reset leads back to life."""
        return self in (RunState.SHUTDOWN, RunState.INTERNAL_ERROR)


class Cause(StrEnum):
    """Why a machine shuts down or resets (ShutdownCause); the values are those of the SHUTDOWN and RESET events."""

    HOST_QMP_QUIT = "host-qmp-quit"
    HOST_QMP_SYSTEM_RESET = "host-qmp-system-reset"
    HOST_SIGNAL = "host-signal"
    HOST_UI = "host-ui"
    HOST_ERROR = "host-error"
    GUEST_SHUTDOWN = "guest-shutdown"
    GUEST_RESET = "guest-reset"
    GUEST_PANIC = "guest-panic"

    @property
    def by_guest(self) -> bool:
        return self.value.startswith("guest-")


class ExitStatus(Struct, frozen=True):
    """How a machine's life ended: `code` is what the command exits with."""

    cause: Cause
    code: int = 0

    def __str__(self) -> str:
        return f"{self.cause.value} ({self.code})" if self.code else self.cause.value
