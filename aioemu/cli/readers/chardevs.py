"""Chardevs and what is tied to them: ports, monitors, debug servers. Ids are QEMU's: serial0, compat_monitor0, ..."""

from __future__ import annotations

from msgspec.structs import replace

from aioemu.cli.draft import Draft
from aioemu.cli.reading import Argument
from aioemu.config import MonitorOptions, SocketOptions, UnixAddress
from aioemu.config.chardev_options import parse_chardev, parse_short
from aioemu.config.grammar import parse_number

GDB_PORT = 1234


def chardev(draft: Draft, arg: Argument) -> None:
    """One more chardev."""
    draft.add_chardev(arg.where, parse_chardev(arg.opts))


def serial(draft: Draft, arg: Argument) -> None:
    """The next port; `none` leaves it out."""
    draft.default_serial = False
    draft.serials.append(_port(draft, arg, f"serial{len(draft.serials)}"))


def _port(draft: Draft, arg: Argument, chardev_id: str) -> str | None:
    """The chardev of a port: an existing one, none, or a new one, with a monitor on it where `mon:` says so."""
    if arg.text == "none":
        return None
    if arg.text.startswith("chardev:"):
        return arg.text.removeprefix("chardev:")
    draft.add_chardev(arg.where, parse_short("-serial", arg.text, chardev_id))
    if arg.text.startswith("mon:"):
        draft.default_monitor = False
        draft.monitors.append(MonitorOptions(chardev_id))
    return chardev_id


def parallel(draft: Draft, arg: Argument) -> None:
    """There are no parallel ports: only `none` and `null` can be had."""
    if arg.text not in ("none", "null"):
        arg.opts.fail("there are no parallel ports, only -parallel none")


def debugcon(draft: Draft, arg: Argument) -> None:
    """The chardev of the device that the machine puts at port 0xe9."""
    draft.flags["debugcon"] = _port(draft, arg, "debugcon")


def monitor(draft: Draft, arg: Argument) -> None:
    """A text monitor."""
    _monitor(draft, arg, "readline", pretty=False)


def qmp(draft: Draft, arg: Argument) -> None:
    """A QMP monitor."""
    _monitor(draft, arg, "control", pretty=False)


def qmp_pretty(draft: Draft, arg: Argument) -> None:
    """A QMP monitor for people."""
    _monitor(draft, arg, "control", pretty=True)


def _monitor(draft: Draft, arg: Argument, mode: str, pretty: bool) -> None:
    draft.default_monitor = False
    if arg.text == "none":
        return
    if arg.text.startswith("chardev:"):
        draft.monitors.append(MonitorOptions(arg.text.removeprefix("chardev:"), mode, pretty))
        return
    chardev_id = f"compat_monitor{draft.monitor_count}"
    draft.monitor_count += 1
    options = parse_short(arg.where.split(" ", 1)[0], arg.text, chardev_id)
    if mode == "control" and isinstance(options, SocketOptions) and isinstance(options.address, UnixAddress):
        options = replace(options, listen_if_free=not options.server)
    draft.add_chardev(arg.where, options)
    draft.monitors.append(MonitorOptions(chardev_id, mode, pretty))


def mon(draft: Draft, arg: Argument) -> None:
    """A monitor on a chardev that may come later on the command line."""
    opts = arg.opts
    draft.default_monitor = False
    name = opts.need("chardev")
    mode = opts.choice("mode", ("readline", "control"), "readline")
    pretty = opts.flag("pretty", False)
    monitor_id = opts.identifier()
    opts.close()
    if pretty and mode == "readline":
        opts.fail("'pretty' is not compatible with mode readline")
    draft.monitors.append(MonitorOptions(name, mode, pretty, monitor_id))


def gdb(draft: Draft, arg: Argument) -> None:
    """Where gdb connects."""
    if arg.text != "none":
        draft.flags["gdb"] = arg.text


def gdb_default(draft: Draft, arg: Argument) -> None:
    """The usual place."""
    draft.flags["gdb"] = f"tcp::{GDB_PORT}"


def qtest(draft: Draft, arg: Argument) -> None:
    """A chardev of the name that QEMU gives it."""
    if arg.text.startswith("chardev:"):
        draft.qtest = arg.text.removeprefix("chardev:")
    else:
        draft.qtest = draft.add_chardev(arg.where, parse_short("-qtest", arg.text, "qtest"))


def echr(draft: Draft, arg: Argument) -> None:
    """A number from 0 to 255."""
    value = parse_number(arg.text)
    if value is None or not 0 <= value <= 255:
        arg.opts.fail("expected a character code from 0 to 255")
    draft.flags["escape"] = value
