"""The guest's life as the process sees it, the process itself, and its log."""

from __future__ import annotations

import os

from aioemu.cli.draft import Draft
from aioemu.cli.reading import Argument
from aioemu.config.grammar import parse_number

ACTIONS = {
    "reboot": ("reset", "shutdown"),
    "shutdown": ("poweroff", "pause"),
    "panic": ("shutdown", "pause", "exit-failure", "none"),
    "watchdog": ("reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none"),
}


def name(draft: Draft, arg: Argument) -> None:
    """The guest's name; thread names are always set."""
    draft.name = arg.opts.text("guest") or draft.name
    process = arg.opts.text("process")
    if process is not None:
        draft.process["process_name"] = process
    arg.opts.flag("debug-threads", False)
    arg.opts.close()


def no_reboot(draft: Draft, arg: Argument) -> None:
    """The old spelling of reboot=shutdown."""
    draft.actions["reboot"] = "shutdown"


def no_shutdown(draft: Draft, arg: Argument) -> None:
    """The old spelling of shutdown=pause."""
    draft.actions["shutdown"] = "pause"


def action(draft: Draft, arg: Argument) -> None:
    """What follows what."""
    for event, known in ACTIONS.items():
        if event in arg.opts:
            draft.actions[event] = arg.opts.choice(event, known, known[0])
    arg.opts.close()


def watchdog_action(draft: Draft, arg: Argument) -> None:
    """The old spelling of watchdog=."""
    if arg.text not in ACTIONS["watchdog"]:
        arg.opts.fail(f"Unknown -watchdog-action parameter (known: {', '.join(ACTIONS['watchdog'])})")
    draft.actions["watchdog"] = arg.text


def display(draft: Draft, arg: Argument) -> None:
    """There is none to choose but none."""
    kind = arg.opts.text("type")
    if kind != "none":
        arg.opts.fail(f"Parameter 'type' does not accept value '{kind}' (there is only none)")
    arg.opts.close()


def vga(draft: Draft, arg: Argument) -> None:
    """Kept for the board; `none` is what there is."""
    if arg.text != "none":
        arg.opts.fail(f"unknown vga type: {arg.text} (there is only none)")
    draft.flags["vga"] = "none"


def ready_fd(draft: Draft, arg: Argument) -> None:
    """A descriptor that is open."""
    fd = parse_number(arg.text)
    if fd is None or fd < 0:
        arg.opts.fail("expected a file descriptor")
    try:
        os.fstat(fd)
    except OSError as exc:
        arg.opts.fail(f"file descriptor {fd}: {exc.strerror}")
    draft.process["ready_fd"] = fd


def run_with(draft: Draft, arg: Argument) -> None:
    """The newer spelling of several options."""
    opts = arg.opts
    for key, field in (("chroot", "chroot"), ("user", "runas")):
        value = opts.text(key)
        if value is not None:
            draft.process[field] = value
    if opts.flag("exit-with-parent", False):
        draft.process["exit_with_parent"] = True
    opts.flag("async-teardown", False)
    opts.close()


def log_items(draft: Draft, arg: Argument) -> None:
    """Checked where they are known."""
    from aioemu.log import parse_items

    parse_items(arg.text)
    draft.log_items = [item for item in arg.text.split(",") if item]


def trace(draft: Draft, arg: Argument) -> None:
    """Patterns of event names, by themselves or one per line of a file."""
    pattern, events, file = (arg.opts.text(key) for key in ("enable", "events", "file"))
    arg.opts.close()
    if pattern is not None:
        draft.traces.append(pattern)
    if events is not None:
        draft.traces += _patterns(arg, events)
    if file is not None:
        draft.log_file = file


def _patterns(arg: Argument, path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as lines:
            return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as exc:
        arg.opts.fail(f"{path}: {getattr(exc, 'strerror', None) or exc}")
