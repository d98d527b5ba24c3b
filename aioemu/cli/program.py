"""What the command does first: tell a question (-help, -version, -probe, `X help`) from a machine to run.

Errors go to stderr as one line that names the option, exit status 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from aioemu.errors import EmuError, with_hints

# first words that are commands of their own: module:function, called with the rest of the arguments
COMMANDS = {"qmp-shell": "aioemu.cli.qmp_shell:main"}


def run_program(argv: Sequence[str]) -> int:
    """Answer the question, or run the machine."""
    _open_standard_descriptors()
    try:
        if argv and argv[0] in COMMANDS:
            return _run_command(argv[0], argv[1:])
        status = _answer(argv)
        return _run_machine(argv) if status is None else status
    except EmuError as exc:
        print(f"aioemu: {with_hints(exc)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of -help has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _open_standard_descriptors() -> None:
    """Where the launcher closed 0, 1 or 2, nothing else may get that number: the event loop would abort."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _run_command(name: str, rest: Sequence[str]) -> int:
    from importlib import import_module

    module, _, function = COMMANDS[name].partition(":")
    status: int = getattr(import_module(module), function)(rest)
    return status


def _answer(argv: Sequence[str]) -> int | None:
    """Print what -version, -help or -probe asks for; None where the command line describes a machine."""
    from aioemu.cli import answers
    from aioemu.cli.command_line import walk

    for option, _, _ in walk(argv):
        if option.name in ("h", "help"):
            return answers.print_help()
        if option.name == "version":
            return answers.print_version()
        if option.name == "probe":
            return answers.probe(as_json=any(word.lstrip("-") == "json" for word in argv))
    return None


def _run_machine(argv: Sequence[str]) -> int:
    from aioemu.cli.command_line import read_command_line
    from aioemu.cli.reading import HelpRequest

    try:
        config, warnings = read_command_line(argv)
    except HelpRequest as request:
        from aioemu.cli.topics import print_topic

        return print_topic(request.topic, request.name)
    for warning in warnings:
        print(f"aioemu: warning: {warning}", file=sys.stderr)
    from aioemu.cli.run import run

    return run(config)
