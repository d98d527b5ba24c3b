"""The command: QEMU's options, one machine, QEMU's exit status.

`main` is the console script. It loads nothing until it knows what is asked for: -version and -help print from a table.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    import sys

    from aioemu.cli.program import run_program

    return run_program(sys.argv[1:] if argv is None else argv)
