"""-version, -help and -probe. The first two print from light tables: tools call them at every start."""

from __future__ import annotations

import aioemu
from aioemu.cli.table import SECTIONS

QEMU_LEVEL = "10.0.0"  # the version whose QAPI and options are spoken; launchers read it from the first line
USAGE = "usage: aioemu [options] [disk_image]\n       aioemu qmp-shell [options] SOCKET"
COLUMN = 16


def print_version() -> int:
    """The first line has the QEMU level where launchers look for it."""
    print(f"QEMU emulator version {QEMU_LEVEL} (aioemu {aioemu.__version__})")
    print("aioemu is free software under the GNU General Public License, version 2 or later")
    return 0


def print_help() -> int:
    """Every option, in sections."""
    lines = [f"QEMU emulator version {QEMU_LEVEL} (aioemu {aioemu.__version__})", USAGE]
    for title, options in SECTIONS:
        lines += ["", f"{title}:"]
        for option in options:
            head = f"-{option.name} {option.argument}".rstrip()
            if len(head) < COLUMN:
                lines.append(f"{head:<{COLUMN}}{option.help}")
            else:
                lines += [head, " " * COLUMN + option.help]
    print("\n".join(lines))
    return 0


def probe(as_json: bool) -> int:
    """What this host can do, and what aioemu will use of it."""
    from aioemu.accel import probe as host

    facts = host.probe()
    if as_json:
        import json

        print(json.dumps(host.as_json(facts), indent=2))
    else:
        print(host.as_text(facts))
    return 0
