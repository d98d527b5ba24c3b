"""Options that launchers give and that mean nothing here: read for mistakes, and left."""

from __future__ import annotations

from aioemu.cli.draft import Draft
from aioemu.cli.reading import Argument


def flag(draft: Draft, arg: Argument) -> None:
    """Nothing to read."""


def text(draft: Draft, arg: Argument) -> None:
    """Any text."""


def opts(draft: Draft, arg: Argument) -> None:
    """Any keys."""
    arg.opts.rest()


def sandbox(draft: Draft, arg: Argument) -> None:
    """Who asks for a filter learns that there is none."""
    if arg.opts.flag("enable", True):
        draft.warnings.append(f"{arg.where}: there is no system call filter")
    arg.opts.rest()


def no_audio(draft: Draft, arg: Argument) -> None:
    """Only silence can be had."""
    kind = arg.opts.text("driver")
    if kind != "none":
        arg.opts.fail(f"Parameter 'driver' does not accept value '{kind}' (there is only none)")
