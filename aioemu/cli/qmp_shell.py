"""`aioemu qmp-shell SOCKET`: the shell of the qemu.qmp library, with what the server's own schema knows.

The library brings the prompt, the syntax, history and command names; here the tab key also completes argument names
and values, `help COMMAND` shows a command's arguments, and a server that leaves is no traceback. It talks to any QMP
server. Its libraries are loaded only by this command. Not here: transactions' arguments in the completion.
"""

from __future__ import annotations

import argparse
import readline
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from qemu.qmp import ConnectError, ExecuteError, QMPError
from qemu.qmp.legacy import QMPBadPortError
from qemu.qmp.qmp_shell import HMPShell, QMPShell

Entity = dict[str, Any]
_GONE = (QMPError, EOFError, ConnectionError)  # what the library raises when the server leaves


class Schema:
    """A server's query-qmp-schema, to be asked for a command's arguments."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self._of = {each["name"]: each for each in entities}

    def command(self, name: str) -> Entity | None:
        """The command called `name`."""
        entity = self._of.get(name)
        return entity if entity is not None and entity["meta-type"] == "command" else None

    def members(self, name: str, given: Mapping[str, str] | None = None) -> list[Entity]:
        """A command's arguments; with those that come along with what is `given` for the one that chooses."""
        command = self.command(name)
        if command is None:
            return []
        of = self._of[command["arg-type"]]
        chosen = (given or {}).get(of.get("tag", ""))
        more = (self._of[each["type"]] for each in of.get("variants", ()) if each["case"] == chosen)
        return [*of.get("members", []), *(member for each in more for member in each.get("members", []))]

    def values(self, type_name: str) -> list[str]:
        """The values that a type has, if they can be told."""
        entity = self._of[type_name]
        if entity["meta-type"] == "enum":
            return list(entity["values"])
        return ["true", "false"] if entity.get("json-type") == "boolean" else []

    def describe(self, type_name: str, depth: int = 1) -> str:
        """A type in words: `string`, `a|b`, `[int]`, `{x, [y]}`; what is nested deeper is only `{...}`."""
        entity = self._of[type_name]
        kind = entity["meta-type"]
        if kind == "builtin":
            return str(entity["json-type"])
        if kind == "enum":
            return "|".join(entity["values"])
        if kind == "array":
            return f"[{self.describe(entity['element-type'], depth)}]"
        if kind == "alternate":
            return " or ".join(self.describe(each["type"], depth) for each in entity["members"])
        if not entity["members"]:
            return "{}"
        return f"{{{', '.join(self._member(each, depth - 1) for each in entity['members'])}}}" if depth else "{...}"

    def _member(self, member: Entity, depth: int) -> str:
        text = f"{member['name']}: {self.describe(member['type'], depth)}"
        return f"[{text}]" if "default" in member else text

    def help(self, name: str) -> str:
        """What a person wants to know of a command."""
        command = self.command(name)
        if command is None:
            return f"The command {name} has not been found"
        lines = [name, *(f"  {self._member(each, 1)}" for each in self.members(name))]
        return "\n".join([*lines, f"returns {self.describe(command['ret-type'])}"])

    def complete(self, line: str) -> list[str]:
        """Whole lines that (line) can become: another argument, or another value of the last one."""
        before, _, last = line.rpartition(" ")
        words = before.split()
        if words[:1] == ["help"]:
            return [f"help {name}" for name in self._of if self.command(name) and name.startswith(last)]
        if not words or self.command(words[0]) is None:
            return []
        given = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        members = {each["name"]: each for each in self.members(words[0], given)}
        key, equals, value = last.partition("=")
        if equals:
            known = self.values(members[key]["type"]) if key in members else []
            return [f"{before} {key}={each}" for each in known if each.startswith(value)]
        return [f"{before} {name}=" for name in members if name.startswith(key) and name not in given]


class SchemaShell(QMPShell):
    """The library's shell with the schema at hand."""

    schema = Schema(())

    def _completer_setup(self) -> None:
        super()._completer_setup()
        try:
            self.schema = Schema(self.cmd("query-qmp-schema"))  # type: ignore[arg-type]
        except ExecuteError:  # a guest agent has none
            return
        names = self._completer.complete

        def complete(text: str, state: int) -> str | None:
            if " " not in text:
                return names(text, state)
            lines = self.schema.complete(text)
            return lines[state] if state < len(lines) else None

        readline.set_completer(complete)

    def _execute_cmd(self, cmdline: str) -> bool:
        words = cmdline.split()
        if words[:1] != ["help"]:
            return super()._execute_cmd(cmdline)
        if len(words) == 2:
            print(self.schema.help(words[1]))
        else:
            print("help COMMAND shows a command's arguments; the tab key lists commands, arguments and values")
        return True


def main(argv: Sequence[str]) -> int:
    """Connect and read commands until the end of the input or of the server; the exit status."""
    options = _parser().parse_args(argv)
    shell_class = HMPShell if options.hmp else SchemaShell
    try:
        address = shell_class.parse_address(options.qmp_server.removeprefix("unix:"))
    except QMPBadPortError:
        return _fail(f"Bad port number: {options.qmp_server}")
    try:
        shell = shell_class(address, options.pretty, options.verbose, logfile=options.logfile)
    except OSError as exc:
        return _fail(f"{options.logfile}: {exc.strerror}")
    try:
        shell.connect(negotiate=not options.skip_negotiation)
    except ConnectError as exc:
        return _fail(f"Couldn't connect to {options.qmp_server}: {exc}")
    return _talk(shell)


def _talk(shell: QMPShell) -> int:
    shell.show_banner()
    try:
        while _step(shell):
            pass
    except KeyboardInterrupt:
        print()
    except _GONE:
        print("Disconnected")
    with suppress(*_GONE):  # the server closed first
        shell.close()
    if shell.logfile is not None:
        shell.logfile.close()
    return 0


def _step(shell: QMPShell) -> bool:
    """One line; False at the end. An empty one shows the events so far."""
    try:
        line = input(shell.prompt).strip()
    except EOFError:
        print()
        return False
    if line:
        return shell._execute_cmd(line)
    for event in shell.get_events():
        print(event)
    return True


def _fail(message: str) -> int:
    print(f"aioemu qmp-shell: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    """The options of the library's qmp-shell."""
    parser = argparse.ArgumentParser("aioemu qmp-shell", description="Talk to a QMP server.")
    parser.add_argument("-H", "--hmp", action="store_true", help="commands of the text monitor")
    parser.add_argument("-N", "--skip-negotiation", action="store_true", help="for guest agents")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what is sent")
    parser.add_argument("-p", "--pretty", action="store_true", help="JSON over several lines")
    parser.add_argument("-l", "--logfile", help="keep every message in this file")
    parser.add_argument("qmp_server", metavar="SOCKET", help="path of a UNIX socket, or ADDRESS:PORT")
    return parser
