"""Options that launchers give and that mean nothing here: read for mistakes, and left."""

from __future__ import annotations

from aioemu.cli.draft import Draft
from aioemu.cli.reading import Argument


def flag(draft: Draft, arg: Argument) -> None:
    """Nothing to read."""


def text(draft: Draft, arg: Argument) -> None:
    """Any text."""


def msg(draft: Draft, arg: Argument) -> None:
    """Flags of messages."""
    _flags(arg, "timestamp", "guest-name")


def overcommit(draft: Draft, arg: Argument) -> None:
    """Flags of the host's policy."""
    _flags(arg, "mem-lock", "cpu-pm")


def compat(draft: Draft, arg: Argument) -> None:
    """What happens to deprecated and unstable parts of the interface."""
    for name in ("deprecated-input", "deprecated-output", "unstable-input", "unstable-output"):
        arg.opts.text(name)
    arg.opts.close()


def _flags(arg: Argument, *names: str) -> None:
    for name in names:
        arg.opts.flag(name, False)
    arg.opts.close()


def sandbox(draft: Draft, arg: Argument) -> None:
    """Who asks for a filter learns that there is none."""
    if arg.opts.flag("enable", True):
        draft.warnings.append(f"{arg.where}: there is no system call filter")
    for name in ("obsolete", "elevateprivileges", "spawn", "resourcecontrol"):
        arg.opts.text(name)
    arg.opts.close()


def no_audio(draft: Draft, arg: Argument) -> None:
    """Only silence can be had."""
    kind = arg.opts.text("driver")
    if kind != "none":
        arg.opts.fail(f"Parameter 'driver' does not accept value '{kind}' (there is only none)")
