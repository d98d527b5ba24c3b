"""The one tree of errors: what went wrong, and whose doing it was.

A message names the thing (the option, the file, the device) before it says what is the matter with it. The cause stays
attached through `raise ... from`. A guest's mistake is only ever a GuestError: it stops a device, never the host.
"""

from __future__ import annotations

import os


class EmuError(Exception):
    """Everything that aioemu raises on purpose."""


class ConfigError(EmuError):
    """What the user asked for cannot be: `option` is what they gave, where one option is at fault."""

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class HostError(EmuError):
    """The host refused a call: what was tried, and the errno it answered."""

    def __init__(self, action: str, errno: int | None = None) -> None:
        self.action = action
        self.errno = abs(errno) if errno else None
        super().__init__(f"{action}: {os.strerror(self.errno)}" if self.errno else action)


class GuestError(EmuError):
    """The guest did something that stops a device: `device` is the one that stopped."""

    def __init__(self, message: str, device: str | None = None) -> None:
        super().__init__(f"{device}: {message}" if device else message)
        self.device = device


class StateError(EmuError):
    """A saved state cannot be loaded: torn, of another version, or not made by aioemu."""


class AccelError(EmuError):
    """The accelerator cannot run this guest, or stopped running it."""


class MonitorError(EmuError):
    """A monitor command failed: `error_class` is what the protocol calls the kind of failure."""

    def __init__(self, message: str, error_class: str = "GenericError") -> None:
        super().__init__(message)
        self.error_class = error_class


class Hint(str):
    """A note of an error that says what may be behind it; people see it below the message."""


def with_hints(exc: BaseException) -> str:
    """An error's message and its hints, a line each; other notes are for whoever embeds a machine."""
    notes = getattr(exc, "__notes__", ())
    return "\n".join((str(exc), *(note for note in notes if isinstance(note, Hint))))
