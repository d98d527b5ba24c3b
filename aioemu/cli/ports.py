"""Which chardevs serial ports and monitors have when the options do not say: as QEMU without a window.

With -nographic they share stdio. Else the first serial port has a console that nobody reads unless the program that
runs the machine does, and there is no default monitor: without a window nobody could reach it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioemu.config import ConsoleOptions, MonitorOptions, StdioOptions

if TYPE_CHECKING:
    from aioemu.cli.draft import Draft

NO_SERIAL = frozenset(("none",))  # boards without a serial port of their own


def add_default_ports(draft: Draft) -> None:
    """Add what is missing; -nodefaults, and options that name a port or a monitor, leave it alone."""
    defaults = not draft.flags.get("nodefaults", False)
    has_serial_device = any(device.driver == "isa-serial" for device in draft.devices)
    board_has_port = draft.machine_type not in NO_SERIAL
    serial = defaults and draft.default_serial and board_has_port and not has_serial_device
    monitor = defaults and draft.default_monitor
    if draft.flags.get("nographic", False):
        _share_stdio(draft, serial, monitor)
    elif serial:
        _add_serial(draft, "serial0", ConsoleOptions(id="serial0"))


def _share_stdio(draft: Draft, serial: bool, monitor: bool) -> None:
    if serial and monitor:
        _add_serial(draft, "serial0", StdioOptions(id="serial0", mux=True, signal=False))
        draft.monitors.append(MonitorOptions("serial0"))
    elif serial:
        _add_serial(draft, "serial0", StdioOptions(id="serial0"))
    elif monitor:
        name = f"compat_monitor{draft.monitor_count}"
        draft.add_chardev("-nographic", StdioOptions(id=name))
        draft.monitors.append(MonitorOptions(name))


def _add_serial(draft: Draft, chardev_id: str, options: ConsoleOptions | StdioOptions) -> None:
    draft.add_chardev("-serial", options)
    draft.serials.append(chardev_id)
